"""`segue simulate`: its output, its options, and that it writes nothing."""

import re
import shutil
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import flows.cli.main
from config.clock.times import Instant, format_instant, parse_instant
from config.database.engine import Database
from config.database.schema import migrate
from config.policy import load_policy
from config.settings import ROOT
from flows.orchestration.pages.simulation_page import simulation_page
from journeys.definition.catalog import Catalog, load_catalog
from journeys.definition.journey import Journey, Version
from profiles.events import NewEvent, record_events
from profiles.sample.shop import load_sample_shop

NOW: Instant = parse_instant("2026-03-02T09:00:00Z")
Run = Callable[..., tuple[int, str, str]]


def older_win_back() -> Catalog:
    """Win-back as it was before it had a text: e-mail and push, then a last word."""
    library = load_catalog(load_policy(ROOT / "config" / "policy.toml"))
    now = library.journey("win-back")
    first, *others = now.definition["journey"]["steps"]
    fewer = {**first, "messages": [one for one in first["messages"] if one["channel"] != "sms"]}
    journey = Journey.model_validate({**now.definition["journey"], "steps": [fewer, *others]})
    return Catalog({"win-back": Version(journey, now.sources)}, library.segments)


OLDER = older_win_back()


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a database with a small shop."""
    file = tmp_path_factory.mktemp("shop") / "segue.db"
    db = Database(f"sqlite:///{file}", now=NOW)
    migrate(db)
    load_sample_shop(db, NOW, customers=200)
    with db.transaction() as tx:
        OLDER.register(tx)
    db.close()
    return file


@pytest.fixture
def segue(
    stocked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.setenv("SEGUE_DATABASE_URL", f"sqlite:///{stocked}")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, alone: bool = False) -> tuple[int, str, str]:
        simulating = ["simulate", *arguments, "--now", format_instant(NOW)]
        monkeypatch.setattr(sys, "argv", ["segue", *(arguments if alone else simulating)])
        status = 0
        try:
            flows.cli.main.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def found(segue: Run, *arguments: str) -> dict[str, Any]:
    status, out, err = segue(*arguments, "--json")
    assert status == 0, err
    answer: dict[str, Any] = orjson.loads(out)
    return answer


def test_a_launch_for_a_segment(segue: Run, stocked: Path) -> None:
    before = stocked.read_bytes()
    one = found(segue, "win-back", "--audience", "lapsed", "--days", "14")
    assert one["people"] == one["entered"] > 10
    assert one["sent"]["email"] > one["entered"]
    assert one["not_sent"]["no_address"] > 0
    sent = sum(one["sent"].values())
    assert sum(day["sent"] for day in one["by_day"].values()) == sent
    assert sum(hour["sent"] for hour in one["by_hour"].values()) == sent
    assert sum(step["sent"] for step in one["by_step"]) == sent
    assert next(iter(one["by_day"])) == "2026-03-02"
    assert one["messages_a_person"]["p50"] <= one["messages_a_person"]["p100"] <= 4
    assert {rate["source"] for rate in one["rates"]} == {"average shop"}
    assert {load["provider"] for load in one["providers"]} <= {"sendgrid", "twilio", "fcm"}
    assert one["range"]["sent"] == [sent, sent]
    assert stocked.read_bytes() == before, "the simulation wrote to the shop's database"


def test_given_rates_decide_what_customers_answer(segue: Run) -> None:
    launch = ("win-back", "--audience", "lapsed", "--days", "14")
    quiet = found(segue, *launch, "--opens", "0", "--buys", "0", "--unsubscribes", "0")
    assert quiet["answers"].get("opened", 0) == quiet["unsubscribes"] == 0
    gone = found(segue, *launch, "--unsubscribes", "1")
    assert gone["unsubscribes"] > 0
    # Nobody gets the second mail.
    [last] = [step for step in gone["by_step"] if step["step"] == "last word"]
    assert last["sent"] <= 5
    bought = found(segue, *launch, "--buys", "1")
    assert bought["converted"] > quiet["converted"]
    assert {rate["source"] for rate in bought["rates"] if rate["answer"] == "bought"} == {"given"}


def test_all_journeys_with_seeds(segue: Run) -> None:
    every = found(segue, "--all", "--seeds", "3", "--days", "7")
    assert every["journeys"] == ["cart-recovery", "welcome", "win-back"]
    assert every["people"] == 200
    low, high = every["range"]["sent"]
    assert low < high
    assert low <= sum(every["sent"].values()) <= high
    assert every == found(segue, "--all", "--seeds", "3", "--days", "7"), "not repeatable"


def test_a_comparison_of_two_policies(segue: Run, tmp_path: Path) -> None:
    policy = tmp_path / "strict.toml"
    policy.write_text(
        '[topics]\nwelcome = "a"\npromotions = "b"\norders = "c"\n'
        '[[caps]]\nchannels = "all"\nlimit = 1\nper = "month"\n'
    )
    launch = ("win-back", "--audience", "lapsed", "--compare", str(policy))
    both = found(segue, *launch)
    assert both["compare"] == str(policy)
    other = both["compared"]
    assert both["entered"] == other["entered"] > 10
    # Nobody gets a second message in the month of March, and everything wanted is decided.
    assert other["messages_a_person"]["p100"] == 1
    assert both["messages_a_person"]["p100"] == 4
    assert "capped" not in both["not_sent"]
    unwanted = {"no_consent", "no_address"}
    assert {why: other["not_sent"][why] for why in unwanted} == {
        why: both["not_sent"][why] for why in unwanted
    }
    more = sum(both["sent"].values()) - sum(other["sent"].values())
    assert other["not_sent"]["capped"] == more > 10
    status, out, _ = segue(*launch)
    assert status == 0
    assert re.search(rf"not sent: capped +│ +0 +│ +{more} ", out), out
    assert "strict.toml" in out


def test_a_comparison_of_two_versions(segue: Run) -> None:
    """The older version has no text in its first step; apart from that all is the same."""
    digest = OLDER.journey("win-back").digest
    launch = ("win-back", "--audience", "lapsed", "--compare", digest)
    both = found(segue, *launch)
    other = both["compared"]
    assert both["compare"] == digest
    assert both["entered"] == other["entered"]
    assert (both["sent"]["sms"], other["sent"]["sms"]) == (10, 0)
    steps = [
        {(one["step"], one["channel"]): one for one in run["by_step"]} for run in (both, other)
    ]
    assert steps[0].keys() - steps[1].keys() == {("we miss you", "sms")}
    for place, one in steps[1].items():
        assert one == steps[0][place]
    status, out, _ = segue(*launch)
    assert status == 0
    assert re.search(rf"┃ +┃ now +┃ {digest} ┃", out), out
    assert re.search(r"sent: sms +│ 10 +│ 0 ", out), out
    assert re.search(r"we miss you │ sms +│ 10 +│ 27 +│ +│ +│", out), out


TOGETHER = """from journeys.dsl import Email, Experiment, Journey, OnEvent, Send, Update, arm

