"""Retention: the same story with and without it has the same decisions and figures."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, union_all

from channels.feedback.apply import apply
from channels.messages import message_devices, messages, past_messages
from channels.providers.webhook import Feedback
from config.access.staff_acts import latest_acts, record_act
from config.clock.times import DAY, Instant
from config.database.engine import Database
from config.policy import Policy
from flows.orchestration.pages.counts import count_journey, count_step, show_step
from journeys.dsl import (
    Email,
    Exit,
    Experiment,
    Goal,
    Journey,
    OnEvent,
    OnLaunch,
    Push,
    Segment,
    Send,
    Split,
    Wait,
    arm,
    days,
    did,
    prop,
    when,
)
from journeys.enrollments import enrollments
from journeys.operations.counts import summarise
from journeys.operations.merge import merge
from journeys.operations.retention import Removed, Retention
from journeys.tables import experiment_arms
from profiles.events import NewEvent, record_events
from profiles.identity.mergers import Merger
from profiles.tables import consents, events, suppressions
from tests.support.shop import MONDAY, House, described

POLICY = Policy.model_validate({"caps": [{"limit": 1, "within": "20d", "channels": ["email"]}]})
PEOPLE, WAITING = 12, 3
NAMES = ("trial", "hello", "yearly", "tents", "long")
SETTINGS: dict[str, Any] = {
    "message_retention": 90 * DAY,
    "passage_retention": 60 * DAY,
    "event_retention": 90 * DAY,
}
TENT = did("bought", prop("sku") == "tent")


def journeys(short: int = 3, long: int = 1) -> tuple[Journey, ...]:
    """short, long: the weights of the experiment's arms."""
    return (
        described(
            Experiment(
                "subject",
                arm("short", short, [Send("short mail", Email("hello"))]),
                arm("long", long, [Send("long mail", Email("offer"))]),
                holdout=10,
            ),
            name="trial",
            entry=OnLaunch(again="always"),
            goal=Goal(did=did("bought"), within=days(30), after="message"),
        ),
        described(Send("hi", Email("hello"), Push("hello")), name="hello", entry=OnEvent("came")),
        described(
            Send("again", Push("hello")), name="yearly", entry=OnEvent("came", again=days(300))
        ),
        described(Split("bought", when(TENT, [Send("tent", Push("offer"))])), name="tents"),
        described(
            Send("first", Push("hello")), Wait("600d"), Send("last", Push("offer")), name="long"
        ),
    )


