"""Journeys on a real Prefect server: the actions of a marketer in the UI, through its API.

All of these tests share one server, with the sandbox and the runner.
"""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import func, insert, select

from channels.messages import messages
from channels.outbox.outcomes import Tally
from config.clock.times import DAY
from config.database.engine import Database
from config.errors import SegueError
from config.settings import ROOT
from flows.app import Segue
from flows.launch import MOST_PEOPLE
from flows.local.sandbox_api import SandboxAPI
from flows.local.stack import Stack, environment, free_ports
from flows.orchestration.api.form_updates import FormUpdates
from flows.orchestration.api.prefect_api import AsyncPatientClient, PatientClient
from flows.orchestration.api.prefect_events import EVENT, Reporter
from flows.orchestration.api.prefect_runs import PrefectRuns
from flows.orchestration.deployments import deploy
from flows.orchestration.forms import CONTINUE
from flows.orchestration.names import APPROVALS, CONTROLS, SIMULATION, deployment_name
from flows.worker.worker import Worker
from journeys.definition.graph import parents
from journeys.engine.events import Reaction
from journeys.enrollments import enrollments
from journeys.launches.approvals import all_approvals
from journeys.operations.control import held, pause, resume
from journeys.operations.counts import Summary, summarise
from journeys.tables import launches
from profiles.events import NewEvent, record_events
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import upsert_people
from tests.support.failures import until
from tests.support.patience import PATIENCE
from tests.support.prefect_server import client_of
from tests.support.shop import bare_message

Row = dict[str, Any]
# One process for all of them, for the server's sake.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("prefect")]


@pytest.fixture(scope="package")
def api(stack: Stack) -> Iterator[PatientClient]:
    url = f"{stack.settings.prefect_url}/api"
    with PatientClient(base_url=url, timeout=PATIENCE) as client:
        yield client


def run(stack: Stack, name: str, /, **parameters: Any) -> tuple[str, Row]:
    """Start a run and wait for its end: its id and its state."""
    run_id = stack.prefect.start(name, parameters)
    stack.wait_until(lambda: stack.prefect.ended(run_id) is not None, f"the run of {name}")
    state = stack.prefect.ended(run_id)
    assert state is not None
    return run_id, state


def rows(api: PatientClient, what: str, run_id: str) -> list[Row]:
    """What Prefect knows of a run: its task_runs, artifacts ...

    It writes down the states of tasks a little after their flow has ended.
    """
    for _ in range(int(PATIENCE / 0.2)):
        found = api.post(f"/{what}/filter", json={"flow_runs": {"id": {"any_": [run_id]}}})
        listed: list[Row] = found.raise_for_status().json()
        if all(row.get("state", True) for row in listed):
            break
        time.sleep(0.2)
    return listed


def summary_of(segue: Segue, launch_id: str) -> Summary:
    with segue.db.transaction(write=False) as tx:
        return summarise(tx, "win-back", launch_id)


