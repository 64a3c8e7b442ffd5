"""A report counts what the rows say: recomputed in Python, also after retention removed rows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy.event
from sqlalchemy import Row, Table, select

from channels.messages import messages
from config.clock.times import DAY, MINUTE, Instant
from config.database.engine import Database
from config.errors import SegueError
from journeys.analytics.reports.figures import By, Figures, JourneyReport
from journeys.analytics.reports.period import ReportPeriod
from journeys.analytics.reports.report import report_journey
from journeys.analytics.revenue import RevenueMapping
from journeys.dsl import Email, Exit, Send
from journeys.enrollments import enrollments
from journeys.operations.counts import summarise
from journeys.operations.retention import Retention
from journeys.tables import passages
from profiles.tables import consent_records, events
from tests.support.shop import House, described
from tests.support.worlds.report_rows import PEOPLE, SEGMENTS, trial

MAPPING = RevenueMapping(
    event="order_completed", amount="total_gbp", currency_property="", currency="GBP"
)
EVER = ReportPeriod(None, None, "Europe/London")
MARCH = ReportPeriod(date(2026, 3, 9), date(2026, 3, 22), "Europe/London")
SENT = ("sent", "delivered", "unknown", "returned")


def report(
    house: House, by: By = "step", period: ReportPeriod = EVER, launch: str | None = None
) -> JourneyReport:
    with house.db.transaction(write=False) as tx:
        return report_journey(
            tx, house.segue.catalog, "trial", MAPPING, period, by=by, launch=launch
        )


class World:
    """All rows, and what a report on `trial` says, computed row by row."""

    def __init__(self, db: Database) -> None:
        with db.transaction(write=False) as tx:
            self.messages = self._rows(tx, messages)
            self.enrollments = self._rows(tx, enrollments)
            self.passages = self._rows(tx, passages)
            self.events = self._rows(tx, events)
            self.noes = self._rows(tx, consent_records)
        self.entry = {row.id: row for row in self.enrollments}
        self.about: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in self.events:
            self.about[row.properties.get("message_id", "")].append(row)
        self.handed = [row for row in self.messages if state_of(row) in SENT]
        self.arms: dict[tuple[int, str], tuple[str, Instant]] = {}
        for row in sorted(self.passages, key=lambda row: (row.at, row.enrollment_id)):
            if row.journey == "trial" and row.step == "subject":
                self.arms.setdefault((row.profile_id, row.step), (row.outcome, row.at))

    @staticmethod
    def _rows(tx: Any, table: Table) -> list[Row[Any]]:
        return list(tx.conn.execute(select(table)))

    def last(self, person: int, at: Instant, within: int, **same: Any) -> Row[Any] | None:
        """The last message that was handed over to a customer before an instant."""
        before = [
            row
            for row in self.handed
            if row.profile_id == person
            and at - within < row.send_at <= at
            and all(getattr(row, name) == value for name, value in same.items())
        ]
        return max(before, key=lambda row: (row.send_at, row.id), default=None)

    def figures(
        self, groups: Callable[[Row[Any]], Iterable[tuple[str, str]]], period: ReportPeriod
    ) -> dict[tuple[str, str], Counter[str]]:
        """The figures of messages by group; groups: those of a message."""
        found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

        def add(row: Row[Any] | None, measure: str, number: int = 1) -> None:
            if row is not None and row.journey == "trial":
                at = row.send_at if state_of(row) in SENT else row.wanted_at
                if period.since <= at < period.until:
                    for group in groups(row):
                        found[group][measure] += number

        for row in self.messages:
            state = state_of(row)
            if state in SENT:
                add(row, "sent")
                if state in ("delivered", "returned"):
                    add(row, state)
                said = {one.name for one in self.about[str(row.id)]}
                for kind in ("opened", "machine_opened", "clicked", "complained"):
                    if f"{row.channel}_{kind}" in said:
                        add(row, kind)
            elif state == "planned":
                add(row, "planned")
            else:
                reason = {"failed": "sendgrid bounce"}.get(state, row.reason.split(":")[0])
                add(row, f"not sent: {reason}")
        for entry in self.enrollments:
            if entry.journey == "trial" and entry.converted_at is not None:
                reach = 400 * DAY
                add(
                    self.last(entry.profile_id, entry.converted_at, reach, enrollment_id=entry.id),
                    "converted",
                )
        for event in self.events:
            amount = event.properties.get("total_gbp")
            if event.name == "order_completed" and isinstance(amount, int | float):
                before = self.last(event.profile_id, event.occurred_at, 3 * DAY)
                add(before, "orders", int(amount >= 0))
                add(before, "revenue", int(Decimal(str(amount)) * 10_000))
        answered = set()
        for no in self.noes:
            if no.granted is False and not no.source.startswith("import"):
                seen = self.last(no.profile_id, no.occurred_at, 7 * DAY, channel=no.channel)
                if seen is not None and no.topic in ("*", seen.topic) and seen.id not in answered:
                    answered.add(seen.id)
                    add(seen, "unsubscribed")
        return found


def state_of(row: Row[Any]) -> str:
    if row.state == "failed" and row.provider_id is not None:
        return "returned"
    state: str = row.state
    return state


def counted(groups: Iterable[Figures]) -> dict[tuple[str, str], Counter[str]]:
    """The figures of a report in the form of `World.figures`."""
    found = {}
    for one in groups:
        counts = Counter[str]()
        for (measure, _), number in one.counts.items():
            if measure not in ("unknown", "closed"):
                counts[measure] += number
        counts["planned"] = one.planned.total()
        counts["revenue"] = one.revenue
        for reason, number in one.not_sent.items():
            counts[f"not sent: {reason}"] += number
        found[one.key, one.part] = counts
    return found


def same(ours: dict[Any, Counter[str]], theirs: dict[Any, Counter[str]]) -> None:
    """Both have the same numbers, without zeros."""
    cleaned = [
        {
            group: numbers
            for group, counts in some.items()
            if (numbers := {name: n for name, n in counts.items() if n})
        }
        for some in (ours, theirs)
    ]
    assert cleaned[0] == cleaned[1]


@pytest.mark.parametrize("period", [EVER, MARCH], ids=["ever", "a fortnight"])
def test_a_recomputation_over_the_rows_shows_no_difference(
    filled: House, period: ReportPeriod
) -> None:
    world = World(filled.db)

    def by(groups: Callable[[Row[Any]], Iterable[tuple[str, str]]]) -> Any:
        return world.figures(groups, period)

    def of_arm(row: Row[Any]) -> list[tuple[str, str]]:
        name, at = world.arms.get((row.profile_id, "subject"), ("", 0))
        after = row.step in ("short mail", "long mail") and row.wanted_at >= at
        return [("subject", name)] if name and after else []

    def of_week(row: Row[Any]) -> list[tuple[str, str]]:
        at = row.send_at if state_of(row) in SENT else row.wanted_at
        return [(period.week_of(at), "")]

    def of_segment(row: Row[Any]) -> list[tuple[str, str]]:
        number = row.profile_id - 1
        least = {"later half": PEOPLE / 2, "last": PEOPLE - 1}
        return [("everyone", ""), *((name, "") for name, at in least.items() if number >= at)]

    expected: dict[By, Any] = {
        "step": by(lambda row: [(row.step, row.channel)]),
        "channel": by(lambda row: [(row.channel, "")]),
        "week": by(of_week),
        "launch": by(lambda row: [(world.entry[row.enrollment_id].launch_id or "", "")]),
        "arm": by(of_arm),
        "segment": by(of_segment),
    }
    for name, figures in expected.items():
        found = report(filled, name, period)
        assert sum(counts["sent"] for counts in figures.values()) > 5
        same(counted(found.groups), figures)
        same(counted([found.total]), by(lambda _: [("", "")]))


@pytest.mark.parametrize("period", [EVER, MARCH], ids=["ever", "a fortnight"])
def test_enrollments_and_the_funnel_are_those_of_the_rows(
    filled: House, period: ReportPeriod
) -> None:
    world = World(filled.db)
    ours = [
        row
        for row in world.enrollments
        if row.journey == "trial" and period.since <= row.entered_at < period.until
    ]
    found = report(filled, "launch", period)
    launched: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in ours:
        launched[row.launch_id or ""].append(row)
    assert {one.key: (one.entered, one.active, one.goals) for one in found.groups} == {
        name: (
            len(rows),
            sum(row.ended_at is None for row in rows),
            sum(row.converted_at is not None for row in rows),
        )
        for name, rows in launched.items()
    }
    assert found.total.entered == len(ours)
    assert found.ended == Counter(row.end_reason for row in ours if row.end_reason)
    numbers = {row.id for row in ours}
    left: dict[str, Counter[str]] = defaultdict(Counter)
    for passage in world.passages:
        if passage.enrollment_id in numbers:
            left[passage.step][passage.outcome] += 1
    done = {(row.enrollment_id, row.step) for row in world.passages}
    for step in found.steps:
        assert step.left == left[step.step]
        there = [row for row in ours if row.step == step.step and (row.id, row.step) not in done]
        assert step.here == sum(row.ended_at is None for row in there)
        assert step.ended.total() == sum(row.ended_at is not None for row in there)
        assert step.reached == step.left.total() + len(there)
    assert found.steps[0].reached == len(ours)


def test_one_launch_has_its_own_figures(filled: House) -> None:
    world = World(filled.db)
    found = report(filled, launch="trial 1")
    theirs = world.figures(
        lambda row: (
            [(row.step, row.channel)]
            if world.entry[row.enrollment_id].launch_id == "trial 1"
            else []
        ),
        EVER,
    )
    same(counted(found.groups), theirs)
    assert 0 < (found.total.entered or 0) < PEOPLE
    assert found.method[0].startswith("Counted: the launch trial 1, ever, up to 2026-04-19")
    with pytest.raises(SegueError, match="the journey 'trial' has no launch 'x'"):
        report(filled, launch="x")


def test_links_mailboxes_and_delays_are_those_of_the_rows(filled: House) -> None:
    world = World(filled.db)
    found = report(filled)
    ours = [row for row in world.messages if row.journey == "trial"]
    clicked = {
        (row.step, row.channel, row.id, event.properties["url"].partition("?")[0])
        for row in ours
        for event in world.about[str(row.id)]
        if event.name == f"{row.channel}_clicked" and state_of(row) in SENT
    }
    assert {tuple(link[:3]): link.clicked for link in found.links} == Counter(
        (step, channel, url) for step, channel, _, url in clicked
    )
    assert found.links[0].clicked >= found.links[-1].clicked
    sent: Counter[str] = Counter()
    complained: Counter[str] = Counter()
    for row in ours:
        if row.channel == "email" and state_of(row) in SENT:
            host = (row.address or "@").partition("@")[2]
            box = {"gmail": "Gmail", "googlemail": "Gmail", "yahoo": "Yahoo", "aol": "Yahoo"}
            name = box.get(host.partition(".")[0], "others")
            sent[name] += 1
            said = {event.name for event in world.about[str(row.id)]}
            complained[name] += "email_complained" in said
    assert [one.key for one in found.mailboxes] == ["Gmail", "Yahoo", "others"]
    for one in found.mailboxes:
        assert one.count("sent") == sent[one.key]
        # Gmail's complaints do not come back
        known = one.key != "Gmail"
        assert one.count("complained") == (complained[one.key] if known else None)
    late: dict[str, Counter[int]] = defaultdict(Counter)
    for row in ours:
        minutes = (row.send_at - row.wanted_at) // MINUTE
        if row.state in ("planned", "sent", "delivered", "unknown") and minutes:
            late[row.channel][minutes] += 1
    assert {one.channel: one.minutes for one in found.delays} == late
    assert [one.waiting for one in found.delays if one.channel == "sms"] == [
        sum(
            row.state == "planned" and row.send_at - row.wanted_at >= MINUTE
            for row in ours
            if row.channel == "sms"
        )
    ]


def test_what_retention_removed_is_counted_or_said_to_be_missing(filled: House) -> None:
    before: dict[tuple[By, ReportPeriod], JourneyReport] = {
        (by, period): report(filled, by, period)
        for by in ("step", "channel", "launch", "arm", "week", "segment")
        for period in (EVER, MARCH)
    }
    stored = len(filled.rows())
    retention = Retention(filled.segue.engine, filled.segue.settings)
    while any(retention.apply()):
        pass
    assert len(filled.rows()) < stored * 3 / 4
    for (by, period), was in before.items():
        now = report(filled, by, period)
        whole = period == EVER and by in ("step", "channel", "launch")
        left_out = () if whole else ("planned", "not sent")
        for ours, theirs in zip(now.groups, was.groups, strict=True):
            assert (ours.key, ours.part) == (theirs.key, theirs.part)
            assert ours.counts == theirs.counts
            assert ours.revenue == theirs.revenue
            assert (ours.entered, ours.active, ours.goals) == (
                *(theirs.entered, theirs.active, theirs.goals),
            )
            if not left_out:
                assert ours.not_sent == theirs.not_sent
        assert now.links == was.links
        assert now.total.counts == was.total.counts
        if period == EVER:
            assert now.steps == was.steps
            assert now.total.not_sent == was.total.not_sent
        said = " ".join(now.notes)
        assert ("not sent are older than the retention" in said) != whole
        assert ("moves between steps are older" in said) == (period != EVER)


def test_the_totals_are_those_of_the_summary(filled: House) -> None:
    with filled.db.transaction(write=False) as tx:
        summary = summarise(tx, "trial")
    found = report(filled)
    assert found.total.by_channel("sent") == summary.sent
    assert found.total.by_channel("unknown") == summary.unknown
    assert found.total.by_channel("closed").total() == summary.closed
    assert found.total.by_channel("returned") == summary.returned
    assert found.total.planned == summary.planned
    assert found.total.not_sent == summary.not_sent
    assert found.ended == summary.ended
    assert (found.total.entered, found.total.goals) == (summary.entered, summary.converted)


def test_what_nobody_reports_is_not_known_and_never_0(filled: House) -> None:
    found = {one.key: one for one in report(filled, "channel").groups}
    assert found["push"].count("delivered") is None
    assert found["push"].count("machine_opened") is None
    assert found["sms"].count("complained") is None
    assert found["sms"].share("opened") is None
    nothing = Figures(key="")
    assert (nothing.count("opened"), nothing.share("opened")) == (0, None)


def test_a_report_without_figures_says_why(house: House) -> None:
    house.open(trial(), described(Send("hello", Email("hello")), name="plain"))
    assert report(house).empty == "Nobody has entered trial yet. It is entered by event came."
    later = ReportPeriod(date(2026, 3, 3), None, "UTC")
    assert report(house, period=later).empty == "Nobody has entered trial yet."
    person = house.customer()
    house.did(person, "came")
    house.run()
    house.later("3d")
    assert report(house).empty == ""
    assert report(house, period=later).empty == (
        "No entry and no message from 2026-03-03 until now (UTC). "
        "The first entry was at 2026-03-02T10:00:00Z."
    )
    with house.db.transaction(write=False) as tx, pytest.raises(SegueError, match="no experiment"):
        report_journey(tx, house.segue.catalog, "plain", MAPPING, EVER, by="arm")


def test_a_journey_without_a_goal_has_no_revenue_and_says_so(house: House) -> None:
    house.open(described(Send("hello", Email("hello")), Exit("out", "over"), name="trial"))
    person = house.customer()
    house.launch("trial")
    house.did(person, "order_completed", total_gbp=5)
    found = report(house)
    assert found.total.count("sent") == 1
    assert found.total.revenue == 0
    assert found.method[1].startswith("The journey has no goal")


def test_no_statement_reads_all_events(sqlite_house: House) -> None:
    """Events are the largest table: they are found by an index."""
    house = sqlite_house
    house.open(trial(), segments=SEGMENTS)
    asked: list[tuple[str, Any]] = []

    def listen(_conn: Any, _cursor: Any, statement: str, given: Any, *_: Any) -> None:
        asked.append((statement, given))

    sqlalchemy.event.listen(house.db.engine, "before_cursor_execute", listen)
    for by in ("step", "arm", "week", "launch"):
        report(house, by)
    sqlalchemy.event.remove(house.db.engine, "before_cursor_execute", listen)
    plans = []
    with house.db.transaction(write=False) as tx:
        for statement, given in asked:
            if " event" in statement:
                rows = tx.conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
                plans += [row.detail for row in rows]
    assert [plan for plan in plans if plan.startswith("SCAN event")] == []
    assert sum(plan.startswith("SEARCH event USING") for plan in plans) > 10
