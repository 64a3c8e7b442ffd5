"""Queries for due enrollments, step by step."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Integer,
    func,
    literal,
    literal_column,
    select,
    union_all,
)

from channels.messages import messages
from config.clock.times import Instant
from config.database.engine import Tx
from config.policy import CHANNELS
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.enrollments import enrollments
from journeys.operations.control import held
from profiles.bulk import in_slices

# Index seeks in one compound SELECT; SQLite allows 500 terms (SQLITE_MAX_COMPOUND_SELECT).
_SEEKS = 200


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


# The columns of the table for the fields, in their order.
DUE_COLUMNS = (enrollments.c.id, *(enrollments.c[name] for name in DueEnrollment._fields[1:]))


def lock_due(
    tx: Tx, version: Version, step: str, size: int, launch_id: str | None = None
) -> list[DueEnrollment]:
    """Lock and read at most `size` due enrollments of a step, without those that others lock.

    Returns none for a paused or stopped journey.
    """
    columns = enrollments.c
    due = (
        select(*DUE_COLUMNS)
        .where(*_at_step(version.journey.name, version.digest, step), columns.due_at <= tx.now)
        .order_by(columns.due_at, columns.id)
        .limit(size)
        .with_for_update(skip_locked=True)
    )
    if launch_id is not None:
        due = due.where(columns.launch_id == launch_id)
    if version.journey.name in held(tx):
        return []
    return [DueEnrollment._make(row) for row in tx.conn.execute(due)]


def earliest_due(tx: Tx, catalog: Catalog) -> Iterator[tuple[Version, str, Instant]]:
    """The earliest due time at each step that has enrollments: one index seek per step."""
    holding = held(tx)
    places = [
        (version, step)
        for journey in catalog.journeys()
        if journey not in holding
        for version in catalog.versions(journey)
        for step in version.journey.graph
    ]
    named = tuple((version.journey.name, version.digest, step) for version, step in places)
    for seek in _seeks(named):
        for place, due_at in tx.conn.execute(seek):
            if due_at is not None:
                yield (*places[place], due_at)


@lru_cache(maxsize=8)
def _seeks(places: tuple[tuple[str, str, str], ...]) -> list[CompoundSelect[Any]]:
    """The statements that return (index of the place, its earliest due time or NULL).

    Cached, because building such a long statement takes far longer than running it.
    """
    return [
        union_all(
            *(
                select(literal_column(str(number), Integer), func.min(enrollments.c.due_at)).where(
                    *_at_step(*place)
                )
                for number, place in some
            )
        )
        for some in in_slices(list(enumerate(places)), _SEEKS)
    ]


def next_due(tx: Tx, catalog: Catalog) -> Instant | None:
    """When the next enrollment or planned message is due; None: there is none."""
    moments = [due_at for _, _, due_at in earliest_due(tx, catalog)]
    planned = select(func.min(messages.c.send_at)).where(
        messages.c.state == "planned", messages.c.journey.notin_(list(held(tx)))
    )
    # one index seek per channel
    earliest = [planned.where(messages.c.channel == channel) for channel in CHANNELS]
    moments += [
        send_at for one in earliest if (send_at := tx.conn.execute(one).scalar_one()) is not None
    ]
    return min(moments, default=None)


def due_people(tx: Tx, catalog: Catalog, journey: str, most: int) -> int:
    """The number of due enrollments of a journey, counted up to `most`.

    0 for a paused or stopped journey.
    """
    number = 0
    for version, step, due_at in list(earliest_due(tx, catalog)):
        if version.journey.name == journey and due_at <= tx.now:
            due = (
                select(literal(1))
                .where(*_at_step(journey, version.digest, step), enrollments.c.due_at <= tx.now)
                .order_by(enrollments.c.due_at)  # makes PostgreSQL use the index
                .limit(most - number)
                .subquery()
            )
            number += tx.conn.execute(select(func.count()).select_from(due)).scalar_one()
    return number


def entered_in(tx: Tx, version: Version, launch_id: str | None) -> int:
    """The number of profiles that a launch has entered."""
    entered = select(func.count()).where(
        enrollments.c.journey == version.journey.name, enrollments.c.launch_id == launch_id
    )
    return tx.conn.execute(entered).scalar_one()


def _at_step(journey: str, digest: str, step: str) -> list[ColumnElement[bool]]:
    return [
        enrollments.c.journey == journey,
        enrollments.c.version == digest,
        enrollments.c.step == step,
        enrollments.c.ended_at.is_(None),
    ]