def test_a_marketer_launches_a_journey(segue: Segue, stack: Stack, api: PatientClient) -> None:
    run_id, state = run(stack, "win-back", audience="lapsed", limit=30)
    assert state["type"] == "COMPLETED", state["message"]
    assert state["name"] == "Completed", "the deployment's page lists only Prefect's own names"

    # The launch is one of ours, with the run's id; each person has an answer for each channel.
    summary = summary_of(segue, run_id)
    assert summary.entered == 30
    assert sum(summary.outcomes.values()) == 3 * 30
    assert summary.sent["email"] > 0
    assert f"30 entered; {summary.sent.total()} sent (" in state["message"]
    with closing(SandboxAPI(segue.settings)) as sandbox:
        accepted = sandbox.stats()["accepted"]
    assert accepted == {"email": 0, "sms": 0, "push": 0} | dict(summary.sent)

    # The run graph is the journey's graph.
    graph = segue.catalog.journey("win-back").journey.graph
    tasks = {task["name"]: task for task in rows(api, "task_runs", run_id)}
    names = {task["id"]: name for name, task in tasks.items()}
    upstream = {
        name: [names[one["id"]] for one in task["task_inputs"].get("wait_for", [])]
        for name, task in tasks.items()
    }
    assert upstream == {"enter": []} | parents(graph) | {"we miss you": ["enter"]}

    # Each task says what happened.
    assert tasks["enter"]["state"]["name"] == "30 entered"
    sent, left_out = summary.sent.total(), sum(summary.not_sent.values())
    said = tasks["we miss you"]["state"]["name"]
    assert said.startswith(f"{sent} sent, ")
    assert said.endswith(f", {left_out} not sent")
    assert "not sent (" in tasks["we miss you"]["state"]["message"]
    assert tasks["mark lapsed"]["state"]["name"] == "Nothing due"

    # The run has the name of what it did, and its log says the same in sentences.
    assert api.get(f"/flow_runs/{run_id}").json()["name"] == "win-back: lapsed, at most 30 people"
    wanted = {state["message"], tasks["we miss you"]["state"]["message"]}
    asked = {"logs": {"flow_run_id": {"any_": [run_id]}}}

    def is_logged() -> bool:
        logs = api.post("/logs/filter", json=asked).raise_for_status().json()
        return wanted <= {one["message"] for one in logs}

    stack.wait_until(is_logged, "the log, which the run's process writes a little later")

    # What it leaves behind.
    left = {one["key"]: one for one in rows(api, "artifacts", run_id)}
    assert left["win-back-entering"]["data"] == 100
    assert "```mermaid\nflowchart TD" in left["win-back-picture"]["data"]
    assert "launch for lapsed<br/>30 entered" in left["win-back-picture"]["data"]
    assert "This launch, started by hand, for lapsed" in left["win-back-results"]["data"]
    assert f"**30 entered; {summary.sent.total()} sent; " in left["win-back-results"]["data"]
    assert "The whole journey, by every way in, from " in left["win-back-report"]["data"]
    table = httpx.Response(200, text=left["win-back-outcomes"]["data"]).json()
    assert sum(row["messages"] for row in table) == 3 * 30
    assert {"channel": "SMS", "outcome": "not sent", "reason": "no consent"}.items() <= (
        next(row for row in table if row["reason"] == "no consent" and row["channel"] == "SMS")
    ).items()


def test_a_simulation_in_prefect_writes_a_page_and_stores_nothing(
    segue: Segue, stack: Stack, api: PatientClient
) -> None:
    with segue.db.transaction(write=False) as tx:
        before = tx.conn.scalar(select(func.count()).select_from(enrollments))
    run_id, state = run(stack, SIMULATION, journey="welcome", audience="everyone", days=3)
    assert state["type"] == "COMPLETED"
    assert state["message"].startswith("Nothing was sent or stored. Would be: 400 entered; ")
    asked = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
    [page] = api.post("/artifacts/filter", json=asked).json()
    assert page["key"] == "simulation-welcome"
    assert page["data"].count("data:image/svg+xml;base64,") == 3
    with segue.db.transaction(write=False) as tx:
        assert tx.conn.scalar(select(func.count()).select_from(enrollments)) == before


def test_the_server_takes_updated_forms(segue: Segue, stack: Stack, api: PatientClient) -> None:
    name = f"/deployments/name/{deployment_name('welcome')}"

    async def update() -> None:
        url = f"{stack.settings.prefect_url}/api"
        async with AsyncPatientClient(base_url=url, timeout=PATIENCE) as http:
            await FormUpdates(segue).update(http)

    pause(segue.db, "welcome")
    try:
        asyncio.run(update())
        found = api.get(name).json()
        assert found["description"].startswith("> **Paused**: ")
        assert "paused" in found["tags"]
        audience = found["parameter_openapi_schema"]["properties"]["audience"]
        assert audience["title"] == "Who enters now"
        assert "everyone (400 people): Every customer." in audience["description"]
    finally:
        resume(segue.db, "welcome")
    asyncio.run(update())
    assert "paused" not in api.get(name).json()["tags"]


