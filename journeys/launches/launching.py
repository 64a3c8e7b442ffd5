"""Launches: starts of a journey for an audience. A repeat with the same id continues a launch.

An audience enters chunk by chunk. The transaction that enters a chunk also moves it through the
first steps.
"""

import logging
from collections.abc import Callable, Iterator

from sqlalchemy import bindparam, select

from config.database.arrays import InsertRows
from config.database.buckets import Leased, all_buckets
from config.database.engine import Tx
from config.errors import SegueError
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.engine import entry
from journeys.engine.advance import Engine
from journeys.engine.due import entered_in
from journeys.engine.entry import audience_after, enter_people
from journeys.engine.move import Moved
from journeys.engine.retry import StepFailed
from journeys.engine.segment_entry import enter_newcomers, profiles_after
from journeys.launches.approvals import (
    LaunchRequest,
    check_approval,
    finish,
    left_approvals,
)
from journeys.tables import launches
from profiles.bucketing import buckets_of

log = logging.getLogger(__name__)

_c = launches.c
_INSERT = InsertRows(
    *(_c.id, _c.journey, _c.version, _c.audience, _c.people, _c.started_at),
    on_conflict="DO NOTHING",
)
_THIS = _c.id == bindparam("launch")
# Undo waits until those who enter are stored.
_OPEN = select(_c.people).where(_THIS).with_for_update(read=True)
_LOCK = select(_c.people).where(_THIS).with_for_update()
_LAUNCH = (
    select(_c.journey, _c.audience, _c.version, _c.people).where(_THIS).with_for_update(read=True)
)
# The limit of a launch that was undone: nobody enters any more.
_UNDONE = 0


class LaunchConflict(SegueError):
    """The id belongs to a launch that was undone, of another journey or for another audience."""


def record_launch(
    tx: Tx,
    catalog: Catalog,
    *,
    launch_id: str,
    journey: str,
    audience: str,
    people: int | None = None,
    version: str | None = None,
) -> Version:
    """Record a launch, unless it is recorded already; returns the version that it started with.

    Raises SegueError if the journey does not exist, LaunchConflict if the id is taken.

    Parameters
    ----------
    people: the most profiles that may enter; None: no limit.
    version: the digest of the version to start with; None: the current one.
    """
    version = version or catalog.journey(journey).digest
    _INSERT(tx.conn, [(launch_id, journey, version, audience, people, tx.now)])
    found = tx.conn.execute(_LAUNCH, {"launch": launch_id}).one()
    if (found.journey, found.audience) != (journey, audience):
        raise LaunchConflict(
            f"the launch {launch_id!r} exists, of the journey {found.journey} for "
            f"{found.audience}; use another id"
        )
    if found.people == _UNDONE:
        raise LaunchConflict(f"the launch {launch_id!r} was undone; start one with another id")
    # Another process may have started the launch with a version that is not loaded here.
    catalog.learn(tx, [(journey, found.version)])
    return catalog.version(journey, found.version)


def start_launch(
    engine: Engine, launch_id: str, journey: str, audience: str, people: int | None = None
) -> Version:
    """Record a launch; returns its version. A launch on record continues with its version.

    Raises SegueError if the journey or the audience does not exist, or if the id belongs to
    another launch; ApprovalNeeded if it has to wait, NotApproved if it never starts.
    """
    request = LaunchRequest(id=launch_id, journey=journey, audience=audience, people=people)
    size = size_to_approve(engine, request)
    with engine.db.transaction() as tx:
        approved = check_approval(
            tx, engine.planner.policy.approval, engine.catalog.journey(journey), request, size
        )
        return record_launch(
            tx,
            engine.catalog,
            launch_id=launch_id,
            journey=journey,
            audience=audience,
            people=people,
            version=approved,
        )


