"""Queries for due enrollments, step by step."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import BigInteger, bindparam, func, literal, not_, select

from channels.messages import messages
from config.clock.times import Instant
from config.database.arrays import any_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import lock_rows
from config.policy import CHANNELS
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.enrollments import enrollments
from journeys.operations.control import held


class DueEnrollment(NamedTuple):
    """One enrollment at a step; the fields are columns of the table."""

    enrollment_id: int
    profile_id: int
    arrived_at: Instant
    phase: int
    attempts: int
    due_at: Instant
    journey: str
    version: str
    step: str


_c = enrollments.c
# The columns of the table for the fields, in their order.
DUE_COLUMNS = (_c.id, *(_c[name] for name in DueEnrollment._fields[1:]))

_NOW = bindparam("now", type_=BigInteger)
_MOST = bindparam("most", type_=BigInteger)
_at_step = (
    _c.journey == bindparam("of_journey"),
    _c.version == bindparam("of_version"),
    _c.step == bindparam("at_step"),
    _c.ended_at.is_(None),
    in_buckets(_c.bucket),
)
_DUE = (
    select(*DUE_COLUMNS)
    .where(*_at_step, _c.due_at <= _NOW)
    .order_by(_c.due_at, _c.id)
    .limit(_MOST)
    .with_for_update(skip_locked=True)
)
_DUE_BUCKETS = select(
    select(_c.bucket)
    .where(*_at_step, _c.due_at <= _NOW)
    .order_by(_c.due_at, _c.id)
    .limit(_MOST)
    .subquery()
    .c.bucket
).distinct()
_DUE_OF_LAUNCH = _DUE.where(_c.launch_id == bindparam("launch"))
_DUE_NUMBER = select(func.count()).select_from(
    select(literal(1))
    .where(*_at_step, _c.due_at <= _NOW)
    .order_by(_c.due_at)  # makes PostgreSQL use the index
    .limit(_MOST)
    .subquery()
)
# One index seek for each step.
_PLACES = rows_of("places", _c.journey, _c.version, _c.step)
_EARLIEST = select(
    *_PLACES.c,
    select(func.min(_c.due_at))
    .where(
        _c.journey == _PLACES.c.journey,
        _c.version == _PLACES.c.version,
        _c.step == _PLACES.c.step,
        _c.ended_at.is_(None),
        in_buckets(_c.bucket),
    )
    .scalar_subquery(),
)
# One index seek for each channel.
_CHANNELS = rows_of("channels", messages.c.channel)
_EARLIEST_MESSAGES = select(
    select(func.min(messages.c.send_at))
    .where(
        messages.c.channel == _CHANNELS.c.channel,
        messages.c.state == "planned",
        not_(any_of(messages.c.journey, "held")),
    )
    .scalar_subquery()
).select_from(_CHANNELS)
_ENTERED = select(func.count()).where(
    _c.journey == bindparam("of_journey"), _c.launch_id == bindparam("launch")
)


def lock_due(
    tx: Tx, version: Version, step: str, size: int, launch_id: str | None = None
) -> list[DueEnrollment]:
    """Lock and read at most `size` due enrollments of a step, without those that others lock, in
    the transaction's buckets.

    Returns none for a paused or stopped journey.
    """
    if version.journey.name in held(tx):
        return []
    given = {
        **_place(version, step),
        "now": tx.now,
        "launch": launch_id,
    }
    due = _DUE if launch_id is None else _DUE_OF_LAUNCH
    found = lock_rows(tx, due, given, most=size, find=_DUE_BUCKETS)
    return [DueEnrollment._make(row) for row in found]


def _place(version: Version, step: str) -> dict[str, str]:
    return {"of_journey": version.journey.name, "of_version": version.digest, "at_step": step}


def earliest_due(tx: Tx, catalog: Catalog) -> Iterator[tuple[Version, str, Instant]]:
    """The earliest due time at each step that has enrollments, in the transaction's buckets: one
    index seek per step.
    """
    holding = held(tx)
    places = [
        (version, step)
        for journey in catalog.journeys()
        if journey not in holding
        for version in catalog.versions(journey)
        for step in version.journey.graph
    ]
    named = {(version.journey.name, version.digest, step): version for version, step in places}
    given = {"places": list(named), "buckets": tx.buckets}
    for *place, due_at in tx.rows(_EARLIEST, given):
        if due_at is not None:
            journey, digest, step = place
            yield named[journey, digest, step], step, due_at


def next_due(tx: Tx, catalog: Catalog) -> Instant | None:
    """When the next enrollment or planned message is due; None: there is none."""
    moments = [due_at for _, _, due_at in earliest_due(tx, catalog)]
    given = {"channels": [[channel] for channel in CHANNELS], "held": held(tx)}
    planned = tx.rows(_EARLIEST_MESSAGES, given)
    moments += [send_at for (send_at,) in planned if send_at is not None]
    return min(moments, default=None)


def due_people(tx: Tx, catalog: Catalog, journey: str, most: int) -> int:
    """The number of due enrollments of a journey, counted up to `most`.

    0 for a paused or stopped journey.
    """
    number = 0
    for version, step, due_at in earliest_due(tx, catalog):
        if version.journey.name == journey and due_at <= tx.now:
            given = {**_place(version, step), "now": tx.now, "most": most - number}
            number += tx.conn.execute(_DUE_NUMBER, given).scalar_one()
    return number


def entered_in(tx: Tx, version: Version, launch_id: str | None) -> int:
    """The number of profiles that a launch has entered."""
    given = {"of_journey": version.journey.name, "launch": launch_id}
    return tx.conn.execute(_ENTERED, given).scalar_one()
