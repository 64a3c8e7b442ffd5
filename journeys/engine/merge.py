"""Merge profiles with their enrollments, messages and segment memberships.

Locks in the common order: events, enrollments, profiles, messages, each by id.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, select

from channels.messages import device_transitions
from channels.messages import transitions as message_transitions
from config.clock.times import Instant
from config.database.engine import Tx, insert_ignoring_conflicts
from journeys.engine.exits import end
from journeys.enrollments import enrollments, transitions
from journeys.tables import passages, segment_members
from profiles.bulk import among, lock_profiles
from profiles.identity.merge import Merger, lock_events, merge_profiles, repoint

MERGED = "merged"


def merge(
    tx: Tx,
    mergers: Sequence[Merger],
    *,
    also_lock: Collection[int] = (),
    later: Collection[int] = (),
) -> None:
    """Merge profiles into others, with their events, enrollments and messages.

    If both have a current enrollment in the same journey with the same entry key, the later one
    ends and its planned messages are cancelled. From now on caps, conditions and re-entry rules
    see one profile.

    Parameters
    ----------
    mergers: a profile must not be merged in one and survive in another.
    also_lock: profiles that the caller locks afterwards; locked here, to keep the order of ids.
    later: profiles that may be merged later in this transaction; locked here for the same reason.
    """
    concerned = {one for merger in mergers for one in (merger.from_id, merger.into_id)}
    lock_events(tx, {*(merger.from_id for merger in mergers), *later})
    _enrollments(tx, {*concerned, *later}, lock=True)
    lock_profiles(tx, {*concerned, *also_lock})
    if not mergers:
        return
    moved = _merge_enrollments(tx, mergers)
    twins = merge_profiles(tx, mergers, moved)
    transitions.replace_entry_events(tx, twins)


def _merge_enrollments(tx: Tx, mergers: Sequence[Merger]) -> dict[int, dict[str, Any]]:
    """Move enrollments, messages and log rows; returns the moved ids by the merged profile's id."""
    concerned = {one for merger in mergers for one in (merger.from_id, merger.into_id)}
    by_profile: dict[int, list[_Enrollment]] = defaultdict(list)
    for row in _enrollments(tx, concerned):
        by_profile[row.profile_id].append(row)
    ending: list[int] = []
    launched: list[int] = []
    moved: dict[int, dict[str, Any]] = {}
    survivors = {merger.into_id: _Survivor(by_profile[merger.into_id]) for merger in mergers}
    for merger in mergers:
        both, again = survivors[merger.into_id].take(by_profile[merger.from_id])
        ending += both
        launched += [row.id for row in again]
        moved[merger.from_id] = {
            "ended": both,
            "launches": [(row.id, row.launch_id) for row in again],
        }
    if ending:
        end(tx, ending, MERGED)
    if launched:
        transitions.leave_launches(tx, launched)
    for name, theirs in (
        ("enrollments", transitions.give_to(tx, mergers)),
        ("messages", message_transitions.give_to(tx, mergers)),
        ("message_devices", device_transitions.give_to(tx, mergers)),
    ):
        for from_id, ids in theirs.items():
            moved[from_id][name] = ids
    repoint(tx, passages, mergers)
    for from_id, journeys in _merge_memberships(tx, mergers).items():
        moved[from_id]["segments"] = journeys
    return moved


def _merge_memberships(tx: Tx, mergers: Sequence[Merger]) -> dict[int, list[str]]:
    """Move the segment memberships, so that the surviving profile does not join the segment again.

    Returns the journeys whose rows were removed, by the merged profile's id.
    """
    c = segment_members.c
    left: dict[int, list[str]] = {merger.from_id: [] for merger in mergers}
    into = {merger.from_id: merger.into_id for merger in mergers}
    theirs = tx.conn.execute(
        select(c.journey, c.profile_id, c.since)
        .where(among(tx, c.profile_id, left))
        .order_by(c.journey)
    ).all()
    for row in theirs:
        left[row.profile_id].append(row.journey)
    rows = [{**row._mapping, "profile_id": into[row.profile_id]} for row in theirs]
    insert_ignoring_conflicts(tx.conn, segment_members, rows)
    tx.conn.execute(delete(segment_members).where(among(tx, c.profile_id, left)))
    return left


class _Enrollment(NamedTuple):
    """What a merge reads of an enrollment."""

    id: int
    profile_id: int
    journey: str
    entry_key: str
    launch_id: str | None
    entered_at: Instant
    ended_at: Instant | None


_COLUMNS = [enrollments.c[name] for name in _Enrollment._fields]


def _enrollments(tx: Tx, profile_ids: Collection[int], *, lock: bool = False) -> list[_Enrollment]:
    whose = among(tx, enrollments.c.profile_id, profile_ids)
    rows = select(*_COLUMNS).where(whose).order_by(enrollments.c.id)
    found = tx.conn.execute(rows.with_for_update() if lock else rows)
    return [_Enrollment._make(row) for row in found]


class _Survivor:
    """The enrollments of a surviving profile and of the profiles merged into it so far."""

    def __init__(self, ours: Sequence[_Enrollment]) -> None:
        self._current = {_slot(row): row for row in ours if row.ended_at is None}
        self._launches = {_launch_key(row) for row in ours if row.launch_id is not None}

    def take(self, theirs: Sequence[_Enrollment]) -> tuple[list[int], list[_Enrollment]]:
        """Add the enrollments of a merged profile.

        Returns
        -------
        The ids of enrollments to end: the later of two current ones with the same journey and
        entry key. And the rows whose launch must be cleared, because another enrollment has the
        same launch; only the merge record keeps it.
        """
        later: list[int] = []
        for row in theirs:
            if row.ended_at is None:
                rival = self._current.get(_slot(row), row)
                first, second = sorted((row, rival), key=lambda one: (one.entered_at, one.id))
                self._current[_slot(row)] = first
                if first is not second:
                    later.append(second.id)
        again = [row for row in theirs if _launch_key(row) in self._launches]
        self._launches |= {_launch_key(row) for row in theirs if row.launch_id is not None}
        return later, again


def _slot(row: _Enrollment) -> tuple[str, str]:
    return row.journey, row.entry_key


def _launch_key(row: _Enrollment) -> tuple[str, str | None]:
    return row.journey, row.launch_id
