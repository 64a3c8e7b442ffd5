"""The number of people in each segment, once a day."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import BigInteger, Text, bindparam, select

from config.clock.times import Instant
from config.database.arrays import insert_or_update
from config.database.engine import Database, Tx
from journeys.definition.segment import Segment
from journeys.engine.entry import audience_size
from journeys.tables import segment_counts

_c = segment_counts.c
_PUT = insert_or_update(_c.segment, _c.day, _c.people, _c.counted_at)
_COUNTED = select(_c.segment).where(_c.day == bindparam("today", type_=Text))
_LATEST = (
    select(_c.day, _c.people)
    .where(_c.segment == bindparam("of_segment", type_=Text))
    .order_by(_c.day.desc())
    .limit(bindparam("most", type_=BigInteger))
)


class DayCount(NamedTuple):
    """The people in a segment at the first count of a day (ISO 8601) in the brand's time zone."""

    day: str
    people: int


def count_segments(db: Database, segments: Iterable[Segment], brand: ZoneInfo) -> int:
    """Count the segments that are not counted today. Returns how many those are.

    Each is counted in a transaction of its own, because a large one takes long.
    """
    with db.transaction(write=False) as tx:
        today = _day(tx.now, brand)
        counted = set(tx.conn.execute(_COUNTED, {"today": today}).scalars())
    missing = [one for one in segments if one.name not in counted]
    for segment in missing:
        with db.transaction(write=False) as tx:
            people = audience_size(tx, segment.condition)
        with db.transaction() as tx:
            _PUT(tx.conn, [(segment.name, today, people, tx.now)])
    return len(missing)


def latest_counts(tx: Tx, segment: str, most: int) -> list[DayCount]:
    """The counts of at most `most` days, the latest first."""
    given = {"of_segment": segment, "most": most}
    return [DayCount(*row) for row in tx.conn.execute(_LATEST, given)]


def _day(at: Instant, brand: ZoneInfo) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone(brand).date().isoformat()
