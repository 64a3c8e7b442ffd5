"""The artifacts of a run show what came of its messages, and say what they count."""

from typing import Any

import pytest

from channels.outbox.dispatch import Dispatcher
from config.clock.times import HOUR
from flows.orchestration.pages.picture import mermaid
from flows.orchestration.run import Run
from flows.worker.leasing import leasing
from journeys.dsl import SMS, Email, Goal, Journey, OnEvent, OnSchedule, Send, Wait, days, did
from tests.flows.cli.test_report import reported
from tests.support.shop import House, described

STEPS = (Send("hello", Email("hello"), SMS("hello")), Wait("9d", "rest"))
GOAL = Goal(did=did("order_completed"), within=days(7))


def offers(**parts: Any) -> Journey:
    entry = OnSchedule("0 8 * * mon", timezone="UTC", segment="everyone", again="always")
    return described(*STEPS, name="offers", goal=GOAL, **{"entry": entry, **parts})


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The Markdown artifacts, and the descriptions of tables, by key."""
    left: dict[str, str] = {}

    async def markdown(text: str, key: str, *_: str) -> None:
        left[key] = text

    async def table(_rows: Any, key: str, about: str) -> None:
        left[key] = about

    async def progress(*_: Any) -> str:
        return ""

    for name, create in (
        ("pages.artifacts.acreate_markdown_artifact", markdown),
        ("pages.artifacts.acreate_table_artifact", table),
        ("run.acreate_progress_artifact", progress),
        ("run.aupdate_progress_artifact", progress),
    ):
        monkeypatch.setattr(f"flows.orchestration.{name}", create)
    return left


def run(house: House, journey: Journey, launch_id: str, **options: Any) -> None:
    """All tasks of a run for everybody, or for nobody new."""

    async def tasks(dispatcher: Dispatcher) -> None:
        async with leasing(house.segue, journey.name) as leases:
            act = Run(
                house.segue,
                dispatcher,
                leases,
                journey=journey,
                people=None,
                launch_id=launch_id,
                **{"audience": "everyone", **options},
            )
            await act.enter()
            for step in journey.graph:
                await act.step(step)
            await act.finish()

    house.dispatching(tasks)


def react(house: House, people: list[int]) -> None:
    """One opens and clicks, one complains, one orders."""
    mails = [row for row in house.rows() if row.channel == "email"]
    for mail in mails[:2]:
        reported(house, "opened", mail.id)
    url = "https://shop.example/for/ann?token=secret"
    reported(house, "clicked", mails[0].id, properties={"url": url})
    house.did(people[0], "order_completed", total_gbp=12.5)
    house.run()


def test_a_run_shows_this_launch_and_the_whole_journey(
    house: House, written: dict[str, str]
) -> None:
    journey = offers()
    house.open(journey)
    people = [house.customer(name) for name in ("ann", "bob", "cyd")]
    run(house, journey, "first", started_by="the schedule")
    assert "started by the schedule, for everyone" in written["offers-results"]
    assert "**3 entered; 6 sent; 0 (0.0%) opened" in written["offers-results"]
    assert written["offers-outcomes"].startswith(
        "This launch, started by the schedule, for everyone; until now. Messages by"
    )

    house.db.now = house.now + HOUR
    react(house, people)
    written.clear()
    run(house, journey, "nobody", audience=None)
    assert "offers-results" not in written
    since = "The whole journey, by every way in, from 2026-03-02T10:00:00Z until now."
    assert written["offers-outcomes"] == f"{since} Messages by channel and reason"
    assert f"{since} A box shows how many" in written["offers-picture"]
    report = written["offers-report"]
    assert report.startswith("# offers: results\n\nThe whole journey, by every way in, from 2026-")
    assert (
        "**3 entered; 6 sent; 2 (66.7%) opened; 1 (33.3%) clicked; 1 converted; "
        "12.50 GBP revenue (1 orders)**" in report
    )
    assert "| hello | e-mail | 3 |" in report
    assert "not known" in report, "opens of texts"
    assert "![Bars of sent, opened, clicked and converted messages by step" in report
    assert "secret" not in report
    assert "for/ann" not in report, "a link that few clicked could tell who did"
    assert "Links clicked in fewer than 5 messages are left out." in report

    house.customer("dan")
    written.clear()
    run(house, journey, "second")
    assert "started by hand, for everyone" in written["offers-results"]
    assert "**1 entered; 2 sent; 0 (0.0%) opened" in written["offers-results"]
    assert "2 (50.0%) opened" in written["offers-report"]


def test_a_launch_that_enters_nobody_says_so(house: House, written: dict[str, str]) -> None:
    journey = offers()
    house.open(journey)
    run(house, journey, "first")
    assert "Nobody entered by the launch first ever." in written["offers-results"]
    assert "![" not in written["offers-results"]
    assert "Nobody has entered offers yet. It is entered by schedule 0 8 \\* \\* mon" in (
        written["offers-report"].replace("* *", "\\* \\*")
    )


def test_the_picture_shows_how_people_entered(house: House, written: dict[str, str]) -> None:
    journey = offers(entry=OnEvent("came"))
    house.open(journey)
    ann, _bob = house.customer("ann"), house.customer("bob")
    house.did(ann, "came")
    house.run()
    house.db.now = house.now + HOUR
    run(house, journey, "first")
    picture = written["offers-picture"]
    assert "The whole journey, by every way in, from 2026-03-02T10:00:00Z until now." in picture
    assert '(["event came<br/>1 entered"])' in picture
    assert '(["launch for everyone<br/>1 entered"])' in picture
    assert picture.count(" --> s0") == 2
    assert '(["event came"])' in mermaid(journey), "without counts: the way that it says"