class Story:
    """What happens in a shop in a year and a half."""

    def __init__(self, db: Database) -> None:
        self.house = House(db)
        self._open()
        self.people = [self.house.customer(f"c{number}") for number in range(PEOPLE)]

    def _open(self, short: int = 3, long: int = 1) -> None:
        segments = {"tent buyers": Segment("tent buyers", "They bought a tent", TENT)}
        self.house.open(*journeys(short, long), policy=POLICY, segments=segments, **SETTINGS)

    def first_year(self) -> None:
        house = self.house
        house.launch("trial", launch_id="trial 1")
        house.launch("long", launch_id="long 1", people=WAITING)
        for person in self.people[:6]:
            house.did(person, "came", page="/tents")
        house.did(self.people[0], "bought", sku="tent", price=90)
        house.did(self.people[1], "bought", sku="stove", price=20)
        house.did(self.people[4], "bought", sku="tent", price=90)
        house.later("1d")
        with house.db.transaction() as tx:
            show_step(tx, "trial", "subject", house.now)
            show_step(tx, "hello", "hi", house.now)
        house.later("40d")
        house.launch("trial", launch_id="trial 2")
        house.later("360d")
        # within reach of the cap at the end of the year
        house.did(self.people[6], "came", page="/")
        house.run()
        house.later("10d")

    def next_year(self) -> None:
        """What must not depend on whether the rows of the first year are still there."""
        house, ann, bob, cyd, dan = self.house, *self.people[:4]
        mail, other = self._old_mail(ann), self._old_mail(bob)
        self._open(short=1, long=3)
        with house.db.transaction() as tx:
            apply(
                tx,
                [
                    _report("bounced", mail, suppress="bounced", address="c0@example.com"),
                    _report("opened", mail, at=house.now - DAY),
                    _report("unsubscribed", other, at=house.now - DAY),
                ],
            )
            merge(tx, [Merger(from_id=dan, into_id=cyd, why="test")])
            # late history: within the goal of the first year's mail
            late = [
                NewEvent(
                    profile_id=self.people[5],
                    name="bought",
                    occurred_at=MONDAY + 5 * DAY,
                    dedupe_key="late",
                    properties={"sku": "boots"},
                ),
                # the first event once more
                NewEvent(
                    profile_id=ann,
                    name="came",
                    occurred_at=house.now,
                    dedupe_key="test-13",
                    properties={},
                ),
            ]
            record_events(tx, late, worked=False)
        house.run()
        for journey in ("trial", "tents"):
            house.launch(journey, launch_id=f"{journey} 3")
        house.launch("trial", launch_id="trial 1")
        house.launch("long", launch_id="long 1", people=WAITING)
        for person in self.people[:8]:
            if person != dan:
                house.did(person, "came")
        house.launch("tents", "tent buyers", launch_id="tents 4")
        for name in NAMES:
            house.segue.engine.count_goals(name)
        house.later("250d")

    def _old_mail(self, person: int) -> int:
        """The first mail that was sent to a customer."""
        oldest = [
            select(func.min(c.id).label("id")).where(
                c.profile_id == person, c.channel == "email", c.state == "sent"
            )
            for c in (messages.c, past_messages.c)
        ]
        found = union_all(*oldest).subquery()
        with self.house.db.transaction(write=False) as tx:
            number: int = tx.conn.execute(select(func.min(found.c.id))).scalar_one()
        return number

    def summaries(self) -> list[Any]:
        """Everything that reports and graphs count."""
        with self.house.db.transaction(write=False) as tx:
            return [
                *(summarise(tx, name) for name in NAMES),
                *(summarise(tx, "trial", f"trial {number}") for number in (1, 2, 3)),
                *(count_journey(tx, name) for name in NAMES),
                *(
                    count_step(tx, journey.name, step, since)
                    for journey in journeys()
                    for step in journey.graph
                    for since in (0, MONDAY + DAY)
                    if since == 0 or (journey.name, step) in SHOWN
                ),
            ]

    def decisions(self, since: Instant) -> dict[str, list[Any]]:
        """What was decided, and of messages those that were wanted from `since` on."""
        e, m, v = enrollments.c, messages.c, events.c
        found = {
            "enrollments": select(
                *(e.profile_id, e.journey, e.launch_id, e.entered_at, e.step, e.due_at),
                *(e.ended_at, e.end_reason, e.converted_at),
            ),
            "messages": select(
                *(m.profile_id, m.journey, m.step, m.channel, m.state, m.reason, m.send_at)
            ).where(m.wanted_at >= since),
            "events": select(
                *(v.profile_id, v.name, v.occurred_at, v.dedupe_key),
                v.properties["journey"].as_string(),
                v.properties["step"].as_string(),
            ),
            "suppressions": select(suppressions.c.address, suppressions.c.state),
            "consents": select(consents.c.profile_id, consents.c.channel, consents.c.granted),
        }
        with self.house.db.transaction(write=False) as tx:
            return {
                name: sorted(map(tuple, tx.conn.execute(query)), key=repr)
                for name, query in found.items()
            }


SHOWN = {("trial", "subject"), ("hello", "hi")}


def _report(kind: Any, message_id: int, **more: Any) -> Feedback:
    return Feedback(
        id=f"a {kind} mail",
        source="sendgrid",
        channel="email",
        kind=kind,
        message_id=message_id,
        **more,
    )


def tidy(house: House, **sizes: int) -> Removed:
    """Apply the retention until nothing is left to do."""
    applying = Retention(house.segue.engine, house.segue.settings, **sizes)
    removed = Removed(messages=0, passages=0, events=0, acts=0)
    while any(some := applying.apply()):
        removed = Removed(*map(sum, zip(removed, some, strict=True)))
    return removed


