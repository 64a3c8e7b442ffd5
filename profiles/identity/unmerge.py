"""Undo a join: what two profiles would be without it, and whose each row is.

A row belongs to whom it was said of: the origin of its identifier, which is the profile that would
have it without any join. Rows without an identifier go back if the join moved them, and otherwise
stay. journeys/operations/unmerge.py moves the rows of journeys and channels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import BigInteger, Integer, bindparam, delete, insert, select, update

from config.database.arrays import InsertRows, any_of, rows_of
from config.database.engine import Tx
from config.errors import SegueError
from profiles.attributes.latest import (
    FIELDS,
    attribute_key,
    read_attribute_identifiers,
    stored_attribute_identifiers,
)
from profiles.bucketing import bucket_of
from profiles.consent.restore import restore_consents, restore_preferences, said_consents
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import is_retired_row
from profiles.identity.history import HistoryRecord, change_data, history_of, move_records
from profiles.identity.holdout import held_among, set_held
from profiles.identity.mergers import move_rows
from profiles.identity.person import Key
from profiles.identity.replay import Replayed, connected, replay
from profiles.identity.survivors import survivors
from profiles.rules import InputRules
from profiles.tables import (
    consent_records,
    email_confirmations,
    events,
    identifiers,
    identity_records,
    kept_apart,
    merges,
    profiles,
)

_i, _p, _e, _c, _m, _r = (
    identifiers.c,
    profiles.c,
    events.c,
    consent_records.c,
    merges.c,
    identity_records.c,
)
_RECORD = select(
    *(_r.id, _r.undone_at, _r.profile_id, _r.bucket, _r.kind, _r.at, _r.origin_id, _r.from_id),
    *(_r.into_id, _r.from_origin, _r.into_origin, _r.why, _r.source, _r.data),
).where(_r.id == bindparam("join", type_=BigInteger))
_EXISTS = select(_p.id).where(any_of(_p.id, "profiles"))
_ROW = select(profiles).where(_p.id == bindparam("profile", type_=BigInteger))
_IDENTIFIERS = select(identifiers).where(_i.profile_id == bindparam("profile", type_=BigInteger))
_EVENTS = select(_e.id, _e.name, _e.identifier_kind, _e.identifier_value).where(
    _e.profile_id == bindparam("profile", type_=BigInteger)
)
_RECORDS = select(_c.id, _c.identifier_kind, _c.identifier_value).where(
    _c.profile_id == bindparam("profile", type_=BigInteger)
)
_POINTERS = select(_m.from_id).where(any_of(_m.from_id, "profiles"))

_CHANGES = rows_of("changes", _i.kind, _i.value, _i.profile_id, _i.retired_at, _i.unverified_from)
_MOVE_IDENTIFIERS = (
    update(identifiers)
    .where(_i.kind == _CHANGES.c.kind, _i.value == _CHANGES.c.value)
    .values({name: _CHANGES.c[name] for name in ("profile_id", "retired_at", "unverified_from")})
)
_DESCRIBED_BY = (
    *(_p.country, _p.timezone, _p.language),
    *(_p.attributes, _p.attribute_times, _p.attribute_identifiers, _p.created_at),
)
_INSERT_PROFILE = InsertRows(_p.id, *_DESCRIBED_BY, _p.updated_at, _p.bucket)
_CHANGED = rows_of("changed", _p.id, *_DESCRIBED_BY, _p.updated_at)
_UPDATE_PROFILE = (
    update(profiles)
    .where(_p.id == _CHANGED.c.id)
    .values({column.name: column for column in _CHANGED.c if column.name != "id"})
)
_FORGET_MERGE = delete(merges).where(_m.from_id == bindparam("profile", type_=BigInteger))
_POINT = (
    update(merges)
    .where(any_of(_m.from_id, "profiles"))
    .values(into_id=bindparam("into", type_=BigInteger))
)
_UNDONE = (
    update(identity_records)
    .where(_r.id == bindparam("join", type_=BigInteger))
    .values(undone_at=bindparam("now", type_=BigInteger), undone_by=bindparam("by"))
)
_KEEP_APART = insert(kept_apart)
_FORGET_EVENT = delete(events).where(
    _e.profile_id == bindparam("profile", type_=BigInteger), _e.dedupe_key == bindparam("key")
)
_AGAIN = InsertRows(*events.c, on_conflict="DO NOTHING")
_x = email_confirmations.c
_GIVE_CONFIRMATIONS = (
    update(email_confirmations)
    .where(any_of(_x.address, "addresses"), _x.profile_id == bindparam("holder", type_=Integer))
    .values(profile_id=bindparam("leaves", type_=BigInteger))
)


# The parts of `moved` that have identifiers or values of customers, which `start` records have too.
_NAMING = frozenset(
    {
        *("profile", "profile_before", "consents", "consents_before"),
        *("identifiers", "retired", "withheld"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Undo:
    """An undo as it is planned: which profile keeps its number, and what leaves it.

    holder: the profile that has everything now, and stays. leaves: the number of the profile that
    is there again. leaving: the origins that go to it. origin_of: the origin of each identifier of
    the holder. identifiers: their rows.
    """

    join: HistoryRecord
    history: Sequence[HistoryRecord]
    holder: int
    leaves: int
    staying: frozenset[int]
    leaving: frozenset[int]
    origin_of: Mapping[Key, int]
    identifiers: Mapping[Key, Mapping[str, Any]]

    def profile_of(self, origin: int | None) -> int:
        """The profile that has an origin after the undo; without one the holder."""
        return self.leaves if origin in self.leaving else self.holder

    @cached_property
    def _listed(self) -> dict[str, dict[Any, int]]:
        """By table the origin of the rows that joins moved: the first one says it."""
        found: dict[str, dict[Any, int]] = {}
        for record in self.history:
            if record.kind == "join" and record.from_id is not None:
                for name in ("events", "consent_records", "enrollments", "messages"):
                    rows = found.setdefault(name, {})
                    for row_id in record.data["moved"].get(name, ()):
                        rows.setdefault(row_id, record.from_id)
        return found

    def goes(self, table: str, row_id: int, key: Key | None) -> bool:
        """Whether a row goes to the profile that is there again. key: what it was said of."""
        origin = None if key is None else self.origin_of.get(key)
        if origin is None:
            origin = self._listed.get(table, {}).get(row_id)
        return origin in self.leaving


def plan_undo(tx: Tx, join_id: int) -> Undo:
    """Find what an undo of a join would separate. It changes nothing.

    Raises SegueError for an unknown or undone join, and if one of the customers was erased.
    """
    row = tx.conn.execute(_RECORD, {"join": join_id}).first()
    join = None if row is None else HistoryRecord._make(row)
    if join is None or join.kind != "join":
        raise SegueError(
            f"there is no join {join_id}; `segue explain PERSON` shows the joins of a customer"
        )
    if join.undone_at is not None:
        raise SegueError(f"the join {join_id} is undone already")
    holder = _holder(tx, join)
    history = history_of(tx, holder)
    rows = {
        (one["kind"], one["value"]): dict(one)
        for one in tx.conn.execute(_IDENTIFIERS, {"profile": holder}).mappings()
    }
    started = {one.origin_id for one in history if one.kind == "start"}
    one, other = join.edge
    mine = connected(history, one, {join_id})
    others = connected(history, other, {join_id})
    if join_id not in {record.id for record in history} or not started >= mine | others:
        raise SegueError(
            f"the join {join_id} can't be undone: what the customers were before it was erased"
        )
    if other in mine:
        raise SegueError(
            f"the join {join_id} separates nobody: the customers are joined in a circle, also by "
            f"{_rest_of_circle(history, join_id)}; undo these first"
        )
    staying, leaving = (mine, others) if holder in mine else (others, mine)
    named = (join.from_id, join.into_id, one, other)
    leaves = next((number for number in named if number in leaving), min(leaving))
    assert leaves is not None
    return Undo(
        join=join,
        history=history,
        holder=holder,
        leaves=leaves,
        staying=frozenset(staying),
        leaving=frozenset(leaving),
        origin_of={key: row["origin_id"] or holder for key, row in rows.items()},
        identifiers=rows,
    )


def _holder(tx: Tx, join: HistoryRecord) -> int:
    """The profile that has what was joined, with its history."""
    into = join.profile_id
    if tx.conn.execute(_EXISTS, {"profiles": [into]}).first() is not None:
        return into
    last = survivors(tx, [into]).get(into)
    if last is None:
        if tx.conn.execute(_POINTERS, {"profiles": [into]}).first() is not None:
            raise SegueError(
                f"the join {join.id} can't be undone: the joins of customer {into} form a circle; "
                "restore the rows of the table merge from a backup"
            )
    elif tx.conn.execute(_EXISTS, {"profiles": [last]}).first() is not None:
        return last
    raise SegueError(f"the join {join.id} can't be undone: the customer was erased")


def _rest_of_circle(history: Sequence[HistoryRecord], join_id: int) -> str:
    standing = [one for one in history if one.kind == "join" and one.undone_at is None]
    return ", ".join(str(one.id) for one in standing if one.id != join_id)


def undo_profiles(tx: Tx, undo: Undo, rules: InputRules, by: str) -> dict[str, int]:
    """Undo a join in the tables of profiles. Everything must be locked.

    Returns how many events and consent records go to the profile that is there again.
    """
    given = {"profile": undo.holder}
    row = dict(tx.conn.execute(_ROW, given).mappings().one())
    said = said_consents(tx, undo.holder, undo.origin_of, undo.join)

    def without(side: Collection[int]) -> Replayed:
        return replay(undo.history, said, side, undo.origin_of, rules, {undo.join.id})

    together = replay(undo.history, said, undo.staying | undo.leaving, undo.origin_of, rules)
    stays, leaves = without(undo.staying), without(undo.leaving)
    went = _give_rows(tx, undo)
    _separate_identifiers(tx, undo, together, stays, leaves)
    _write_profiles(tx, undo, row, together, stays, leaves)
    restore_consents(tx, undo.holder, undo.leaves, stays.consents, leaves.consents, undo.join.id)
    theirs = undo.profile_of(undo.join.edge[0])
    ours = undo.profile_of(undo.join.edge[1])
    restore_preferences(tx, undo.holder, theirs, ours, undo.join)
    _restore_holdout(tx, undo, theirs, ours)
    _separate_history(tx, undo, by)
    _tell_journeys(tx, undo)
    return went


def going_rows(tx: Tx, undo: Undo) -> dict[str, list[int]]:
    """The events and consent records that go to the profile that is there again."""
    found: dict[str, list[int]] = {"events": [], "consent_records": []}
    for name, statement in (("events", _EVENTS), ("consent_records", _RECORDS)):
        for row in tx.conn.execute(statement, {"profile": undo.holder}):
            kind, value = row.identifier_kind, row.identifier_value
            if undo.goes(name, row.id, None if kind is None else (kind, value)):
                found[name].append(row.id)
    return found


def _give_rows(tx: Tx, undo: Undo) -> dict[str, int]:
    going = going_rows(tx, undo)
    join = undo.join
    # A later join of the same profiles records such an event again.
    tx.conn.execute(_FORGET_EVENT, {"profile": undo.holder, "key": f"merge of {join.from_id}"})
    move_rows(tx, events, "id", going["events"], undo.holder, undo.leaves)
    move_rows(tx, consent_records, "id", going["consent_records"], undo.holder, undo.leaves)
    owner = undo.profile_of(join.edge[0])
    dropped = [
        {**one, "profile_id": owner, "bucket": bucket_of(owner)}
        for one in join.data["moved"].get("events_dropped", ())
    ]
    _AGAIN(tx.conn, [tuple(one[column.name] for column in events.c) for one in dropped])
    addresses = [
        value
        for (kind, value), origin in undo.origin_of.items()
        if kind == "email" and origin in undo.leaving
    ]
    tx.conn.execute(
        _GIVE_CONFIRMATIONS,
        {"addresses": addresses, "holder": undo.holder, "leaves": undo.leaves},
    )
    return {name: len(ids) for name, ids in going.items()}


def _separate_identifiers(
    tx: Tx, undo: Undo, together: Replayed, stays: Replayed, leaves: Replayed
) -> None:
    unverified = set(undo.join.data["moved"].get("unverified", ()))
    changes: list[tuple[Any, ...]] = []
    for key, row in undo.identifiers.items():
        owner = undo.profile_of(undo.origin_of[key])
        part = leaves if owner == undo.leaves else stays
        expected = together.account.identifiers.get(key)
        alone = part.account.identifiers.get(key)
        retired_at = row["retired_at"]
        # A change that no statement made (a verified anonymous id) stays as it is.
        known = expected is not None and is_retired_row(expected) == is_retired_row(row)
        if known and alone is not None and is_retired_row(alone) != is_retired_row(row):
            retired_at = alone["retired_at"]
        joined = key[0] == "anonymous_id" and key[1] in unverified
        joined = joined and row["unverified_from"] == undo.join.from_id
        unverified_from = None if joined else row["unverified_from"]
        changes.append((*key, owner, retired_at, unverified_from))
    if changes:
        tx.conn.execute(_MOVE_IDENTIFIERS, {"changes": changes})


def _write_profiles(
    tx: Tx,
    undo: Undo,
    row: Mapping[str, Any],
    together: Replayed,
    stays: Replayed,
    leaves: Replayed,
) -> None:
    """Write both rows. What no statement said (a journey's update) goes to whom it was said of."""
    ours, theirs = stays.account.row, leaves.account.row
    expected = together.account.row
    whose = read_attribute_identifiers(row["attribute_identifiers"])
    for name in FIELDS:
        if row[name] != expected[name]:
            _change(undo, ours, theirs, whose.get(name), name, row)
    names = {*row["attributes"], *expected["attributes"]}
    for name in names:
        if row["attributes"].get(name) != expected["attributes"].get(name):
            _change(undo, ours, theirs, whose.get(attribute_key(name)), name, row, attribute=True)
    columns = [column.name for column in _DESCRIBED_BY if column.name != "created_at"]
    changed = (
        undo.holder,
        *(ours[name] for name in columns),
        stays.created_at,
        tx.now,
    )
    tx.conn.execute(_UPDATE_PROFILE, {"changed": [changed]})
    _INSERT_PROFILE(
        tx.conn,
        [
            (
                undo.leaves,
                *(theirs[name] for name in columns),
                leaves.created_at,
                tx.now,
                bucket_of(undo.leaves),
            )
        ],
    )


def _change(
    undo: Undo,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    said_of: Key | None,
    name: str,
    row: Mapping[str, Any],
    *,
    attribute: bool = False,
) -> None:
    origin = None if said_of is None else undo.origin_of.get(said_of)
    target = theirs if origin in undo.leaving else ours
    key = attribute_key(name) if attribute else name
    if attribute:
        values = dict(target["attributes"])
        values.pop(name, None)
        if name in row["attributes"]:
            values[name] = row["attributes"][name]
        target["attributes"] = values
    else:
        target[name] = row[name]
    times = dict(target["attribute_times"] or {})
    times.pop(key, None)
    if key in (row["attribute_times"] or {}):
        times[key] = row["attribute_times"][key]
    target["attribute_times"] = times
    identified = read_attribute_identifiers(target["attribute_identifiers"])
    identified.pop(key, None)
    if said_of is not None:
        identified[key] = said_of
    target["attribute_identifiers"] = stored_attribute_identifiers(identified)


def _restore_holdout(tx: Tx, undo: Undo, theirs: int, ours: int) -> None:
    """Whoever was not held out before the join is not held out any more."""
    if not held_among(tx, [undo.holder]):
        return
    note = undo.join.data["moved"].get("held_out")
    set_held(tx, {theirs: note is not None, ours: note is None or note["survivor_was"]})


def _without_people(moved: Mapping[str, Any]) -> dict[str, Any]:
    """What joins moved, without what names people: a record can outlive an erased customer."""
    return {name: value for name, value in moved.items() if name not in _NAMING}


def _separate_history(tx: Tx, undo: Undo, by: str) -> None:
    leaving = undo.leaving
    going = [
        record.id
        for record in undo.history
        if record.origin_id in leaving or (record.kind == "join" and set(record.edge) <= leaving)
    ]
    move_records(tx, going, undo.leaves)
    change_data(
        tx,
        {
            record.id: {**record.data, "moved": _without_people(record.data["moved"])}
            for record in undo.history
            if record.kind == "join"
        },
    )
    join = undo.join
    tx.conn.execute(_UNDONE, {"join": join.id, "now": tx.now, "by": by})
    tx.conn.execute(
        _KEEP_APART,
        {
            "join_id": join.id,
            "one_origin": join.edge[0],
            "other_origin": join.edge[1],
            "profile_id": undo.profile_of(join.edge[0]),
            "other_id": undo.profile_of(join.edge[1]),
        },
    )
    _separate_pairs(tx, undo)
    tx.conn.execute(_FORGET_MERGE, {"profile": undo.leaves})
    for profile_id, origins in ((undo.leaves, leaving), (undo.holder, undo.staying)):
        if merged := origins - {profile_id}:
            tx.conn.execute(_POINT, {"profiles": merged, "into": profile_id})


_k = kept_apart.c
_ONE_LEAVES = (
    update(kept_apart)
    .where(_k.profile_id == bindparam("holder", type_=BigInteger), any_of(_k.one_origin, "leaving"))
    .values(profile_id=bindparam("leaves", type_=BigInteger))
)
_OTHER_LEAVES = (
    update(kept_apart)
    .where(_k.other_id == bindparam("holder", type_=BigInteger), any_of(_k.other_origin, "leaving"))
    .values(other_id=bindparam("leaves", type_=BigInteger))
)


def _separate_pairs(tx: Tx, undo: Undo) -> None:
    given = {"holder": undo.holder, "leaves": undo.leaves, "leaving": undo.leaving}
    for statement in (_ONE_LEAVES, _OTHER_LEAVES):
        tx.conn.execute(statement, given)


def _tell_journeys(tx: Tx, undo: Undo) -> None:
    """Let journeys evaluate both profiles again."""
    changed = [
        NewEvent(
            profile_id=profile_id,
            name=PROFILE_CHANGED,
            occurred_at=tx.now,
            dedupe_key=f"undo of join {undo.join.id}",
            properties={},
        )
        for profile_id in (undo.holder, undo.leaves)
    ]
    record_events(tx, changed, worked=False)
