"""What happened in each journey and has not been told yet: counts that all workers share.

Kept in a row of the database for each journey, so that all workers together tell of a journey once
a second, whoever of them does it; and what a worker that ended had counted, another tells.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, select, update

from config.database import Tx, insert_ignoring_conflicts
from config.times import Seconds
from journeys.tables import journey_news

# Counts by their place in what is told: ("messages", "email", "sent").
News = Counter[tuple[str, ...]]

# Another worker's transaction may have begun in the next second, and come to the row before ours.
# One that is further ahead shows that the clock was set back.
_AHEAD: Seconds = 60

_write = (
    update(journey_news)
    .where(journey_news.c.journey == bindparam("of"))
    .values(counts=bindparam("counts"), told_at=bindparam("told_at"))
)


def share(tx: Tx, ours: Mapping[str, News]) -> None:
    """Add to what all workers have counted, by journey."""
    if not ours:
        return
    rows = [{"journey": journey, "counts": [], "told_at": 0} for journey in sorted(ours)]
    insert_ignoring_conflicts(tx.conn, journey_news, rows)
    written = [
        _row(journey, news + ours[journey], told_at)
        for journey, (news, told_at) in _locked(tx).items()
        if journey in ours
    ]
    tx.conn.execute(_write, written)


def take_due(tx: Tx) -> tuple[dict[str, News], bool]:
    """Take the counts of the journeys of which nobody has told in this second.

    Returns
    -------
    the counts by journey, now the caller's to tell; and whether others wait for the next second.
    """
    untold = {of: (news, told_at) for of, (news, told_at) in _locked(tx).items() if news}
    due = {
        of: news
        for of, (news, told_at) in untold.items()
        if not tx.now <= told_at <= tx.now + _AHEAD
    }
    if due:
        tx.conn.execute(_write, [_row(journey, News(), tx.now) for journey in due])
    return due, len(due) < len(untold)


def _locked(tx: Tx) -> dict[str, tuple[News, int]]:
    """By journey: what is untold, and when it was told of last."""
    rows = tx.conn.execute(select(journey_news).order_by(journey_news.c.journey).with_for_update())
    return {
        row.journey: (News({tuple(place): number for *place, number in row.counts}), row.told_at)
        for row in rows
    }


def _row(journey: str, news: News, told_at: int) -> dict[str, Any]:
    counts = [[*place, number] for place, number in news.items()]
    return {"of": journey, "counts": counts, "told_at": told_at}