@pytest.fixture
def without(_sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """A database without retention. The engines decide alike, so SQLite is enough."""
    file = tmp_path / "without.db"
    shutil.copyfile(_sqlite_template, file)
    db = Database(f"sqlite:///{file}")
    yield db
    db.close()


def test_retention_changes_no_decision_and_no_report(db: Database, without: Database) -> None:
    stories = Story(db), Story(without)
    for story in stories:
        story.first_year()
    ours, theirs = stories
    before = ours.summaries()
    assert before == theirs.summaries()
    removed = tidy(ours.house)
    # two trials and its mails; only what is in progress, and the last ten days, are left
    assert removed.messages > 20
    assert removed.passages > 30
    assert removed.events == 3
    assert ours.summaries() == before
    assert len(ours.house.rows()) < len(theirs.house.rows()) / 2
    now = ours.house.now
    for story in stories:
        story.next_year()
    assert ours.decisions(now) == theirs.decisions(now)
    # the story has in it what could differ
    with db.transaction(write=False) as tx:
        seen = summarise(tx, "trial")
        assert seen.converted == before[NAMES.index("trial")].converted + 1
        arms = tx.conn.execute(select(func.count()).select_from(experiment_arms)).scalar_one()
        assert arms >= PEOPLE - 1
    assert seen.not_sent["capped"] > 0
    assert tidy(ours.house).messages > 0


def test_old_acts_are_removed_from_the_log_of_the_staff_site(house: House) -> None:
    house.open()
    for age in (0, 1, 2, 700):
        house.later(f"{age}d")
        with house.db.transaction() as tx:
            record_act(tx, "zoe", "signed in", about=f"{age}")
    house.later("31d")
    assert tidy(house, chunk=1).acts == 3
    with house.db.transaction(write=False) as tx:
        assert [one.about for one in latest_acts(tx, 9)] == ["700"]


def test_nothing_young_or_in_progress_is_removed(db: Database) -> None:
    story = Story(db)
    story.first_year()
    house = story.house
    tidy(house)
    with db.transaction(write=False) as tx:
        waiting = select(enrollments.c.id).where(enrollments.c.ended_at.is_(None))
        of_waiting = tx.conn.execute(
            select(messages.c.step).where(messages.c.enrollment_id.in_(waiting))
        )
        assert Counter(of_waiting.scalars()) == {"first": WAITING}
        young = select(func.count()).where(messages.c.wanted_at >= house.now - 90 * DAY)
        assert tx.conn.scalar(young) == 3
        devices = select(func.count()).select_from(message_devices)
        assert tx.conn.scalar(devices) == WAITING + 2
        bought = select(events.c.properties).where(events.c.name == "bought")
        came = select(events.c.properties).where(events.c.name == "came")
        assert all(tx.conn.execute(bought).scalars())
        kept = [one["page"] for one in tx.conn.execute(came.order_by(events.c.id)).scalars() if one]
        assert kept == ["/tents"] * WAITING + ["/"]


def test_small_chunks_end_the_same(db: Database) -> None:
    story = Story(db)
    story.first_year()
    before = story.summaries()
    first = Retention(story.house.segue.engine, story.house.segue.settings, chunk=3, chunks=2)
    assert first.apply().messages <= 6
    rest = tidy(story.house, chunk=3, chunks=2)
    assert rest.messages > 20
    assert story.summaries() == before


def test_orders_and_survey_answers_keep_their_properties(house: House) -> None:
    house.open(described(Exit("out", "over")), satisfaction_event="nps_answered", **SETTINGS)
    person = house.customer()
    house.did(person, "order_completed", total_gbp=12.5)
    house.did(person, "nps_answered", score=9)
    house.did(person, "cart_viewed", total=12.5)
    house.run()
    house.later("100d")
    tidy(house)
    with house.db.transaction(write=False) as tx:
        stays = select(events.c.name, events.c.properties)
        kept = {name: properties for name, properties in tx.conn.execute(stays) if properties}
    assert kept == {"order_completed": {"total_gbp": 12.5}, "nps_answered": {"score": 9}}
