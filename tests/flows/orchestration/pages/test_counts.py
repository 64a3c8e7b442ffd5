"""The counts and texts of a run's tasks equal the rows."""

from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import func, select, update

from channels.messages import messages
from channels.rules.planner import Planner
from config.clock.times import DAY, MINUTE, parse_instant
from config.database.engine import Database
from config.policy import load_policy
from config.settings import ROOT, Settings
from flows.dry_run import dry_run
from flows.orchestration.pages.counts import StepCounts, count_journey, count_step, under_way
from flows.orchestration.pages.labels import dry_run_labels, run_labels, step_labels
from journeys.definition.catalog import Catalog, load_catalog
from journeys.engine.advance import Engine
from journeys.enrollments import enrollments
from journeys.launches.launching import enter_audience, start_launch
from journeys.operations.counts import Summary, summarise
from journeys.simulation.clock import SimulatedShop
from journeys.simulation.copy import snapshot
from journeys.tables import launches, passages
from profiles.sample.shop import load_sample_shop

MONDAY = parse_instant("2026-03-02T09:00:00Z")
PEOPLE = 120


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(load_policy(ROOT / "config" / "policy.toml"))


@pytest.fixture
def engine(db: Database, catalog: Catalog) -> Engine:
    """A small sample shop on a Monday morning."""
    db.now = MONDAY
    load_sample_shop(db, MONDAY, customers=PEOPLE)
    with db.transaction() as tx:
        catalog.register(tx)
    return Engine(db, catalog, Planner(load_policy(ROOT / "config" / "policy.toml")))


def launch(engine: Engine) -> None:
    """Launch win-back for everyone, and do the work that is due now."""
    version = start_launch(engine, "launch-1", "win-back", "everyone")
    assert sum(enter_audience(engine, version, "everyone", "launch-1")) == PEOPLE
    for step in version.journey.graph:
        engine.advance(version, step)


def test_a_step_is_counted_from_the_rows(engine: Engine, db: Database) -> None:
    launch(engine)
    with db.transaction(write=False) as tx:
        counts = count_step(tx, "win-back", "we miss you", MONDAY)
        wanted = tx.conn.execute(select(func.count()).select_from(messages)).scalar_one()
    assert counts.here + counts.left.total() == PEOPLE
    assert set(counts.left) == {"next"}
    assert counts.messages.total() == wanted == 3 * PEOPLE
    assert counts.fates("planned").total() + counts.reasons().total() == wanted
    assert counts.fates("sent") == Counter()


def test_what_happened_before_is_not_counted_again(engine: Engine, db: Database) -> None:
    launch(engine)
    db.now = later = MONDAY + 30 * DAY
    with db.transaction(write=False) as tx:
        counts = count_step(tx, "win-back", "we miss you", later)
    assert counts.here > 0
    assert not counts.left
    assert not counts.messages


def test_the_picture_counts_everybody_who_entered(engine: Engine, db: Database) -> None:
    launch(engine)
    with db.transaction(write=False) as tx:
        counts = count_journey(tx, "win-back")
    assert counts.entered == PEOPLE == counts.here.total()
    assert counts.passed == {("we miss you", "next"): counts.here["back in the shop"]}


def test_bounced_messages_count_as_sent(engine: Engine, db: Database) -> None:
    """A provider took it, and a mail server returned it; another the provider refused."""
    launch(engine)
    some = select(messages.c.id).where(messages.c.channel == "email", messages.c.state == "planned")
    with db.transaction() as tx:
        came_back, refused, arrived = tx.conn.execute(some.limit(3)).scalars()
        for one, state, provider_id in (
            (came_back, "failed", "sg-1"),
            (refused, "failed", None),
            (arrived, "delivered", "sg-3"),
        ):
            change = update(messages).where(messages.c.id == one)
            values = {"state": state, "provider_id": provider_id, "reason": "sendgrid: 550"}
            tx.conn.execute(change.values(values))
    with db.transaction(write=False) as tx:
        summary = summarise(tx, "win-back")
        counts = count_step(tx, "win-back", "we miss you", MONDAY)
    assert summary.sent == Counter(email=2)
    assert summary.returned == Counter(email=1)
    assert summary.not_sent["sendgrid"] == 1
    assert counts.fates("sent") == Counter(email=2)
    assert "2 sent (2 e-mail); 1 of them returned; " in run_labels(summary)