def test_the_staff_site_schedules_on_the_server(segue: Segue, stack: Stack) -> None:
    url = stack.settings.prefect_url
    ours = segue.settings.model_copy(update={"prefect_api_url": f"{url}/api"})
    runs = PrefectRuns(ours, url)
    asked = {"audience": "everyone", "limit": 1, "dry_run": False}
    tomorrow = int(time.time()) + DAY
    for _ in range(2):
        runs.start("welcome", asked, "a form", tomorrow)
        runs.schedule("welcome", asked, "0 9 * * mon", "America/New_York", "another form")
    found = runs.of_journey("welcome")
    [later] = [one for one in found.runs if one.at == tomorrow]
    assert (later.kind, later.page) == ("scheduled", f"{url}/v2/runs/flow-run/{later.id}")
    runs.cancel("welcome", later.id)
    states = {one.id: one.kind for one in runs.of_journey("welcome").runs}
    assert states[later.id] == "cancelled"
    [added] = found.schedules
    assert added.when == "every Mon at 9:00 (America/New_York)"
    assert (added.audience, added.active, added.is_own) == ("everyone", True, False)
    runs.remove_schedule("welcome", added.id)
    assert runs.of_journey("welcome").schedules == []
    [own] = runs.of_journey("win-back").schedules
    assert own.is_own
    with pytest.raises(SegueError, match="Prefect has no deployment 'wellcome'"):
        runs.start("wellcome", asked, "a form")
    with pytest.raises(SegueError, match="'lapst' is not one of"):
        runs.start("welcome", {**asked, "audience": "lapst"}, "a third form")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"audience": "lapst"},
            f"'lapst' is not one of ['{CONTINUE}', 'everyone', 'lapsed', ",
        ),
        ({"audience": "lapsed", "limit": -1}, "-1 is less than the minimum of 0"),
        ({"limit": MOST_PEOPLE + 1}, "10000001 is greater than the maximum of 10000000"),
        ({"limit": 10**30}, "is greater than the maximum of 10000000"),
        ({"limit": 2.5}, "2.5 is not of type 'integer'"),
        ({"limit": True}, "True is not of type 'integer'"),
        ({"limit": None}, "None is not of type 'integer'"),
        ({"audiance": "lapsed"}, "Additional properties are not allowed ('audiance' was"),
        ({"audience": "lapsed", "people": 3}, "Additional properties are not allowed ('people'"),
        ({"audience": ["lapsed"]}, f"['lapsed'] is not one of ['{CONTINUE}', "),
        ({"limit": "many"}, "'many' is not of type 'integer'"),
        ({"dry_run": "perhaps"}, "'perhaps' is not of type 'boolean'"),
    ],
)
def test_an_invalid_parameter_is_refused_with_a_reason(
    stack: Stack, parameters: Row, words: str
) -> None:
    with pytest.raises(SegueError) as refused:
        stack.prefect.start("win-back", parameters)
    assert words in str(refused.value)


def test_a_run_without_parameter_validation_enters_nobody(stack: Stack, api: PatientClient) -> None:
    """The API lets a caller leave the check out; then the run ends before its first task."""
    found = api.get(f"/deployments/name/{deployment_name('welcome')}").json()
    asked = {"parameters": {"audiance": "lapsed"}, "enforce_parameter_schema": False}
    run_id = (
        api.post(f"/deployments/{found['id']}/create_flow_run", json=asked)
        .raise_for_status()
        .json()["id"]
    )
    stack.wait_until(lambda: stack.prefect.ended(run_id) is not None, "the run")
    state = stack.prefect.ended(run_id)
    assert state is not None
    assert state["type"] == "CRASHED"
    assert rows(api, "task_runs", run_id) == []


