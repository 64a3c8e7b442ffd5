"""Counts of live activity in each journey that are not yet reported to Prefect.

All workers share one database row for each journey. So together they report a journey at most once
a second, and a worker also reports the counts of stopped ones.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, select, update

from config.clock.times import Seconds
from config.database.arrays import InsertRows
from config.database.engine import Tx
from journeys.tables import journey_news

# Counts by their path in the reported event: ("messages", "email", "sent").
LiveCounts = Counter[tuple[str, ...]]

# A `told_at` up to this many seconds in the future is accepted: another worker's transaction may
# have begun a second later than ours and locked the row first. Further ahead means that the clock
# was set back.
_AHEAD: Seconds = 60

_INSERT = InsertRows(
    *(journey_news.c.journey, journey_news.c.counts, journey_news.c.told_at),
    on_conflict="DO NOTHING",
)
_LOCKED = select(journey_news).order_by(journey_news.c.journey).with_for_update()
_write = (
    update(journey_news)
    .where(journey_news.c.journey == bindparam("of"))
    .values(counts=bindparam("counts"), told_at=bindparam("told_at"))
)


def share(tx: Tx, ours: Mapping[str, LiveCounts]) -> None:
    """Add this worker's counts, by journey, to the shared counts."""
    if not ours:
        return
    _INSERT(tx.conn, [(journey, [], 0) for journey in sorted(ours)])
    written = [
        _row(journey, news + ours[journey], told_at)
        for journey, (news, told_at) in _locked(tx).items()
        if journey in ours
    ]
    tx.conn.execute(_write, written)


def take_due(tx: Tx) -> tuple[dict[str, LiveCounts], bool]:
    """Take the counts of the journeys that no worker has reported in this second.

    Returns
    -------
    The counts by journey, which the caller must report; and whether counts of other journeys wait
    for the next second.
    """
    unreported = {of: (news, told_at) for of, (news, told_at) in _locked(tx).items() if news}
    due = {
        of: news
        for of, (news, told_at) in unreported.items()
        if not tx.now <= told_at <= tx.now + _AHEAD
    }
    if due:
        tx.conn.execute(_write, [_row(journey, LiveCounts(), tx.now) for journey in due])
    return due, len(due) < len(unreported)


def _locked(tx: Tx) -> dict[str, tuple[LiveCounts, int]]:
    """Lock and read all rows: the unreported counts and the last report's time, by journey."""
    rows = tx.conn.execute(_LOCKED)
    return {
        row.journey: (
            LiveCounts({tuple(place): number for *place, number in row.counts}),
            row.told_at,
        )
        for row in rows
    }


def _row(journey: str, news: LiveCounts, told_at: int) -> dict[str, Any]:
    counts = [[*place, number] for place, number in news.items()]
    return {"of": journey, "counts": counts, "told_at": told_at}
