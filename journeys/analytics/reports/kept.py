"""Reports of large journeys that a worker has counted, so that people need not wait.

A report reads all messages of its journey, with the orders and reactions of their customers. That
takes seconds for each hundred thousand messages. So a worker counts the journeys with many messages
from time to time and keeps the rows of the statements; a kept report is what the statements said at
its time. docs/decisions/0037-kept-reports.md has the reasons.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from sqlalchemy import Executable, bindparam, select

from config.clock.times import HOUR, MINUTE, Seconds, format_duration
from config.database.arrays import insert_or_update
from config.database.engine import Database, Tx
from journeys.analytics.reports.figures import By, JourneyReport
from journeys.analytics.reports.period import ReportPeriod
from journeys.analytics.reports.report import parameters, report_journey
from journeys.analytics.revenue import RevenueMapping
from journeys.definition.catalog import Catalog
from journeys.tables import kept_reports

log = logging.getLogger(__name__)

# A worker counts a journey again after as many times as long as the count took, but not before
# `_PAUSE`: so it spends at most 2 % of its time on a journey.
_SHARE = 50
_PAUSE: Seconds = 10 * MINUTE
# Without a worker nobody counts again, and a kept report that is older than this is not shown.
_OLDEST: Seconds = HOUR

_k = kept_reports.c
_KEPT = select(kept_reports).where(_k.journey == bindparam("of_journey"))
_KEEP = insert_or_update(_k.journey, _k.question, _k.counted_at, _k.took, _k.rows)


class _Stopped(Exception):
    """The worker stops while it counts."""


class _OtherStatements(Exception):
    """The kept rows are those of a release with other statements."""


def kept_report(
    tx: Tx,
    catalog: Catalog,
    journey: str,
    mapping: RevenueMapping,
    period: ReportPeriod,
    *,
    by: By = "step",
) -> JourneyReport | None:
    """The report that a worker has counted lately; None if there is none that answers this.

    Workers count the whole journey by step and channel.
    """
    if period.is_limited or by not in ("step", "channel"):
        return None
    catalog.journey(journey)
    catalog.catch_up(tx)
    row = tx.conn.execute(_KEPT, {"of_journey": journey}).one_or_none()
    if row is None or row.question != _question(catalog, journey, mapping, period):
        return None
    if tx.now - row.counted_at >= max(_OLDEST, 2 * _pause(row.took)):
        return None

    def read(statement: Executable, _given: dict[str, Any]) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] | None = row.rows.get(_key(statement))
        if rows is None:
            raise _OtherStatements
        return rows

    try:
        report = report_journey(
            tx, catalog, journey, mapping, period, by=by, read=read, counted_at=row.counted_at
        )
    except _OtherStatements:
        return None
    report.notes.append(
        f"A worker counted this {format_duration(max(0, tx.now - row.counted_at))} ago, in "
        f"{format_duration(row.took)}. --now counts it again."
    )
    return report


def keep_report(
    db: Database,
    catalog: Catalog,
    journey: str,
    mapping: RevenueMapping,
    period: ReportPeriod,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Count the report of a journey and keep it, if it is time for that; returns whether it was.

    stopped: asked before each statement; then nothing is kept.
    """
    rows: dict[str, list[list[Any]]] = {}

    def read(statement: Executable, given: dict[str, Any]) -> Sequence[Sequence[Any]]:
        if stopped():
            raise _Stopped
        found = tx.conn.execute(statement, given).all()
        rows[_key(statement)] = [list(row) for row in found]
        return found

    with db.transaction(write=False) as tx:
        catalog.catch_up(tx)
        question = _question(catalog, journey, mapping, period)
        kept = tx.conn.execute(_KEPT, {"of_journey": journey}).one_or_none()
        if (
            kept is not None
            and kept.question == question
            and 0 <= tx.now - kept.counted_at < _pause(kept.took)
        ):
            return False
        counted_at, began = tx.now, time.perf_counter()
        try:
            report_journey(tx, catalog, journey, mapping, period, read=read)
        except _Stopped:
            return False
        took = math.ceil(time.perf_counter() - began)
    with db.transaction() as tx:
        # JSON has no exact decimals, which amounts are: they are kept as text.
        plain = orjson.loads(orjson.dumps(rows, default=str))
        _KEEP(tx.conn, [(journey, question, counted_at, took, plain)])
    log.info("counted the report of %s in %d s", journey, took)
    return True


def _pause(took: Seconds) -> Seconds:
    """The fewest seconds from one count to the next."""
    return max(_PAUSE, _SHARE * took)


def _question(catalog: Catalog, journey: str, mapping: RevenueMapping, period: ReportPeriod) -> str:
    """The digest of what the rows depend on besides the database's."""
    asked = [list(mapping), parameters(catalog, journey, period)]
    return hashlib.sha256(orjson.dumps(asked)).hexdigest()


def _key(statement: Executable) -> str:
    return hashlib.sha256(str(statement).encode()).hexdigest()