def test_only_its_owner_reads_what_prefect_writes(stack: Stack) -> None:
    folder = stack.settings.data_dir / "prefect"
    assert (folder / "prefect.db").exists()
    for path in (folder, *folder.rglob("*")):
        assert not path.lstat().st_mode & 0o077 or path.is_symlink(), path


def test_the_form_that_holds_a_journey_refuses_more_than_it_asks_for(stack: Stack) -> None:
    with pytest.raises(SegueError, match=r"Additional properties are not allowed \('why' was"):
        stack.prefect.start(CONTROLS, {"journey": "welcome", "action": "pause", "why": "now"})


def test_the_form_explains_every_field(api: PatientClient) -> None:
    deployment = api.get(f"/deployments/name/{deployment_name('cart-recovery')}").json()
    fields = deployment["parameter_openapi_schema"]["properties"]
    assert list(fields) == ["audience", "limit", "dry_run"]
    assert all(field["description"] for field in fields.values())
    # A worker may have added the size.
    assert re.search(r"lapsed( \(.*?\))?: Ordered before, but", fields["audience"]["description"])
    assert deployment["description"].startswith("Reminds people of the cart they left")


def test_a_journey_is_started_by_its_own_schedule(stack: Stack, api: PatientClient) -> None:
    deployment = api.get(f"/deployments/name/{deployment_name('win-back')}").json()
    [schedule] = deployment["schedules"]
    assert schedule["schedule"]["cron"] == "0 8 * * mon"
    assert schedule["schedule"]["timezone"] == "Europe/London"
    assert schedule["parameters"] == {"audience": "lapsed"}

    def scheduled() -> list[Row]:
        wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        found: list[Row] = api.post("/flow_runs/filter", json=wanted).json()
        return found

    # Prefect's scheduler really does make the runs.
    stack.wait_until(lambda: bool(scheduled()), "scheduling runs")
    assert {one["parameters"]["audience"] for one in scheduled()} == {"lapsed"}


# Run in a process of their own, for Prefect leaves connections open in the one that runs a flow.
FLOW_CALLS = """
import asyncio
import json
from functools import partial
from prefect import flow
from prefect.states import Completed
from flows.orchestration.journey import perform
from flows.orchestration.library import FLOWS
from flows.orchestration.api.form_updates import FormUpdates
from flows.orchestration.forms import CONTINUE
from flows.orchestration.names import APPROVALS
from journeys.dsl import Exit, Journey, OnLaunch, Update

class Broken:
    journey = Journey(
        "broken", entry=OnLaunch(), topic="any", steps=[Update("mark", seen=True), Exit("leave")]
    )
    async def enter(self):
        return Completed(name="1 entered")
    async def step(self, name):
        raise ValueError(f"no {name} today")
    async def finish(self):
        return Completed()

@flow(name="broken")
async def broken():
    return await perform(Broken())

async def call_all():
    welcome = partial(FLOWS["welcome"], return_state=True)
    approvals = partial(FLOWS[APPROVALS], return_state=True)
    states = {
        "broken": await broken(return_state=True),
        "dry run without audience": await welcome(dry_run=True),
        "dry run": await welcome(audience="everyone", dry_run=True),
        "paused": await FLOWS["cart-recovery"](audience="everyone", limit=3, return_state=True),
        "waiting": await welcome(audience="everyone"),
        "unknown launch": await approvals(launch="another", decision="approve", name="Ann"),
    }
    launch = str(states["waiting"].state_details.flow_run_id)
    states["rejecting"] = await approvals(
        launch=launch, decision="reject", name="Ann", reason="too early"
    )
    states["approving later"] = await approvals(launch=launch, decision="approve", name="Bob")
    print(json.dumps({name: str(one.state_details.flow_run_id) for name, one in states.items()}))

asyncio.run(call_all())
"""


class FlowCalls(NamedTuple):
    """The runs of `FLOW_CALLS`, and the rows of other journeys than cart-recovery."""

    runs: dict[str, Row]  # by name in FLOW_CALLS
    rows_before: list[int]
    rows_after: list[int]


