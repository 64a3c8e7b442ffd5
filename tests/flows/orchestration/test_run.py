"""A run of a journey moves all its due enrollments, on every version."""

import asyncio
from typing import Any

import pytest
from prefect import State

from channels.outbox.dispatch import Dispatcher
from config.clock.times import HOUR
from flows.orchestration.pages.artifacts import markdown_table, write_outcomes
from flows.orchestration.run import Run
from flows.worker.leasing import leasing
from journeys.dsl import (
    Email,
    Experiment,
    Journey,
    OnLaunch,
    OnSegment,
    Segment,
    Send,
    Update,
    Wait,
    arm,
    attribute,
)
from journeys.operations.counts import Summary
from tests.support.shop import House


def run(house: House, version: Journey) -> dict[str, State[Any]]:
    """All tasks of a run that enters no audience: their states by name."""
    states: dict[str, State[Any]] = {}

    async def tasks(dispatcher: Dispatcher) -> None:
        async with leasing(house.segue, version.name) as leases:
            act = Run(
                house.segue,
                dispatcher,
                leases,
                journey=version,
                audience=None,
                people=None,
                launch_id="run",
            )
            states["enter"] = await act.enter()
            for step in version.graph:
                states[step] = await act.step(step)

    house.dispatching(tasks)
    return states


def words(state: State[Any]) -> str:
    return state.message or ""


def letters(*steps: Any) -> Journey:
    return Journey("letters", entry=OnLaunch(again="always"), topic="promotions", steps=steps)


HELLO = Send("hello", Email("hello"))
MARK = Update("mark", seen=True)


def test_enrollments_on_an_older_version_are_moved(house: House) -> None:
    older, newer = letters(HELLO, Wait("1h", "gone"), MARK), letters(HELLO, MARK)
    house.open(older)
    ann = house.customer("ann")
    house.launch("letters")
    assert [one.step for one in house.people(ann)] == ["gone"]

    house.db.now = house.now + 2 * HOUR  # and no worker runs
    house.open(newer)
    states = run(house, newer)
    assert states["enter"].name == "Continues without new people"
    assert states["hello"].name == "1 sent", "before this first run"
    assert states["mark"].name == "1 moved on", "the step of that name in the older version"
    assert house.passed(ann) == [("hello", "next"), ("gone", "next"), ("mark", "next")]


def test_a_send_step_sends_and_reports_its_messages(house: House) -> None:
    version = letters(Wait("1h", "wait"), HELLO, MARK)
    house.open(version)
    house.customer("ann")
    house.customer("bob", consent={("email", "*"): False})
    house.launch("letters")
    house.db.now = house.now + HOUR  # and no worker runs
    states = run(house, version)
    assert states["wait"].name == "2 moved on"
    assert states["hello"].name == "1 sent, 1 not sent"
    assert states["hello"].message == "1 sent (1 e-mail); 1 not sent (1 no consent); 2 moved on"
    assert states["mark"].name == "2 moved on"


def test_a_run_shows_what_happened_live_since_the_last_one(house: House) -> None:
    version = letters(HELLO, MARK)
    house.open(version)
    house.customer("ann")
    house.launch("letters")  # nobody runs the flow
    house.later("1h")
    states = run(house, version)
    assert words(states["enter"]).endswith("the steps show the activity so far")
    assert states["hello"].name == "1 sent"

    house.later("1h")
    house.customer("bob")
    house.launch("letters")  # both, for people may enter again
    house.later("1h")
    states = run(house, version)
    since = "the steps show the activity since the last run, at 2026-03-02T11:00:00Z"
    assert words(states["enter"]).endswith(since)
    assert states["hello"].name == "2 sent"
    assert states["mark"].message == "2 moved on"

    house.later("1h")
    assert run(house, version)["hello"].name == "Nothing due"


def test_each_run_enters_profiles_that_joined_the_segment(house: House) -> None:
    vips = Segment("vips", "Spent a lot", attribute("spent") > 100)
    version = Journey(
        "vips", entry=OnSegment("vips"), topic="promotions", steps=[Wait("1d", "wait"), MARK]
    )
    house.open(version, segments={"vips": vips})
    house.customer("ann", attributes={"spent": 500})
    bob = house.customer("bob", attributes={"spent": 5})
    assert run(house, version)["wait"].name == "1 waits here"
    house.change(bob, spent=200)
    assert run(house, version)["wait"].name == "2 wait here"
    assert run(house, version)["wait"].name == "2 wait here", "once each"


def test_the_error_texts_of_a_provider_stay_out_of_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []

    async def create(rows: list[dict[str, Any]], *_: object) -> None:
        left.extend(rows)

    monkeypatch.setattr("flows.orchestration.pages.artifacts.acreate_table_artifact", create)
    summary = Summary()
    for address in ("ann@example.com", "bob@example.com"):
        summary.outcomes["email", "failed", f"refused: {address} does not exist"] += 1
    asyncio.run(write_outcomes(letters(HELLO), summary))
    assert left == [{"channel": "e-mail", "outcome": "failed", "reason": "refused", "messages": 2}]


def test_a_run_writes_what_its_experiments_show(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, str] = {}

    async def create(text: str, key: str, _: str) -> None:
        written[key] = text

    async def create_table(*_: object) -> None:
        """The outcomes are another test's."""

    monkeypatch.setattr("flows.orchestration.pages.artifacts.acreate_markdown_artifact", create)
    monkeypatch.setattr("flows.orchestration.pages.artifacts.acreate_table_artifact", create_table)
    version = letters(Experiment("A | B?", arm("a", 1, [HELLO]), arm("b", 1, [])), MARK)
    house.open(version)
    for _ in range(20):
        house.customer()
    house.launch("letters")

    async def finish(dispatcher: Dispatcher) -> None:
        async with leasing(house.segue, version.name) as leases:
            act = Run(
                house.segue,
                dispatcher,
                leases,
                journey=version,
                audience=None,
                people=None,
                launch_id="run",
            )
            await act.finish()

    house.dispatching(finish)
    assert written.keys() == {"letters-picture", "letters-report", "letters-experiment-a-b"}
    text = written["letters-experiment-a-b"]
    assert text.startswith("# letters: A | B?\n\n- revenue a person, b against a: ")
    assert "](data:image/svg+xml;base64," in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| arm | people | expected | conversions")
    people = sum(int(row.split(" | ")[1]) for row in rows[2:4])
    assert people == 20
    assert all(line.count(" | ") in (5, 8) for line in rows)


def test_a_bar_does_not_end_a_cell() -> None:
    assert markdown_table(["a|b"], [["c"]]) == "| a\\|b |\n| --- |\n| c |"
