"""Undo a join of two profiles, with their enrollments, messages and segment memberships.

Locks in the common order: events, enrollments, profiles, messages, each by id.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, bindparam, insert, select

from channels.messages import device_transitions, message_devices, messages, past, past_messages
from channels.messages import transitions as message_transitions
from config.channels import channel_of
from config.database.arrays import any_of, rows_of
from config.database.engine import Tx
from journeys.enrollments import enrollments, transitions
from journeys.operations.merge import lock_for_joins
from journeys.tables import experiment_arms, passages, segment_members
from profiles.bucketing import bucket_of
from profiles.identity.mergers import move_rows
from profiles.identity.owners import lock_identities
from profiles.identity.person import Key
from profiles.identity.unmerge import Undo, going_rows, plan_undo, undo_profiles
from profiles.rules import InputRules
from profiles.tables import events

_n, _m, _d, _p, _s = (
    enrollments.c,
    messages.c,
    message_devices.c,
    past_messages.c,
    segment_members.c,
)
_PROFILE = bindparam("profile", type_=BigInteger)
_ENROLLMENTS = (
    select(_n.id, _n.journey, _n.entry_event_id).where(_n.profile_id == _PROFILE).order_by(_n.id)
)
_e = events.c
_ENTERED_BY = select(_e.id, _e.dedupe_key, _e.identifier_kind, _e.identifier_value).where(
    any_of(_e.id, "events")
)
_MESSAGES = select(_m.id, _m.channel, _m.address, _m.enrollment_id).where(_m.profile_id == _PROFILE)
_DEVICES = select(_d.message_id, _d.token).where(_d.profile_id == _PROFILE)
_PAST = select(_p.id, _p.channel, _p.address, _p.enrollment_id).where(_p.profile_id == _PROFILE)
_MEMBERSHIPS = select(_s.journey, _s.since).where(_s.profile_id == _PROFILE)
_NEW_MEMBERS = rows_of("members", _s.journey, _s.profile_id, _s.bucket, _s.since)
_REMEMBER = insert(segment_members).from_select(
    _NEW_MEMBERS.c.keys(),
    # SQLite parses ON CONFLICT after a SELECT without a WHERE as the ON of a join.
    select(_NEW_MEMBERS)
    .where(_NEW_MEMBERS.c.profile_id.is_not(None))
    .suffix_with("ON CONFLICT DO NOTHING"),
)


class UndoneJoin(NamedTuple):
    """What an undo separates, or would separate.

    holder: the profile that keeps its number. leaves: the one that is there again. identifiers: of
    both, by profile. rows: how many rows go to the second one, by table.
    """

    join: int
    why: str
    source: str
    joined_at: int
    holder: int
    leaves: int
    identifiers: Mapping[int, list[Key]]
    rows: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            **{"join": self.join, "why": self.why, "source": self.source, "at": self.joined_at},
            "stays": self.holder,
            "leaves": self.leaves,
            "identifiers": {
                str(number): [f"{kind}:{value}" for kind, value in keys]
                for number, keys in self.identifiers.items()
            },
            "goes": dict(self.rows),
        }


class _Going(NamedTuple):
    """The rows of journeys and channels that go to the profile that is there again."""

    enrollments: list[int]
    messages: list[int]
    past_messages: list[int]
    # Enrollments that were entered by an event that this join dropped, each with that event.
    entries: list[tuple[int, int]]


def preview_undo(tx: Tx, join_id: int) -> UndoneJoin:
    """What an undo of a join would give to whom. It changes nothing.

    Raises SegueError as `unmerge` does.
    """
    undo = plan_undo(tx, join_id)
    profiles_rows = {name: len(ids) for name, ids in going_rows(tx, undo).items()}
    return _undone(undo, profiles_rows, _going(tx, undo))


def unmerge(tx: Tx, join_id: int, rules: InputRules, by: str) -> UndoneJoin:
    """Undo a join. by: who asks for it, for the record.

    What came since goes to whom it was said of. A no stays with both; a message counts for the
    profile whose address got it; an enrollment that the join ended stays ended.

    Raises SegueError for an unknown or undone join, a circle of joins, or an erased customer.
    """
    lock_identities(tx)
    lock_for_joins(tx, {plan_undo(tx, join_id).holder})
    undo = plan_undo(tx, join_id)
    going = _going(tx, undo)
    _give(tx, undo, going)
    rows = undo_profiles(tx, undo, rules, by)
    return _undone(undo, rows, going)


def _undone(undo: Undo, rows: Mapping[str, int], going: _Going) -> UndoneJoin:
    identifiers: dict[int, list[Key]] = {undo.holder: [], undo.leaves: []}
    for key, origin in sorted(undo.origin_of.items()):
        identifiers[undo.profile_of(origin)].append(key)
    join = undo.join
    return UndoneJoin(
        join=join.id,
        why=join.why or "",
        source=join.source or "",
        joined_at=join.at,
        holder=undo.holder,
        leaves=undo.leaves,
        identifiers=identifiers,
        rows={
            **rows,
            "enrollments": len(going.enrollments),
            "messages": len(going.messages) + len(going.past_messages),
        },
    )


def _going(tx: Tx, undo: Undo) -> _Going:
    given = {"profile": undo.holder}
    people = tx.conn.execute(_ENROLLMENTS, given).all()
    entry_events = {
        row.id: row
        for row in tx.conn.execute(
            _ENTERED_BY, {"events": {row.entry_event_id for row in people if row.entry_event_id}}
        )
    }
    dropped = _dropped_entries(undo)
    entered: list[int] = []
    entries: list[tuple[int, int]] = []
    for row in people:
        event = entry_events.get(row.entry_event_id)
        twin = None if event is None else dropped.get((row.id, event.dedupe_key))
        key: Key | None = None
        if event is not None and twin is None and event.identifier_kind is not None:
            key = (event.identifier_kind, event.identifier_value)
        if undo.goes("enrollments", row.id, key):
            entered.append(row.id)
        if twin is not None and twin.join == undo.join.id:
            entries.append((row.id, twin.event))
    going = set(entered)
    tokens = {row.message_id: row.token for row in tx.conn.execute(_DEVICES, given)}

    def theirs(row: Any) -> bool:
        address = row.address or tokens.get(row.id)
        if address is not None:
            key: Key = (channel_of(row.channel).address_kind, address)
            if key in undo.origin_of:
                return undo.goes("messages", row.id, key)
        return row.enrollment_id in going  # what went to nobody belongs to its enrollment

    return _Going(
        enrollments=entered,
        messages=[row.id for row in tx.conn.execute(_MESSAGES, given) if theirs(row)],
        past_messages=[row.id for row in tx.conn.execute(_PAST, given) if theirs(row)],
        entries=entries,
    )


class _Dropped(NamedTuple):
    """An event that a join dropped, because both profiles had it."""

    join: int
    event: int


def _dropped_entries(undo: Undo) -> dict[tuple[int, str], _Dropped]:
    """The dropped events by the enrollments that a join moved, and by key."""
    found: dict[tuple[int, str], _Dropped] = {}
    for record in undo.history:
        if record.kind != "join" or record.undone_at is not None:
            continue
        moved = record.data["moved"]
        for one in moved.get("events_dropped", ()):
            for enrollment_id in moved.get("enrollments", ()):
                found[enrollment_id, one["dedupe_key"]] = _Dropped(record.id, one["id"])
    return found


def _give(tx: Tx, undo: Undo, going: _Going) -> None:
    holder, leaves = undo.holder, undo.leaves
    transitions.give_back(tx, going.enrollments, holder, leaves)
    message_transitions.give_back(tx, going.messages, holder, leaves)
    device_transitions.give_back(tx, going.messages, holder, leaves)
    past.give_back(tx, going.past_messages, holder, leaves)
    for table in (passages, experiment_arms):
        move_rows(tx, table, "enrollment_id", going.enrollments, holder, leaves)
    transitions.return_to_launches(tx, undo.join.data["moved"].get("launches", ()))
    transitions.restore_entry_events(tx, going.entries)
    # Both are in the segments from before, so neither enters their journeys again for the undo.
    members = [
        (row.journey, leaves, bucket_of(leaves), row.since)
        for row in tx.conn.execute(_MEMBERSHIPS, {"profile": holder})
    ]
    if members:
        tx.conn.execute(_REMEMBER, {"members": members})