@pytest.fixture(scope="module")
def flow_calls(segue: Segue, stack: Stack, approval_policy: Path, api: PatientClient) -> FlowCalls:
    def stored() -> list[int]:
        with segue.db.transaction(write=False) as tx:
            return [
                tx.conn.execute(
                    select(func.count()).where(table.c.journey != "cart-recovery")
                ).scalar_one()
                for table in (enrollments, messages, launches)
            ]

    before = stored()
    pause(segue.db, "cart-recovery")
    done = subprocess.run(
        [sys.executable, "-c", FLOW_CALLS],
        env=environment(stack.settings) | {"SEGUE_POLICY_FILE": str(approval_policy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=True,
    )
    resume(segue.db, "cart-recovery")
    ids: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    runs = {
        name: api.get(f"/flow_runs/{run_id}").raise_for_status().json()
        for name, run_id in ids.items()
    }
    return FlowCalls(runs, before, stored())


def test_a_dry_run_in_prefect_stores_nothing(flow_calls: FlowCalls, api: PatientClient) -> None:
    found = flow_calls.runs["dry run"]
    told = "Dry run: nothing was sent or stored. Would be: 400 entered; "
    assert found["state"]["message"].startswith(told)
    tasks = {task["name"]: task["state"]["name"] for task in rows(api, "task_runs", found["id"])}
    assert tasks["enter"] == "400 would enter"
    assert " would be sent, " in tasks["hello"]
    assert flow_calls.rows_after == flow_calls.rows_before


def test_a_dry_run_wants_an_audience(flow_calls: FlowCalls) -> None:
    found = flow_calls.runs["dry run without audience"]
    assert f"choose one instead of '{CONTINUE}'" in found["state"]["message"]


def test_a_step_that_fails_is_tried_again_and_then_named(
    flow_calls: FlowCalls, api: PatientClient
) -> None:
    found = flow_calls.runs["broken"]
    assert found["state"]["message"] == (
        "mark: Task run encountered an exception ValueError: no mark today"
    )
    tasks = {task["name"]: task for task in rows(api, "task_runs", found["id"])}
    assert tasks["mark"]["run_count"] == 3
    assert tasks["leave"]["state"]["name"] == "NotReady"


def test_a_run_of_a_paused_journey_reports_it(segue: Segue, flow_calls: FlowCalls) -> None:
    found = flow_calls.runs["paused"]
    told = "The journey is paused: nothing moves and nothing is sent. 3 "
    assert told in found["state"]["message"]
    with segue.db.transaction() as tx:
        standing = summarise(tx, "cart-recovery", found["id"])
    assert standing.active == 3


def test_the_form_that_holds_a_journey_lists_what_there_is(
    segue: Segue, stack: Stack, api: PatientClient
) -> None:
    form = api.get(f"/deployments/name/{deployment_name(CONTROLS)}").json()
    fields = form["parameter_openapi_schema"]["properties"]
    assert fields["journey"]["enum"] == list(segue.catalog.current)
    assert fields["action"]["enum"] == ["pause", "resume", "stop"]
    assert fields["journey"]["title"] == "Journey"
    assert fields["action"]["description"]
    with pytest.raises(SegueError, match="'wellcome' is not one of"):
        stack.prefect.start(CONTROLS, {"journey": "wellcome", "action": "pause"})


def test_a_launch_for_many_waits_until_a_marketer_approves_it(
    segue: Segue, stack: Stack, api: PatientClient
) -> None:
    waiting_id, state = run(stack, "welcome", audience="everyone", limit=360)
    waits = "Waiting for approval: 360 people"
    assert (state["type"], state["name"]) == ("COMPLETED", waits)
    assert state["message"].startswith(
        f"{waits}: it is for 360 profiles, which is more than 350. Until 2026-03-05T09:"
    )
    assert f"run the deployment {APPROVALS} with the launch {waiting_id}" in state["message"]
    tasks = {task["name"]: task["state"] for task in rows(api, "task_runs", waiting_id)}
    assert tasks["enter"]["name"] == waits
    assert " would be sent, " in tasks["hello"]["name"]
    assert "welcome-dry-run-picture" in {one["key"] for one in rows(api, "artifacts", waiting_id)}
    with segue.db.transaction(write=False) as tx:
        before = summarise(tx, "welcome", waiting_id)
        [waiting] = [one for one in all_approvals(tx) if one.launch_id == waiting_id]
    assert before == Summary()
    assert waiting.summary["entered"] == 360

    approving_id, state = run(stack, APPROVALS, launch=waiting_id, decision="approve", name="Ann")
    assert state["type"] == "COMPLETED", state["message"]
    assert state["message"].startswith("360 entered; ")
    tasks = {task["name"]: task["state"] for task in rows(api, "task_runs", approving_id)}
    assert tasks["enter"]["name"] == "360 entered"
    with segue.db.transaction(write=False) as tx:
        assert summarise(tx, "welcome", waiting_id).entered == 360


def test_a_launch_is_rejected_for_good(segue: Segue, flow_calls: FlowCalls) -> None:
    runs = flow_calls.runs
    launch = runs["waiting"]["id"]
    unknown, rejecting = runs["unknown launch"]["state"], runs["rejecting"]["state"]
    assert (unknown["type"], unknown["message"]) == (
        "FAILED",
        f"no launch 'another' waits for approval; there are: {launch}",
    )
    assert rejecting["type"] == "COMPLETED"
    assert rejecting["message"] == f"Ann rejected the launch {launch}: too early"
    later = runs["approving later"]["state"]
    assert (later["type"], later["message"]) == (
        "FAILED",
        f"the launch '{launch}' was rejected by Ann: too early",
    )
    with segue.db.transaction(write=False) as tx:
        assert summarise(tx, "welcome", launch) == Summary()


def test_live_counts_are_reported_and_trigger_automations(
    segue: Segue, stack: Stack, api: PatientClient
) -> None:
    """The automation of docs/marketer/prefect.md: bounces over 5 % pause a journey.

    The form resumes it.
    """
    page = (ROOT / "docs" / "marketer" / "prefect.md").read_text(encoding="utf-8")
    [script] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    subprocess.run(
        [sys.executable, "-c", script],
        env=environment(stack.settings),
        timeout=PATIENCE,
        check=True,
    )
    live = Database(segue.settings.database)  # Prefect's clock is the real one
    with live.transaction() as tx:
        rows = [bare_message("win-back", number, "failed", tx.now) for number in range(1, 61)]
        tx.conn.execute(insert(messages), rows)

    async def tell() -> None:
        url = f"{stack.settings.prefect_url}/api"
        teller = Reporter(live, segue.settings.model_copy(update={"prefect_api_url": url}))
        bounced = Reaction()
        bounced.about_messages["win-back", "email_bounced"] = 60
        teller.note(bounced, {"win-back": 7}, Tally({("win-back", "email", "sent"): 2}))
        stop = asyncio.Event()
        telling = asyncio.create_task(teller.run(stop))
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(reported):
                await asyncio.sleep(0.1)
        stop.set()
        await telling

    def reported() -> list[Row]:
        wanted = {"filter": {"event": {"name": [EVENT]}}}
        found: list[Row] = api.post("/events/filter", json=wanted).json()["events"]
        return found

    def paused() -> bool:
        with segue.db.transaction(write=False) as tx:
            return held(tx) == {"win-back": "paused"}

    asyncio.run(tell())
    [event] = reported()
    deployment = api.get(f"/deployments/name/{deployment_name('win-back')}").json()["id"]
    assert event["resource"]["prefect.resource.id"] == f"prefect.deployment.{deployment}"
    assert event["payload"]["messages"] == {"email": {"sent": 2}}
    stack.wait_until(paused, "the automation")
    live.close()
    by_automation = api.post("/flow_runs/filter", json={"flows": {"name": {"any_": [CONTROLS]}}})
    [pausing] = by_automation.raise_for_status().json()
    stack.wait_until(lambda: stack.prefect.ended(pausing["id"]) is not None, "the run that pauses")
    _, resuming = run(stack, CONTROLS, journey="win-back", action="resume")
    for ended in (stack.prefect.ended(pausing["id"]), resuming):
        assert ended is not None
        assert ended["type"] == "COMPLETED", ended["message"]
        assert ended["message"].startswith("win-back is ")
    with segue.db.transaction(write=False) as tx:
        assert held(tx) == {}


def test_messages_are_sent_while_the_server_hangs(segue: Segue, stack: Stack) -> None:
    """It accepts connections and does not respond; a worker sends, and stops when asked."""
    api_url = f"{stack.settings.prefect_url}/api"
    told = segue.settings.model_copy(update={"prefect_api_url": api_url, "receiver_port": 0})
    url = "https://shop.example/cart/1"
    cart = {"cart_id": "c-1", "items": [{"name": "Tent", "quantity": 1}], "url": url}
    with segue.db.transaction() as tx:
        person = Person(
            user_id="ann", email=normalise_email("ann@example.com"), timezone="Europe/London"
        )
        [ann] = upsert_people(tx, [person], "test").profile_ids
        assert ann is not None
        came = NewEvent(
            profile_id=ann,
            name="cart_abandoned",
            occurred_at=tx.now,
            dedupe_key="1",
            properties=cart,
        )
        record_events(tx, [came], worked=False)

    def hers() -> list[str]:
        with segue.db.transaction(write=False) as tx:
            return list(
                tx.conn.execute(
                    select(messages.c.state).where(
                        messages.c.profile_id == ann, messages.c.channel == "email"
                    )
                ).scalars()
            )

    async def work() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(replace(segue, settings=told)).run(stop))
        await until(lambda: hers() == ["sent"])
        stop.set()
        async with asyncio.timeout(30):
            await working

    [server] = [one for one in stack._servers if one.name == "the Prefect server"]
    server.signal(signal.SIGSTOP)
    try:
        asyncio.run(work())
    finally:
        server.signal(signal.SIGCONT)
    stack.wait_until(stack.prefect.is_well, "going on")


def test_deploying_wants_a_server(stack: Stack) -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(SegueError, match="PREFECT_API_URL is not set"),
    ):
        deploy("pool")
    [port] = free_ports(1)
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}),
        pytest.raises(SegueError, match="can't be reached"),
    ):
        deploy("pool")