def size_to_approve(engine: Engine, request: LaunchRequest) -> int | None:
    """The most profiles that a launch would enter now; None if no approval depends on it.

    Raises SegueError if the audience does not exist.
    """
    engine.catalog.segment(request.audience)  # raises for a segment that does not exist
    if engine.planner.policy.approval.people is None:
        return None
    size = audience_size(engine, request.audience)
    return size if request.people is None else min(size, request.people)


def continue_approved(engine: Engine, stopping: Callable[[], bool]) -> None:
    """Enter the audiences of approved launches that a killed process left.

    stopping: asked after each chunk; if it returns True, the rest is left to another call.
    """
    with engine.db.transaction(write=False) as tx:
        left = left_approvals(tx)
    for row in left:
        log.info("continuing the launch %s, which %s approved", row.launch_id, row.decided_by)
        try:
            version = start_launch(engine, *row.request)
            for _ in enter_audience(engine, version, row.audience, row.launch_id, row.people):
                if stopping():
                    return
        except SegueError as error:  # such as a segment that was removed
            log.error("the approved launch %s can't continue: %s", row.launch_id, error)


def enter_audience(
    engine: Engine,
    version: Version,
    audience: str,
    launch_id: str | None,
    people: int | None = None,
) -> Iterator[int]:
    """Enter a segment chunk by chunk; yields how many entered in each chunk.

    people: the most that may enter by the launch, its repeats included; None: no limit.
    """
    after = 0
    while True:
        try:
            entered = _enter_some(engine, version, audience, launch_id, people, after)
        except StepFailed:
            # Those who enter stay due at the step that fails, which gets chunks of its own.
            entered = _enter_some(engine, version, audience, launch_id, people, after, move=False)
        if entered is None:
            break
        number, after = entered
        yield number
    if launch_id is not None:
        with engine.db.transaction() as tx:
            finish(tx, launch_id)


def _enter_some(
    engine: Engine,
    version: Version,
    audience: str,
    launch_id: str | None,
    people: int | None,
    after: int,
    *,
    move: bool = True,
) -> tuple[int, int] | None:
    """Enter a chunk of the profiles with an id above `after`.

    Returns how many entered, and the chunk's last id; None: nobody is left.
    """
    condition = engine.catalog.segment(audience).condition
    moved = Moved()
    with engine.chunks.transaction("enter") as chunk:
        size = chunk.size
        if launch_id is not None:
            # Two processes that continue the same launch keep its limit together.
            opened = _OPEN if people is None else _LOCK
            if chunk.tx.conn.execute(opened, {"launch": launch_id}).scalar() == _UNDONE:
                return None
        if people is not None:
            size = min(size, people - entered_in(chunk.tx, version, launch_id))
        ids = audience_after(chunk.tx, condition, after, size) if size > 0 else []
        if not ids:
            return None
        chunk.tx.buckets = buckets_of(ids)
        entered = enter_people(chunk.tx, version, ids, launch_id)
        if move:
            moved = engine.mover.move(chunk.tx, entered)
        chunk.people = len(ids)
    moved.count_decisions()
    return len(entered), ids[-1]


def enter_all_newcomers(engine: Engine, journey: str, leased: Leased = all_buckets) -> int:
    """Examine all profiles, chunk by chunk, and enter those that joined the entry's segment.

    Returns how many entered; 0 for other entry types.

    leased: the buckets to look in.
    """
    entered = after = 0
    version = engine.catalog.current.get(journey)
    condition = None if version is None else engine.catalog.entry_segment(version)
    while version is not None and condition is not None:
        with engine.chunks.transaction("look for newcomers") as chunk:
            chunk.tx.buckets = leased()
            ids = profiles_after(chunk.tx, after, chunk.size)
            if not ids:
                break
            entered += len(enter_newcomers(chunk.tx, version, condition, ids))
            chunk.people = len(ids)
        after = ids[-1]
    return entered


def audience_size(engine: Engine, audience: str) -> int:
    """The number of profiles in a segment now."""
    with engine.db.transaction(write=False) as tx:
        return entry.audience_size(tx, engine.catalog.segment(audience).condition)
