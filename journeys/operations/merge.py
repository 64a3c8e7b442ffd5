"""Merge profiles with their enrollments, messages and segment memberships.

Locks in the common order: events, enrollments, profiles, messages, each by id.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select

from channels.messages import device_transitions, past
from channels.messages import transitions as message_transitions
from config.clock.times import Instant
from config.database.arrays import any_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import bucket_turns
from journeys.engine.exits import end
from journeys.enrollments import enrollments, transitions
from journeys.tables import experiment_arms, passages, segment_members
from profiles.bucketing import bucket_of, buckets_of
from profiles.bulk import lock_profiles
from profiles.identity.merge import lock_events, merge_profiles
from profiles.identity.mergers import Merger, repoint

MERGED = "merged"

_m = segment_members.c
_MEMBERSHIPS = select(_m.journey, _m.profile_id, _m.since).where(any_of(_m.profile_id, "profiles"))
_JOINING = rows_of("joining", _m.journey, _m.profile_id, _m.bucket, _m.since)
_JOIN = insert(segment_members).from_select(
    _JOINING.c.keys(),
    # SQLite parses ON CONFLICT after a SELECT without a WHERE as the ON of a join.
    select(_JOINING)
    .where(_JOINING.c.profile_id.is_not(None))
    .suffix_with("ON CONFLICT DO NOTHING"),
)
_LEAVE = delete(segment_members).where(any_of(_m.profile_id, "profiles"))


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
    lock_for_joins(
        tx,
        concerned,
        events_of={*(merger.from_id for merger in mergers), *later},
        enrollments_of={*concerned, *later},
        also_lock=also_lock,
    )
    if not mergers:
        return
    moved = _merge_enrollments(tx, mergers)
    twins = merge_profiles(tx, mergers, moved)
    transitions.replace_entry_events(tx, twins)


def lock_for_joins(
    tx: Tx,
    profile_ids: Collection[int],
    *,
    events_of: Collection[int] | None = None,
    enrollments_of: Collection[int] | None = None,
    also_lock: Collection[int] = (),
) -> None:
    """Lock profiles with their events and enrollments, in the common order."""
    lock_events(tx, profile_ids if events_of is None else events_of)
    _enrollments(tx, profile_ids if enrollments_of is None else enrollments_of, lock=True)
    lock_profiles(tx, {*profile_ids, *also_lock})


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
        # after the messages: these may become past ones until they are locked
        ("past_messages", past.give_to(tx, mergers)),
    ):
        for from_id, ids in theirs.items():
            moved[from_id][name] = ids
    repoint(tx, passages, mergers)
    repoint(tx, experiment_arms, mergers)
    for from_id, journeys in _merge_memberships(tx, mergers).items():
        moved[from_id]["segments"] = journeys
    return moved


def _merge_memberships(tx: Tx, mergers: Sequence[Merger]) -> dict[int, list[str]]:
    """Move the segment memberships, so that the surviving profile does not join the segment again.

    Returns the journeys whose rows were removed, by the merged profile's id.
    """
    left: dict[int, list[str]] = {merger.from_id: [] for merger in mergers}
    into = {merger.from_id: merger.into_id for merger in mergers}
    places = {merger.from_id: place for place, merger in enumerate(mergers)}
    theirs = sorted(
        tx.conn.execute(_MEMBERSHIPS, {"profiles": left}),
        key=lambda row: (places[row.profile_id], row.journey),
    )
    for row in theirs:
        left[row.profile_id].append(row.journey)
    if theirs:
        rows = [
            (row.journey, into[row.profile_id], bucket_of(into[row.profile_id]), row.since)
            for row in theirs
        ]
        tx.conn.execute(_JOIN, {"joining": rows})
        tx.conn.execute(_LEAVE, {"profiles": left})
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


_ENROLLMENTS = (
    select(*(enrollments.c[name] for name in _Enrollment._fields))
    .where(any_of(enrollments.c.profile_id, "profiles"), in_buckets(enrollments.c.bucket))
    .order_by(enrollments.c.id)
)
_LOCKED_ENROLLMENTS = _ENROLLMENTS.with_for_update()


def _enrollments(tx: Tx, profile_ids: Collection[int], *, lock: bool = False) -> list[_Enrollment]:
    found = _LOCKED_ENROLLMENTS if lock else _ENROLLMENTS
    return [
        _Enrollment._make(row)
        for buckets in bucket_turns(tx, buckets_of(profile_ids))
        for row in tx.conn.execute(found, {"profiles": profile_ids, "buckets": buckets})
    ]


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
