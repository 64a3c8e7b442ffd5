"""A report that a worker has counted is what the statements said at its time, for a while."""

from collections.abc import Callable
from dataclasses import fields

import pytest
from sqlalchemy import delete, select

from channels.messages import messages
from config.clock.times import HOUR, MINUTE
from flows.worker.worker import Worker
from journeys.analytics.reports.figures import By, JourneyReport
from journeys.analytics.reports.kept import keep_report, kept_report
from journeys.analytics.reports.period import ReportPeriod
from journeys.analytics.reports.report import report_journey
from journeys.analytics.revenue import RevenueMapping
from journeys.operations import counts
from journeys.operations.counts import summarise
from journeys.operations.retention import Retention
from journeys.tables import kept_reports
from tests.journeys.analytics.reports.test_report import EVER, MAPPING, MARCH
from tests.support.shop import House


def count(house: House, stopped: Callable[[], bool] = lambda: False) -> bool:
    return keep_report(house.db, house.segue.catalog, "trial", MAPPING, EVER, stopped)


def kept(
    house: House,
    by: By = "step",
    mapping: RevenueMapping = MAPPING,
    period: ReportPeriod = EVER,
) -> JourneyReport | None:
    with house.db.transaction(write=False) as tx:
        return kept_report(tx, house.segue.catalog, "trial", mapping, period, by=by)


def live(house: House, by: By = "step") -> JourneyReport:
    with house.db.transaction(write=False) as tx:
        return report_journey(tx, house.segue.catalog, "trial", MAPPING, EVER, by=by)


def figures(report: JourneyReport | None) -> dict[str, object]:
    """All of a report but its notes, one of which says that it is kept."""
    assert report is not None
    return {one.name: getattr(report, one.name) for one in fields(report) if one.name != "notes"}


def test_a_kept_report_is_the_report_at_its_time(filled: House) -> None:
    assert kept(filled) is None
    with filled.db.transaction() as tx:
        tx.conn.execute(delete(messages).where(messages.c.id % 3 == 0))
    Retention(filled.segue.engine, filled.segue.settings).apply()
    groupings: tuple[By, ...] = ("step", "channel")
    before = {by: figures(live(filled, by)) for by in groupings}
    assert count(filled)
    with filled.db.transaction() as tx:
        tx.conn.execute(delete(messages))
    filled.later("20m")
    for by, then in before.items():
        assert figures(kept(filled, by)) == then
        assert figures(live(filled, by)) != then
    found = kept(filled)
    assert found is not None
    assert found.notes[-1].startswith("A worker counted this 20m ago")
    assert [*found.notes[:-1]] == live(filled).notes


def test_a_kept_report_answers_only_what_was_counted(filled: House) -> None:
    count(filled)
    assert kept(filled, "week") is None
    assert kept(filled, period=MARCH) is None
    assert kept(filled, mapping=MAPPING._replace(amount="total_eur")) is None
    assert kept(filled) is not None


def test_a_report_is_counted_again_after_a_pause_and_shown_for_an_hour(filled: House) -> None:
    assert count(filled)
    filled.db.now = filled.now + 10 * MINUTE - 1
    assert not count(filled)
    filled.db.now = filled.now + 50 * MINUTE
    assert kept(filled) is not None
    filled.db.now = filled.now + 1
    assert kept(filled) is None
    assert count(filled)
    assert kept(filled) is not None
    with filled.db.transaction() as tx:
        tx.conn.execute(kept_reports.update().values(took=2 * MINUTE))
    filled.db.now = filled.now + HOUR
    assert not count(filled), "it would take more than 2 % of a worker's time"
    assert kept(filled) is not None


def test_a_report_of_a_release_with_other_statements_is_not_shown(filled: House) -> None:
    count(filled)
    with filled.db.transaction() as tx:
        tx.conn.execute(kept_reports.update().values(rows={"0a": []}))
    assert kept(filled) is None


def test_a_worker_that_stops_keeps_nothing(filled: House) -> None:
    asked = iter([False, False, True])
    assert not count(filled, lambda: next(asked))
    assert kept(filled) is None


def test_a_worker_counts_the_journeys_with_many_messages(
    filled: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled.db.transaction(write=False) as tx:
        number = sum(summarise(tx, "trial").outcomes.values())

    def counted(large: int) -> list[str]:
        monkeypatch.setattr(counts, "LARGE", large)
        for journey in ("trial", "other"):
            Worker(filled.segue)._count(journey, lambda: False)
        with filled.db.transaction(write=False) as tx:
            return list(tx.conn.scalars(select(kept_reports.c.journey)))

    with filled.db.transaction() as tx:
        tx.conn.execute(
            delete(messages).where(messages.c.journey == "other", messages.c.id % 3 == 0)
        )
    assert counted(number + 1) == []
    assert counted(number) == ["trial"]


def test_outcomes_are_those_of_the_counts(filled: House) -> None:
    for _ in range(2):
        with filled.db.transaction(write=False) as tx:
            assert live(filled).outcomes == summarise(tx, "trial").outcomes
        Retention(filled.segue.engine, filled.segue.settings).apply()