def test_messages_claimed_by_another_process_count_as_sending(engine: Engine, db: Database) -> None:
    launch(engine)
    with db.transaction() as tx:
        one = tx.conn.scalars(
            select(messages.c.id).where(messages.c.state == "planned").limit(1)
        ).one()
        claimed = {"state": "sending", "not_after": MONDAY + MINUTE}
        tx.conn.execute(messages.update().where(messages.c.id == one).values(claimed))
        assert under_way(tx, "win-back") == 1
        assert under_way(tx, "welcome") == 0
    db.now = MONDAY + MINUTE
    with db.transaction(write=False) as tx:
        assert under_way(tx, "win-back") == 0, "its process is dead"


def test_a_dry_run_reports_what_the_launch_does(engine: Engine, db: Database) -> None:
    shop = SimulatedShop(catalog=engine.catalog, policy=engine.planner.policy, settings=Settings())
    with snapshot(db) as tx:
        report = dry_run(tx, shop, "win-back", "everyone", None)
    with db.transaction(write=False) as tx:
        for table in (enrollments, messages, passages, launches):
            assert tx.conn.execute(select(func.count()).select_from(table)).scalar_one() == 0
    launch(engine)
    with db.transaction(write=False) as tx:
        launched = count_step(tx, "win-back", "we miss you", MONDAY)
    assert report.steps["we miss you"].messages == launched.messages
    assert launched.messages["email", "planned"] > 0
    assert sum(report.hours.values()) == launched.fates("planned").total()


def test_a_dry_run_respects_the_limit(engine: Engine, db: Database) -> None:
    shop = SimulatedShop(catalog=engine.catalog, policy=engine.planner.policy, settings=Settings())
    with snapshot(db) as tx:
        report = dry_run(tx, shop, "win-back", "everyone", 7)
    assert report.results.entered == {"win-back": 7}
    assert report.steps["we miss you"].messages.total() == 3 * 7


@pytest.mark.parametrize("words", [step_labels, dry_run_labels])
def test_a_step_without_activity_has_a_text(words: Callable[[StepCounts], tuple[str, str]]) -> None:
    assert words(StepCounts())[0] == "Nothing due"


def test_the_text_of_a_step() -> None:
    counts = StepCounts(
        here=3,
        left=Counter({"timeout": 2, "next": 1}),
        messages=Counter(
            {
                ("email", "sent"): 1200,
                ("sms", "sent"): 12,
                ("push", "planned"): 4,
                ("sms", "no_consent"): 7,
                ("email", "capped"): 31,
            }
        ),
    )
    name, message = step_labels(counts)
    assert name == "1,212 sent, 4 wait for their time, 38 not sent"
    assert message == (
        "1,212 sent (1,200 e-mail, 12 SMS); 4 planned (4 push); "
        "38 not sent (31 capped, 7 no consent); 3 moved on (2 timeout, 1 next); 3 waiting here"
    )


def test_the_text_of_a_dry_run() -> None:
    counts = StepCounts(messages=Counter({("push", "planned"): 4, ("sms", "no_consent"): 7}))
    name, message = dry_run_labels(counts)
    assert name == "4 would be sent, 7 would not"
    assert message == "Would be: 4 planned (4 push); 7 not sent (7 no consent)"


def test_the_text_of_a_run() -> None:
    summary = Summary(entered=10, active=2, sent=Counter({"email": 8}))
    assert run_labels(summary) == "10 entered; 8 sent (8 e-mail); 2 active"
