"""Find the profiles of calls, and merge those that the calls join."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import BigInteger, bindparam, case, func, select, tuple_, update

from config.clock.times import Instant
from config.database.arrays import any_of, one_of, rows_of
from config.database.engine import Tx
from config.join_rules import JoinKind, JoinRules
from profiles.bulk import lock_profiles
from profiles.calls.limits import STATED_IN, LimitHit
from profiles.calls.resolve import OnRecord, join
from profiles.calls.segment_calls import SegmentCall
from profiles.identity.addresses import is_in_use
from profiles.identity.holdout import follow_joins
from profiles.identity.mergers import Merger
from profiles.identity.owners import (
    Holder,
    held_owners_of,
    hold_settled_owners,
    holders_of,
    lock_identities,
    owners_among,
    owners_of,
)
from profiles.identity.person import Key
from profiles.identity.upsert import new_profile
from profiles.identity.verification import verify
from profiles.rules import InputRules
from profiles.tables import ADDRESS_KIND, events, identifiers, kept_apart

_i, _e = identifiers.c, events.c
# Before every instant.
_EVER: Instant = -(2**60)
_theirs = any_of(_i.profile_id, "profiles")
_counts_since = case(
    *((_i.kind == kind, bindparam(f"{kind}_since", type_=BigInteger)) for kind in STATED_IN)
)
_counting = func.count().filter(func.coalesce(_i.added_at, _i.seen_at) > _counts_since)
_COUNTS = (
    select(_i.profile_id, _i.kind, func.count().label("number"), _counting.label("counting"))
    .where(_theirs)
    .group_by(_i.profile_id, _i.kind)
)
_ADDRESSES = select(_i.profile_id, _i.kind, _i.value, is_in_use().label("in_use")).where(
    _theirs, one_of(_i.kind, tuple(ADDRESS_KIND.values()))
)
_k = kept_apart.c
_APART = select(_k.profile_id, _k.other_id).where(
    any_of(_k.profile_id, "profiles"), any_of(_k.other_id, "profiles")
)
_KEYS = rows_of("keys", _i.kind, _i.value)
_RELEASE = (
    update(identifiers)
    .where(tuple_(_i.kind, _i.value).in_(select(_KEYS)))
    .values(retired_at=bindparam("now"), unverified_from=None)
)
_PAIRS = rows_of("pairs", _e.profile_id, _e.dedupe_key)
_RECORDED = select(_e.profile_id, _e.dedupe_key).join(
    _PAIRS, (_e.profile_id == _PAIRS.c.profile_id) & (_e.dedupe_key == _PAIRS.c.dedupe_key)
)


class MergeProfiles(Protocol):
    """Merges profiles in all tables (journeys/operations/merge.py)."""

    def __call__(
        self,
        tx: Tx,
        mergers: Sequence[Merger],
        *,
        also_lock: Collection[int] = (),
        later: Collection[int] = (),
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallProfiles:
    """The profiles of the calls, which are locked. Other fields are as in `Joined`.

    keys: the identifiers of each call, the one that it is about first. again: places of repeated
    calls.
    """

    keys: Sequence[Sequence[Key]]
    owners: Mapping[Key, int]
    again: Collection[int]
    events_only: Collection[int]
    foreign: Mapping[int, set[Key]] = field(default_factory=dict)
    same: Sequence[set[Key]] = ()
    filling: Collection[int] = ()
    unverified: Collection[Key] = ()
    hits: Mapping[int, Sequence[LimitHit]] = field(default_factory=dict)
    stopped_at: int | None = None

    def takes_all_of(self, place: int) -> bool:
        """Whether all that a call states is recorded, not only its event."""
        return not any(place in some for some in (self.again, self.events_only, self.filling))

    def owner_of(self, keys: Sequence[Key]) -> int | None:
        """The one profile that has all these identifiers; None if there is none."""
        return _one_owner(keys, self.owners)


def find_profiles(
    tx: Tx, calls: Sequence[SegmentCall], merge: MergeProfiles, rules: InputRules
) -> CallProfiles:
    """Find the profiles of the calls, and merge those that the calls join. Locks the profiles."""
    keys_by_place = [call.keys for call in calls]
    named = [(place, key) for place, keys in enumerate(keys_by_place) for key in keys]
    confirmed = rules.double_opt_in
    dependent = bool(confirmed) and any(call.depends_on_address(confirmed) for call in calls)
    # SQLite has no locks of rows, and Citus can't join profiles in other buckets.
    if not tx.is_sqlite and not tx.distributed and not dependent:
        settled = hold_settled_owners(tx, named)
        if settled is not None:
            again = _again(tx, _describing(calls), keys_by_place, settled)
            return CallProfiles(keys=keys_by_place, owners=settled, again=again, events_only=())
    every = {key for _, key in named}
    holders = holders_of(tx, every)
    unverified = {key for key, holder in holders.items() if holder.unverified}
    events_only = {
        place
        for place, call in enumerate(calls)
        if unverified and _only_adds_an_event(call, unverified)
    }
    # A call joins and verifies nothing if one profile has all its identifiers, and none of them is
    # retired or unverified.
    settled = {
        key: holder.profile_id
        for key, holder in holders.items()
        if not (holder.retired or holder.unverified)
    }
    if not dependent and all(
        _one_owner(keys, settled) is not None
        for place, keys in enumerate(keys_by_place)
        if place not in events_only
    ):
        owners = owners_among(holders)
        held = held_owners_of(tx, every, owners)
        if held == owners:
            again = _again(tx, _describing(calls), keys_by_place, held)
            return CallProfiles(
                keys=keys_by_place, owners=held, again=again, events_only=events_only
            )
    lock_identities(tx)
    holders = holders_of(tx, every)
    owners = owners_among(holders)
    profile_ids = set(owners.values())
    again = _again(tx, enumerate(calls), keys_by_place, owners)
    new = {place: call for place, call in enumerate(calls) if place not in again}
    joined = join(
        new,
        _on_record(tx, holders, rules.joins),
        rules.join_on,
        lambda: new_profile(tx),
        rules.double_opt_in,
        rules.joins,
    )
    later = () if joined.stopped_at is None else profile_ids
    if joined.mergers or later:
        merge(tx, joined.mergers, also_lock=profile_ids, later=later)
        follow_joins(tx, rules.holdout, {merger.into_id for merger in joined.mergers})
    else:
        lock_profiles(tx, profile_ids)
    if joined.confirmed:
        verify(tx, {value for _, value in joined.confirmed})
    if joined.released:
        _release(tx, joined.released)
    return CallProfiles(
        keys=[_from(joined.about.get(place), keys) for place, keys in enumerate(keys_by_place)],
        owners=owners_of(tx, every),
        again=again,
        events_only=joined.events_only,
        foreign=joined.foreign,
        same=joined.people,
        filling=joined.filling,
        unverified=joined.unverified,
        hits=joined.hits,
        stopped_at=joined.stopped_at,
    )


def _from(about: Key | None, keys: Sequence[Key]) -> Sequence[Key]:
    """The identifiers of a call without the first one, if it is about another one."""
    return keys if about is None else [about, *(key for key in keys[1:] if key != about)]


def _only_adds_an_event(call: SegmentCall, unverified: Collection[Key]) -> bool:
    """Whether the call names an unverified anonymous id without proof of its owner."""
    anonymous: Key = ("anonymous_id", call.person.anonymous_id or "")
    return anonymous in unverified and not call.person.proofs


def _one_owner(keys: Sequence[Key], owners: Mapping[Key, int]) -> int | None:
    """The one profile that has all these identifiers; None if there is none."""
    if len(keys) == 1:
        return owners.get(keys[0])
    found = {owners.get(key) for key in keys}
    return found.pop() if len(found) == 1 else None


def _on_record(tx: Tx, holders: Mapping[Key, Holder], rules: JoinRules) -> OnRecord:
    """The data that `join` needs about the profiles of the calls."""
    owners = owners_among(holders)
    theirs = {"profiles": set(owners.values())}
    users: set[int] = set()
    sizes: dict[int, int] = defaultdict(int)
    counting: dict[int, dict[str, int]] = defaultdict(dict)
    since = _counted_since(rules, tx.now)
    for row in tx.rows(_COUNTS, {**theirs, **{f"{kind}_since": at for kind, at in since.items()}}):
        sizes[row.profile_id] += row.number
        counting[row.profile_id][row.kind] = row.counting
        if row.kind == "user_id":
            users.add(row.profile_id)
    addresses: dict[int, dict[Key, bool]] = {}
    for row in tx.rows(_ADDRESSES, theirs):
        addresses.setdefault(row.profile_id, {})[row.kind, row.value] = row.in_use
    unverified = {key for key, holder in holders.items() if holder.unverified}
    apart: set[frozenset[int]] = set()
    if len(theirs["profiles"]) > 1:
        apart = {frozenset(row) for row in tx.rows(_APART, theirs)}
    return OnRecord(
        owners=owners,
        unverified=unverified,
        users=users,
        addresses=addresses,
        sizes=sizes,
        counting=counting,
        apart=apart,
        uncounted={key for key, one in holders.items() if one.added_at <= since[key[0]]},
    )


def _counted_since(rules: JoinRules, now: Instant) -> dict[JoinKind, Instant]:
    """For each kind the instant after which identifiers count."""
    since: dict[JoinKind, Instant] = {}
    for kind in STATED_IN:
        limit = rules.limits.get(kind)
        since[kind] = _EVER if limit is None or limit.within is None else now - limit.within
    return since


def _release(tx: Tx, keys: Collection[Key]) -> None:
    """Take identifiers from their profiles. Whoever states them next takes over their rows."""
    tx.write(_RELEASE, {"keys": sorted(keys), "now": tx.now})


def _describing(calls: Sequence[SegmentCall]) -> Iterator[tuple[int, SegmentCall]]:
    """The calls that change a profile, events with such context included.

    Other events need no check for repeats: the database stores each event once.
    """
    return (
        (place, call)
        for place, call in enumerate(calls)
        if call.describes_person or call.person.has_details
    )


def _again(
    tx: Tx,
    calls: Iterable[tuple[int, SegmentCall]],
    keys: Sequence[Sequence[Key]],
    owners: Mapping[Key, int],
) -> set[int]:
    """The places of repeated calls. keys: the identifiers of each call by its place.

    A repeated call must not undo later changes of profiles or of who has an identifier.
    """
    places: dict[tuple[int, str], list[int]] = {}
    again: set[int] = set()
    before: set[tuple[Key, str]] = set()
    for place, call in calls:
        first, dedupe_key = keys[place][0], call.dedupe_key(tx.now)
        if (first, dedupe_key) in before:
            again.add(place)
        before.add((first, dedupe_key))
        # A limit of joins can leave out the first identifier, unless it is a user id.
        for key in keys[place] if first[0] == "anonymous_id" else (first,):
            if key in owners:
                places.setdefault((owners[key], dedupe_key), []).append(place)
    if places:
        for profile_id, dedupe_key in tx.rows(_RECORDED, {"pairs": list(places)}):
            again.update(places[profile_id, dedupe_key])
    return again