journey = Journey(
    "{name}",
    entry=OnEvent("order_completed", again="always"),
    topic="promotions",
    priority={priority},
    steps=[{step}],
)
"""
THANKS = 'Send("thanks", Email("hello"))'
TRIAL = """Experiment(
    "which",
    arm("offer", 50, [Send("offer", Email("hello"))]),
    arm("mark", 50, [Update("mark", tried=True)]),
)"""


def test_a_thank_you_and_an_experiment_on_one_day(
    segue: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`segue check` warns of them, and the simulation counts them."""
    for name, priority, step in (("thanks", 60, THANKS), ("trial", 40, TRIAL)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "journey.py").write_text(TOGETHER.format(name=name, priority=priority, step=step))
        (folder / "hello.email.html").write_text("Subject: Hello\n\n<p>Hello</p>")
    monkeypatch.setenv("SEGUE_LIBRARY", str(tmp_path))
    foreseen = (
        "trial / offer is never sent where thanks / thanks was: both follow 'order_completed', and "
        "the cap 'at most 1 email a day' is full. Put a Wait before it, or on_cap=\"defer\""
    )
    _, _, err = segue("check", alone=True)
    assert f"warning: {foreseen}\n" in err
    both = found(segue, "--all")
    [same, counted] = both["warnings"]
    assert same == foreseen
    match = re.fullmatch(
        r"trial / offer: (\d+) of (\d+) messages were capped by thanks / thanks", counted
    )
    assert match
    assert int(match[1]) == int(match[2]) >= 10
    _, out, _ = segue("--all")
    assert f"warning: {counted}\n" in out
    assert "- warning: trial / offer: " in simulation_page(both)


