"""Merge two profiles of one customer: all rows of the first are moved to the second.

If an address joins them, only the parts in `UsableParts` become usable. The others are stored, but
not used. journeys/operations/merge.py moves the rows of journeys and channels and calls this
module.

`moved` in the record of the join (history.py) has what an undo needs (unmerge.py); the table
`merge` has `identifiers` and `withheld` of it:

- `identifiers`, `events`, `consent_records`, `enrollments`, `messages`, `past_messages`,
  `message_devices`: the keys of rows that moved
- `retired`: addresses that were in use before
- `unverified`: anonymous ids that were verified before
- `withheld`: addresses and opt-ins that the joining address does not make usable
- `events_dropped`: events that both profiles had
- `held_out`: it was in the holdout, and whether the profile that stays was before
- `profile`, `consents`, `preferences`: rows of the profile that is removed
- the same with `_before`: rows of the profile that stays, before this merge and those in the same
  transaction; only the first of these merges has them
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, column, delete, select, update

from config.clock.times import Instant
from config.database.arrays import InsertRows, any_of, one_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import bucket_turns
from profiles.attributes.latest import FIELDS, join_profiles
from profiles.bucketing import buckets_of
from profiles.consent.merge import merge_consents, merge_preferences
from profiles.consent.state import consent_statements, withdrawn
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import ONE_AT_A_TIME, is_in_use, is_retired
from profiles.identity.history import write_joins, write_starts
from profiles.identity.holdout import merge_holdout
from profiles.identity.mergers import (
    Merger,
    Notes,
    UsableParts,
    delete_rows,
    firsts,
    repoint,
    rows_by_profile,
)
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND, events, identifiers, kept_apart, merges, profiles

_ADDRESSES = frozenset(ADDRESS_KIND.values())

_e, _i, _p, _m = events.c, identifiers.c, profiles.c, merges.c
_LOCK_EVENTS = (
    select(_e.id)
    .where(any_of(_e.profile_id, "profiles"), in_buckets(_e.bucket))
    .order_by(_e.id)
    .with_for_update()
)
_EVENTS = select(_e.id, _e.profile_id, _e.dedupe_key).where(any_of(_e.profile_id, "profiles"))
_PAIRS = rows_of("pairs", _e.profile_id, _e.dedupe_key)
_EQUAL = select(_e.profile_id, _e.dedupe_key, _e.id).join(
    _PAIRS, (_e.profile_id == _PAIRS.c.profile_id) & (_e.dedupe_key == _PAIRS.c.dedupe_key)
)
_DROPPED = select(events).where(any_of(_e.id, "ids"))
_DROP = delete(events).where(any_of(_e.id, "ids"))
_IN_USE = select(_i.profile_id, _i.kind).where(
    any_of(_i.profile_id, "profiles"), one_of(_i.kind, ONE_AT_A_TIME), is_in_use()
)
_THEIRS = (
    select(
        *(_i.profile_id, _i.kind, _i.value, _i.retired_at, _i.unverified_from),
        is_retired().label("was_retired"),
    )
    .where(any_of(_i.profile_id, "profiles"))
    .order_by(_i.kind, _i.value)
)
_CHANGES = rows_of("changes", _i.kind, _i.value, _i.profile_id, _i.retired_at, _i.unverified_from)
_SET_ORIGINS = (
    update(identifiers)
    .where(any_of(_i.profile_id, "profiles"), _i.origin_id.is_(None))
    .values(origin_id=_i.profile_id)
)
_MOVE_IDENTIFIERS = (
    update(identifiers)
    .where(_i.kind == _CHANGES.c.kind, _i.value == _CHANGES.c.value)
    .values({name: _CHANGES.c[name] for name in ("profile_id", "retired_at", "unverified_from")})
)
# What `join_profiles` returns, and the earlier creation.
_DESCRIBED_BY = (*FIELDS, "attributes", "attribute_times", "attribute_identifiers", "created_at")
_JOINED = rows_of("joined", _p.id, *(_p[name] for name in _DESCRIBED_BY), _p.updated_at)
_UPDATE_PROFILES = (
    update(profiles)
    .where(_p.id == _JOINED.c.id)
    .values({column.name: column for column in _JOINED.c if column.name != "id"})
)
_ALL_IDENTIFIERS = (
    select(identifiers, is_in_use().label("in_use"))
    .where(any_of(_i.profile_id, "profiles"))
    .order_by(_i.seen_at, _i.value)
)
_ROWS = select(profiles).where(any_of(_p.id, "profiles"))
_JOINING = rows_of("joining", column("from_id", BigInteger), column("into_id", BigInteger))
_ONE_JOINS = (
    update(kept_apart)
    .where(kept_apart.c.profile_id == _JOINING.c.from_id)
    .values(profile_id=_JOINING.c.into_id)
)
_OTHER_JOINS = (
    update(kept_apart)
    .where(kept_apart.c.other_id == _JOINING.c.from_id)
    .values(other_id=_JOINING.c.into_id)
)
_INSERT_MERGES = InsertRows(_m.from_id, _m.into_id, _m.merged_at, _m.why, _m.moved)


def lock_events(tx: Tx, profile_ids: Collection[int]) -> None:
    """Lock the events of these profiles.

    Journeys lock events before anything else, so a merge must use the same order.
    """
    for buckets in bucket_turns(tx, buckets_of(profile_ids)):
        tx.conn.execute(_LOCK_EVENTS, {"profiles": profile_ids, "buckets": buckets})


def merge_profiles(
    tx: Tx, mergers: Sequence[Merger], moved: Mapping[int, Mapping[str, Any]]
) -> dict[int, int]:
    """Merge the tables of profiles. The profiles and their events must be locked.

    Parameters
    ----------
    mergers: no profile is both removed and merged into. The values of earlier ones win.
    moved: the keys that callers already moved, by the profile that they left; stored in the merge.

    Returns
    -------
    The ids of events that were dropped because both profiles had them, each with the id of the
    event that is kept.
    """
    notes = {merger.from_id: dict(moved.get(merger.from_id, {})) for merger in mergers}
    before = _before(tx, mergers)
    duplicates = _drop_duplicates(tx, mergers, notes)
    for from_id, keys in repoint(tx, events, mergers).items():
        notes[from_id]["events"] = keys
    _merge_identifiers(tx, mergers, notes)
    merge_consents(tx, mergers, notes)
    merge_preferences(tx, mergers, notes)
    merge_holdout(tx, mergers, notes)
    _merge_rows(tx, mergers, notes)
    _INSERT_MERGES(
        tx.conn,
        [
            (
                *(merger.from_id, merger.into_id, tx.now, merger.why),
                {name: notes[merger.from_id][name] for name in ("identifiers", "withheld")},
            )
            for merger in mergers
        ],
    )
    _write_history(tx, mergers, before, notes)
    changed = [
        NewEvent(
            profile_id=merger.into_id,
            name=PROFILE_CHANGED,
            occurred_at=tx.now,
            dedupe_key=f"merge of {merger.from_id}",
            properties={},
        )
        for merger in mergers
    ]
    record_events(tx, changed, worked=False)
    return duplicates


class _Before(NamedTuple):
    """What merges read before they change anything.

    identifiers: the rows of all these profiles. consents, rows: by profile.
    """

    identifiers: Sequence[Mapping[str, Any]]
    profiles: Mapping[int, Mapping[str, Any]]
    consents: Mapping[int, list[tuple[str, str, bool | None, Instant]]]

    def origin(self, key: Key, otherwise: int) -> int:
        """The profile that would have an identifier without any join."""
        for row in self.identifiers:
            if (row["kind"], row["value"]) == key:
                origin: int = row["origin_id"] or row["profile_id"]
                return origin
        return otherwise


def _before(tx: Tx, mergers: Sequence[Merger]) -> _Before:
    ids = {one for merger in mergers for one in (merger.from_id, merger.into_id)}
    found = tx.conn.execute(_ALL_IDENTIFIERS, {"profiles": ids}).mappings()
    consents: dict[int, list[tuple[str, str, bool | None, Instant]]] = {one: [] for one in ids}
    for one in {**withdrawn(tx, ids), **consent_statements(tx, ids)}.values():
        consents[one.profile_id].append((one.channel, one.topic, one.granted, one.changed_at))
    rows = tx.conn.execute(_ROWS, {"profiles": ids}).mappings()
    return _Before([dict(row) for row in found], {row["id"]: dict(row) for row in rows}, consents)


def _write_history(tx: Tx, mergers: Sequence[Merger], before: _Before, notes: Notes) -> None:
    """Record the joins, and what profiles that had none were before."""
    joined = {row["profile_id"] for row in before.identifiers if row["origin_id"] is not None}
    holders = {merger.into_id: merger.into_id for merger in mergers}
    holders |= {merger.from_id: merger.into_id for merger in mergers}
    starts: dict[int, tuple[int, dict[str, Any]]] = {}
    for profile_id in holders.keys() - joined:
        theirs = [row for row in before.identifiers if row["profile_id"] == profile_id]
        starts[profile_id] = (
            holders[profile_id],
            {
                "profile": before.profiles[profile_id],
                "identifiers": [{**row, "origin_id": profile_id} for row in theirs],
                "in_use": [
                    (row["kind"], row["value"])
                    for row in theirs
                    if row["kind"] in ONE_AT_A_TIME and row["in_use"]
                ],
                "consents": before.consents[profile_id],
            },
        )
    write_starts(tx, dict(sorted(starts.items())))
    edges: dict[int, tuple[int, int]] = {}
    for merger in mergers:
        edges[merger.from_id] = merger.from_id, merger.into_id
        if merger.via is not None:
            one, other = merger.via
            edge = before.origin(one, merger.from_id), before.origin(other, merger.into_id)
            if edge[0] != edge[1]:
                edges[merger.from_id] = edge
    write_joins(tx, mergers, edges, notes)
    joining = [(merger.from_id, merger.into_id) for merger in mergers]
    for statement in (_ONE_JOINS, _OTHER_JOINS):
        tx.conn.execute(statement, {"joining": joining})


def _drop_duplicates(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> dict[int, int]:
    """Keep one of several equal events: of the profile that stays, else of the first merger."""
    into = {merger.from_id: merger.into_id for merger in mergers}
    places = {merger.from_id: place for place, merger in enumerate(mergers)}
    rows = sorted(
        tx.conn.execute(_EVENTS, {"profiles": into}),
        key=lambda row: (places[row.profile_id], row.id),
    )
    first: dict[tuple[int, str], int] = {}
    pairs = sorted({(into[row.profile_id], row.dedupe_key) for row in rows})
    for profile_id, dedupe_key, event_id in tx.conn.execute(_EQUAL, {"pairs": pairs}):
        first[profile_id, dedupe_key] = event_id
    duplicates: dict[int, int] = {}
    for row in rows:
        kept = first.setdefault((into[row.profile_id], row.dedupe_key), row.id)
        if kept != row.id:
            duplicates[row.id] = kept
    if duplicates:
        for event in tx.conn.execute(_DROPPED, {"ids": duplicates}).mappings():
            notes[event["profile_id"]].setdefault("events_dropped", []).append(dict(event))
        tx.conn.execute(_DROP, {"ids": duplicates})
    return duplicates


def _merge_identifiers(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> None:
    """Give all identifiers to the profile that stays.

    Its own e-mail address and phone number stay in use; the others are retired. A call that states
    one of the others puts it into use afterwards.
    """
    ids = {one for merger in mergers for one in (merger.from_id, merger.into_id)}
    has = {(row.profile_id, row.kind) for row in tx.conn.execute(_IN_USE, {"profiles": ids})}
    theirs: dict[int, list[Any]] = {merger.from_id: [] for merger in mergers}
    for row in tx.conn.execute(_THEIRS, {"profiles": theirs}):
        theirs[row.profile_id].append(row)
    changes: list[tuple[Any, ...]] = []
    for merger in mergers:
        share = merger.share
        retired: list[Key] = []
        withheld: list[Key] = []
        unverified: list[str] = []
        for row in theirs[merger.from_id]:
            key: Key = (row.kind, row.value)
            if share is not None and row.kind in _ADDRESSES and key not in share.addresses:
                withheld.append(key)
            retired_at, unverified_from = row.retired_at, row.unverified_from
            replaced = (merger.into_id, row.kind) in has
            if not row.was_retired and (replaced or key in withheld):
                retired_at = tx.now
                retired.append(key)
            silent = share is not None and not share.verified
            if unverified_from is None and silent and row.kind == "anonymous_id":
                unverified_from = merger.from_id
                unverified.append(row.value)
            changes.append((*key, merger.into_id, retired_at, unverified_from))
        kept = {row.kind for row in theirs[merger.from_id] if not row.was_retired} - {
            kind for kind, _ in retired
        }
        has |= {(merger.into_id, kind) for kind in kept.intersection(ONE_AT_A_TIME)}
        notes[merger.from_id] |= {
            "identifiers": [(row.kind, row.value) for row in theirs[merger.from_id]],
            "retired": retired,
            "unverified": unverified,
            "withheld": {"addresses": withheld},
        }
    tx.conn.execute(_SET_ORIGINS, {"profiles": ids})
    if changes:
        tx.conn.execute(_MOVE_IDENTIFIERS, {"changes": changes})


def _merge_rows(tx: Tx, mergers: Sequence[Merger], notes: Notes) -> None:
    """Merge attributes and fields. The values of the profile that stays win, whatever their
    times."""
    known = rows_by_profile(tx, profiles, mergers)
    now: dict[int, dict[str, Any]] = {}
    for merger in firsts(mergers):
        [now[merger.into_id]] = known[merger.into_id]
        notes[merger.from_id]["profile_before"] = now[merger.into_id]
    for merger in mergers:
        [theirs], ours = known[merger.from_id], now[merger.into_id]
        notes[merger.from_id]["profile"] = theirs
        now[merger.into_id] = {
            **join_profiles(ours, _with_shared_times(theirs, merger.share)),
            "created_at": min(theirs["created_at"], ours["created_at"]),
        }
    rows = [
        (profile_id, *(row[name] for name in _DESCRIBED_BY), tx.now)
        for profile_id, row in now.items()
    ]
    tx.conn.execute(_UPDATE_PROFILES, {"joined": rows})
    delete_rows(tx, profiles, [row for merger in mergers for row in known[merger.from_id]])


def _with_shared_times(row: dict[str, Any], share: UsableParts | None) -> dict[str, Any]:
    """The profile's row without the times of addresses that do not become usable."""
    if share is None:
        return row
    shared = {kind for kind, _ in share.addresses}
    times = (row["attribute_times"] or {}).items()
    kept = {name: at for name, at in times if name in shared or name not in ONE_AT_A_TIME}
    return {**row, "attribute_times": kept}