def test_a_work_pool_has_to_be_there(stack: Stack) -> None:
    with (
        client_of(stack.settings),
        pytest.raises(SegueError, match="prefect work-pool create nowhere"),
    ):
        deploy("nowhere")


def test_deploying_again_keeps_what_people_chose_in_the_ui(
    stack: Stack, api: PatientClient
) -> None:
    """The last test: from here on the journeys belong to the work pool."""
    path = f"/deployments/name/{deployment_name('win-back')}"
    deployment = api.get(path).json()
    schedules = f"/deployments/{deployment['id']}/schedules"
    [ours] = deployment["schedules"]
    api.patch(f"{schedules}/{ours['id']}", json={"active": False}).raise_for_status()
    added = {"schedule": {"cron": "0 9 1 * *", "timezone": "Europe/Paris"}, "active": True}
    api.post(schedules, json=[added]).raise_for_status()
    api.post("/work_pools/", json={"name": "pool", "type": "process"}).raise_for_status()

    with client_of(stack.settings):
        deploy("pool")

    again = api.get(path).json()
    assert again["work_pool_name"] == "pool"
    assert again["entrypoint"] == "flows.orchestration.library.win_back"
    active = {one["schedule"]["cron"]: one["active"] for one in again["schedules"]}
    assert active == {"0 8 * * mon": False, "0 9 1 * *": True}