def test_a_replay_of_a_past_period(
    segue: Run, stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Carts of a past week enter customers again; nothing was sent then, so rates answer."""
    file = tmp_path / "segue.db"
    shutil.copy(stocked, file)
    monkeypatch.setenv("SEGUE_DATABASE_URL", f"sqlite:///{file}")
    then = Database(f"sqlite:///{file}", now=parse_instant("2026-02-11T10:00:00Z"))
    with then.transaction() as tx:
        carts = [
            NewEvent(
                profile_id=number,
                name="cart_abandoned",
                occurred_at=tx.now,
                dedupe_key="cart",
                properties={"cart_id": "c", "items": [{"name": "Lamp", "price": 9, "quantity": 1}]},
            )
            for number in range(1, 41)
        ]
        record_events(tx, carts, worked=True)
    then.close()
    policy = tmp_path / "closed.toml"
    policy.write_text(
        (ROOT / "config" / "policy.toml").read_text()
        + '\n[[caps]]\nchannels = "all"\nlimit = 0\nper = "day"\n'
    )
    both = found(segue, "--all", "--replay", "2026-02-09", "--compare", str(policy))
    assert (both["from"], both["to"], both["days"]) == (
        *("2026-02-09T00:00:00Z", "2026-03-02T00:00:00Z"),
        21,
    )
    sent = sum(both["sent"].values())
    assert both["entered"] == 40
    assert sent > 10
    assert both["replayed"] == {"answered_as_then": 0, "answered_by_rates": sent}
    assert both["compared"]["entered"] == both["entered"]
    assert sum(both["compared"]["sent"].values()) == 0
    assert both["compared"]["not_sent"]["capped"] > 10
    assert both["why_not"] == {
        "welcome": {"no event to enter with: signed_up": 1},
        "win-back": {"it was not launched in these days": 1},
    }
    _, out, _ = segue("--all", "--replay", "2026-02-09", "--compare", str(policy))
    known = f"now: a replay of what happened: customers answered 0 messages as they did, and {sent}"
    assert known in out


def test_a_table_is_shown(segue: Run) -> None:
    status, out, err = segue("win-back", "--audience", "lapsed", "--days", "8")
    assert status == 0, err
    for word in ("entered", "by_day"[3:], "busiest hour", "average shop", "we miss you"):
        assert word in out


def test_nobody_enters_without_a_reason(segue: Run) -> None:
    none = found(segue, "win-back", "--audience", "best-customers", "--days", "1", "--limit", "1")
    assert none["entered"] == 1
    status, out, err = segue("win-back", "--days", "1")
    assert status == 0, err
    assert "no time of its schedule" in out or "entered" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name one journey"),
        (("win-back", "--all"), "name one journey"),
        (("--all", "--audience", "lapsed"), "an audience and a limit"),
        (("win-back", "--audience", "lapsed", "--replay", "2026-02-01"), "leave out the audience"),
        (("--all", "--replay", "2026-03-02"), "not a whole day has passed"),
        (("win-back", "--limit", "3"), "a limit needs an audience"),
        (("win", "--audience", "lapsed"), "no journey 'win'"),
        (("win-back", "--audience", "lost"), "no segment 'lost'"),
        (("win-back", "--audience", "lapsed", "--compare", "abc"), "no version 'abc'"),
        (("win-back", "--audience", "lapsed", "--compare", "none.toml"), "none.toml"),
    ],
)
def test_wrong_options(segue: Run, arguments: tuple[str, ...], words: str) -> None:
    status, _, err = segue(*arguments)
    assert status == 1
    assert words in err


def test_a_database_without_tables_is_refused(
    segue: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_DATABASE_URL", f"sqlite:///{tmp_path / 'empty.db'}")
    status, _, err = segue("--all")
    assert status == 1
    assert "schema of this release" in err


def test_the_page_in_prefect_has_every_number_of_its_plots(segue: Run, tmp_path: Path) -> None:
    policy = tmp_path / "strict.toml"
    policy.write_text('[[caps]]\nchannels = "all"\nlimit = 1\nper = "week"\n')
    launch = ("win-back", "--audience", "lapsed", "--days", "14", "--compare", str(policy))
    both = found(segue, *launch)
    page = simulation_page(both)
    drawn = [b64decode(one).decode() for one in re.findall(r"base64,([^)]+)\)", page)]
    assert len(drawn) == 4
    for svg, title in zip(drawn, ("by day", "by hour", "by step", "by step"), strict=True):
        assert svg.startswith("<?xml")
        assert f"Messages {title}" in svg
    for day, counts in both["by_day"].items():
        other = both["compared"]["by_day"].get(day, {"sent": 0, "not_sent": 0})
        numbers = [counts["sent"], counts["not_sent"], other["sent"], other["not_sent"]]
        assert f"| {day} | {' | '.join(f'{one:,}' for one in numbers)} |" in page
    for step in both["by_step"]:
        [other] = [
            one
            for one in both["compared"]["by_step"]
            if one["step"] == step["step"] and one["channel"] == step["channel"]
        ]
        cells = [step["journey"], step["step"], step["channel"]]
        for one in (step, other):
            cells += [f"{one['sent']:,}", f"{sum(one['not_sent'].values()):,}"]
        assert f"| {' | '.join(cells)} |" in page
    assert "@example.com" not in page
    assert simulation_page(found(segue, *launch)) == page


PAGE = (ROOT / "docs" / "marketer" / "simulation.md").read_text(encoding="utf-8")
SHOWN = [
    re.sub(r"\b[0-9a-f]{12}\b", OLDER.journey("win-back").digest, line.partition("#")[0]).split()[
        2:
    ]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("arguments", SHOWN, ids=" ".join)
def test_a_command_of_the_page_works(segue: Run, arguments: list[str]) -> None:
    # A week is enough to see that it works.
    status, out, err = segue(*arguments, "--days", "7")
    assert status == 0, err
    assert "entered" in out


def test_the_page_shows_every_option() -> None:
    assert {one for arguments in SHOWN for one in arguments if one.startswith("--")} >= {
        *("--all", "--audience", "--days", "--limit", "--opens", "--buys", "--seeds", "--json"),
        *("--compare", "--replay"),
    }
    assert "--unsubscribes" in PAGE
    assert "--clicks" in PAGE
