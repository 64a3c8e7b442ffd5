"""Record Segment's calls: find, create and merge profiles, and store each event once."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import bindparam, func, select, tuple_, update

from config.database.arrays import any_of, one_of, rows_of
from config.database.engine import Tx
from profiles.attributes.companies import GROUP_ID, CompanyStatement, record_companies
from profiles.attributes.latest import FIELDS, attribute_key
from profiles.bulk import lock_profiles
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.addresses import is_in_use
from profiles.identity.mergers import Merger
from profiles.identity.person import Key, Person, excerpt
from profiles.identity.resolve import OnRecord, depends_on_address, join, keys_of, proofs_of
from profiles.identity.segment_calls import CallRefused, SegmentCall
from profiles.identity.upsert import (
    Holder,
    held_owners_of,
    hold_settled_owners,
    holders_of,
    lock_identities,
    new_profile,
    owners_of,
    upsert_people,
)
from profiles.identity.verification import verify
from profiles.rules import DEFAULT_RULES, InputRules
from profiles.tables import ADDRESS_KIND, events, identifiers, profiles

_i, _p, _e = identifiers.c, profiles.c, events.c
_theirs = any_of(_i.profile_id, "profiles")
_COUNTS = (
    select(_i.profile_id, _i.kind, func.count().label("number"))
    .where(_theirs)
    .group_by(_i.profile_id, _i.kind)
)
_ADDRESSES = select(_i.profile_id, _i.kind, _i.value, is_in_use().label("in_use")).where(
    _theirs, one_of(_i.kind, tuple(ADDRESS_KIND.values()))
)
_KEYS = rows_of("keys", _i.kind, _i.value)
_RELEASE = (
    update(identifiers)
    .where(tuple_(_i.kind, _i.value).in_(select(_KEYS)))
    .values(retired_at=bindparam("now"), unverified_from=None)
)
_UNVERIFY = (
    update(identifiers)
    .where(_i.kind == "anonymous_id", any_of(_i.value, "anonymous"), _i.unverified_from.is_(None))
    .values(unverified_from=0)
)
_KNOWN_VALUES = select(
    _p.id, _p.country, _p.timezone, _p.language, _p.attributes, _p.attribute_times
).where(any_of(_p.id, "profiles"))
_PAIRS = rows_of("pairs", _e.profile_id, _e.dedupe_key)
_RECORDED = select(_e.profile_id, _e.dedupe_key).join(
    _PAIRS, (_e.profile_id == _PAIRS.c.profile_id) & (_e.dedupe_key == _PAIRS.c.dedupe_key)
)
SOURCE = "segment"
# After a stop the next part has this many calls plus twice the previous part, so that many stops
# stay linear.
_FEWEST = 20
_UNVERIFIED = (
    "all but the event is left out: an address that is not verified joined this anonymousId to its "
    "customer. Send the userId or a verified address with it"
)
_ANOTHER_JOINED = (
    "another address in the call, which is not verified, joined this anonymousId to its customer"
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


@dataclass(slots=True)
class Outcome:
    """The result of a call: messages about what was ignored, or why the call was refused."""

    warnings: list[str]
    refused: CallRefused | None = None


def take_calls(
    tx: Tx,
    calls: Sequence[SegmentCall],
    merge: MergeProfiles,
    rules: InputRules = DEFAULT_RULES,
) -> list[Outcome]:
    """Record calls in their order. A repeated call changes nothing.

    The changes of a call are written before a later call merges that profile into another one, so
    the calls may be written in several parts.

    Call it at most once per transaction, before any other lock.
    """

    companies: dict[int, CompanyStatement] = {}

    def write(start: int, some: Sequence[SegmentCall]) -> list[Outcome]:
        who = _settle(tx, some, merge, rules)
        some = some[: who.stopped_at]
        outcomes = _write(tx, some, who, rules)
        for place, call in enumerate(some):
            taken = outcomes[place].refused is None and who.takes_all_of(place)
            if call.company_traits and taken:
                company_id, at = call.person.attributes[GROUP_ID], call.occurred_at(tx.now)
                companies[start + place] = CompanyStatement(company_id, call.company_traits, at)
        return outcomes

    outcomes = write(0, calls)
    taken = len(outcomes)
    while len(outcomes) < len(calls):
        some = calls[len(outcomes) : len(outcomes) + _FEWEST + 2 * taken]
        written = write(len(outcomes), some)
        taken = len(written)
        outcomes += written
    left_out = record_companies(tx, list(companies.values()), rules.limits.attributes)
    for place, one in companies.items():
        outcomes[place].warnings += [
            f"the trait {excerpt(name)} is left out: with it the company would have more than "
            f"{rules.limits.attributes} bytes of traits; remove others first"
            for name in left_out.get(one.company_id, ())
            if name in one.traits
        ]
    return outcomes


def _write(
    tx: Tx,
    calls: Sequence[SegmentCall],
    who: "_Who",
    rules: InputRules,
) -> list[Outcome]:
    """Record calls whose profiles are known."""
    outcomes = [Outcome([*call.warnings]) for call in calls]
    profile_ids: dict[int, int] = {}  # by the place of the call
    changing: dict[int, int] = {}  # place of the call -> place in `people`
    people: list[Person] = []
    filling = _filling(tx, calls, who)
    for place, call in enumerate(calls):
        if place in who.again:
            continue
        person = call.person
        warnings: list[str] = []
        if place in filling:
            person, warnings = filling[place]
        elif place in who.events_only:
            person = Person(anonymous_id=person.anonymous_id)
            warnings = [_UNVERIFIED] if call.person.has_details else []
        elif place in who.foreign:
            person, warnings = _without(person, who.foreign[place])
        outcomes[place].warnings += warnings
        owner = who.owner_of(person.keys)
        if owner is not None and not person.has_details:
            profile_ids[place] = owner
        else:
            changing[place] = len(people)
            people.append(person._replace(seen_at=call.occurred_at(tx.now)))
        if call.previous_id is not None:
            previous: Key = ("anonymous_id", call.previous_id)
            if any(previous in group for group in who.same):
                people.append(Person(anonymous_id=call.previous_id))
    report = upsert_people(
        tx,
        people,
        SOURCE,
        same=who.same,
        owners=who.owners,
        topics_too=True,
        in_turn=True,
        rules=rules,
    )
    _note_unverified(tx, who.unverified)
    for place, index in changing.items():
        profile_id = report.profile_ids[index]
        if profile_id is None:
            outcomes[place].refused = CallRefused("", report.refused[index])
        else:
            profile_ids[place] = profile_id
            outcomes[place].warnings += report.left_out.get(index, ())
    new = [
        NewEvent(
            profile_id=profile_ids[place],
            name=call.event,
            occurred_at=call.occurred_at(tx.now),
            dedupe_key=call.dedupe_key(tx.now),
            properties=call.properties,
            waited=call.waited,
            identifier=who.keys[place][0],
        )
        for place, call in enumerate(calls)
        if place in profile_ids
    ]
    # An event whose context also changes the profile adds PROFILE_CHANGED, so that journeys
    # evaluate the profile's conditions again.
    changed = [
        NewEvent(
            profile_id=profile_ids[place],
            name=PROFILE_CHANGED,
            occurred_at=tx.now,
            dedupe_key=f"{calls[place].dedupe_key(tx.now)} changed the profile",
            properties={},
            identifier=who.keys[place][0],
        )
        for place, index in changing.items()
        if index in report.effective
        and not calls[place].describes_person
        and people[index].has_details
    ]
    record_events(tx, [*new, *changed], worked=False)
    return outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Who:
    """The profiles of the calls, which are locked. Other fields are as in `Joined`.

    keys: the identifiers of each call. again: places of repeated calls.
    """

    keys: Sequence[Sequence[Key]]
    owners: Mapping[Key, int]
    again: Collection[int]
    events_only: Collection[int]
    foreign: Mapping[int, set[Key]] = field(default_factory=dict)
    same: Sequence[set[Key]] = ()
    filling: Collection[int] = ()
    unverified: Collection[Key] = ()
    stopped_at: int | None = None

    def takes_all_of(self, place: int) -> bool:
        """Whether all that a call states is recorded, not only its event."""
        return not any(place in some for some in (self.again, self.events_only, self.filling))

    def owner_of(self, keys: Sequence[Key]) -> int | None:
        """The one profile that has all these identifiers; None if there is none."""
        if len(keys) == 1:
            return self.owners.get(keys[0])
        found = {self.owners.get(key) for key in keys}
        return found.pop() if len(found) == 1 else None


def _settle(tx: Tx, calls: Sequence[SegmentCall], merge: MergeProfiles, rules: InputRules) -> _Who:
    """Find the profiles of the calls, and merge those that the calls join. Locks the profiles."""
    keys_by_place = [keys_of(call) for call in calls]
    named = [(place, key) for place, keys in enumerate(keys_by_place) for key in keys]
    dependent = any(depends_on_address(call.person, rules.double_opt_in) for call in calls)
    # SQLite has no locks of rows, and Citus can't join profiles in other buckets.
    if not tx.is_sqlite and not tx.distributed and not dependent:
        settled = hold_settled_owners(tx, named)
        if settled is not None:
            again = _again(tx, _describing(calls), keys_by_place, settled)
            return _Who(keys=keys_by_place, owners=settled, again=again, events_only=())
    every = {key for _, key in named}
    holders = holders_of(tx, every)
    unverified = {key for key, holder in holders.items() if holder.unverified}
    events_only = {
        place
        for place, call in enumerate(calls)
        if unverified and _only_adds_an_event(call, unverified)
    }
    if not dependent and not any(
        _unsettled(keys, holders)
        for place, keys in enumerate(keys_by_place)
        if place not in events_only
    ):
        owners = _owners(holders)
        held = held_owners_of(tx, every, owners)
        if held == owners:
            again = _again(tx, _describing(calls), keys_by_place, held)
            return _Who(keys=keys_by_place, owners=held, again=again, events_only=events_only)
    lock_identities(tx)
    holders = holders_of(tx, every)
    owners = _owners(holders)
    profile_ids = set(owners.values())
    again = _again(tx, enumerate(calls), keys_by_place, owners)
    new = {place: call for place, call in enumerate(calls) if place not in again}
    joined = join(
        new,
        _on_record(tx, holders),
        rules.join_on,
        lambda: new_profile(tx),
        rules.double_opt_in,
    )
    later = () if joined.stopped_at is None else profile_ids
    if joined.mergers or later:
        merge(tx, joined.mergers, also_lock=profile_ids, later=later)
    else:
        lock_profiles(tx, profile_ids)
    if joined.confirmed:
        verify(tx, {value for _, value in joined.confirmed})
    if joined.released:
        _release(tx, joined.released)
    return _Who(
        keys=keys_by_place,
        owners=owners_of(tx, every),
        again=again,
        events_only=joined.events_only,
        foreign=joined.foreign,
        same=joined.people,
        filling=joined.filling,
        unverified=joined.unverified,
        stopped_at=joined.stopped_at,
    )


def _owners(holders: Mapping[Key, Holder]) -> dict[Key, int]:
    """As `owners_of`: retired addresses have no owner."""
    return {key: holder.profile_id for key, holder in holders.items() if not holder.retired}


def _only_adds_an_event(call: SegmentCall, unverified: Collection[Key]) -> bool:
    """Whether the call names an unverified anonymous id without proof of its owner."""
    anonymous: Key = ("anonymous_id", call.person.anonymous_id or "")
    return anonymous in unverified and not proofs_of(call.person)


def _unsettled(keys: Sequence[Key], holders: Mapping[Key, Holder]) -> bool:
    """Whether a call with these identifiers can join or verify some.

    It cannot if one profile has all of them and none is retired or unverified.
    """
    whose: int | None = None
    for key in keys:
        holder = holders.get(key)
        if holder is None or holder.retired or holder.unverified:
            return True
        if whose is not None and holder.profile_id != whose:
            return True
        whose = holder.profile_id
    return False


def _on_record(tx: Tx, holders: Mapping[Key, Holder]) -> OnRecord:
    """The data that `join` needs about the profiles of the calls."""
    owners = _owners(holders)
    theirs = {"profiles": set(owners.values())}
    users: set[int] = set()
    sizes: dict[int, int] = defaultdict(int)
    for row in tx.conn.execute(_COUNTS, theirs):
        sizes[row.profile_id] += row.number
        if row.kind == "user_id":
            users.add(row.profile_id)
    addresses: dict[int, dict[Key, bool]] = {}
    for row in tx.conn.execute(_ADDRESSES, theirs):
        addresses.setdefault(row.profile_id, {})[row.kind, row.value] = row.in_use
    unverified = {key for key, holder in holders.items() if holder.unverified}
    return OnRecord(
        owners=owners, unverified=unverified, users=users, addresses=addresses, sizes=sizes
    )


def _release(tx: Tx, keys: Collection[Key]) -> None:
    """Take identifiers from their profiles. Whoever states them next takes over their rows."""
    tx.conn.execute(_RELEASE, {"keys": sorted(keys), "now": tx.now})


def _note_unverified(tx: Tx, keys: Collection[Key]) -> None:
    """Mark stored anonymous ids as unverified: an unverified address joined them to a profile."""
    if keys:
        tx.conn.execute(_UNVERIFY, {"anonymous": [value for _, value in keys]})


def _filling(
    tx: Tx, calls: Sequence[SegmentCall], who: _Who
) -> dict[int, tuple[Person, list[str]]]:
    """What calls add to a customer to whom an unverified address joined their anonymous id.

    Returns by place the values that the profile does not have yet, and a warning for each address
    that is ignored.
    """
    places: dict[int, int] = {}
    for place in who.filling:
        anonymous: Key = ("anonymous_id", calls[place].person.anonymous_id or "")
        [group] = [group for group in who.same if anonymous in group]
        places[place] = next(who.owners[key] for key in group if key in who.owners)
    if not places:
        return {}
    rows = tx.conn.execute(_KNOWN_VALUES, {"profiles": places.values()}).mappings()
    known = {row["id"]: row for row in rows}
    filling: dict[int, tuple[Person, list[str]]] = {}
    for place, profile_id in places.items():
        said, row = calls[place].person, known[profile_id]
        times = row["attribute_times"] or {}
        left_out = {
            key
            for key in said.keys
            if key[0] != "anonymous_id" and who.owners.get(key) != profile_id
        }
        _, warnings = _without(said, left_out, _ANOTHER_JOINED)
        person = Person(
            anonymous_id=said.anonymous_id,
            **{
                name: getattr(said, name)
                for name in FIELDS
                if row[name] is None and name not in times
            },
            attributes={
                name: value
                for name, value in said.attributes.items()
                if name not in row["attributes"] and attribute_key(name) not in times
            },
            consent={key: granted for key, granted in said.consent.items() if not granted},
        )
        filling[place] = person, warnings
    return filling


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
        if first in owners:
            places.setdefault((owners[first], dedupe_key), []).append(place)
    if places:
        for profile_id, dedupe_key in tx.conn.execute(_RECORDED, {"pairs": list(places)}):
            again.update(places[profile_id, dedupe_key])
    return again


def _without(
    person: Person, keys: Collection[Key], why: str = "it belongs to another customer"
) -> tuple[Person, list[str]]:
    """The person without some identifiers, and a warning for each of their kinds."""
    if not keys:
        return person, []
    left_out = {kind for kind, _ in keys}
    changed = person._replace(
        anonymous_id=None if "anonymous_id" in left_out else person.anonymous_id,
        email=None if "email" in left_out else person.email,
        phone=None if "phone" in left_out else person.phone,
        push_tokens={
            token: platform
            for token, platform in person.push_tokens.items()
            if ("push_token", token) not in keys
        },
    )
    fields = {
        "anonymous_id": "anonymousId",
        "email": "traits.email",
        "phone": "traits.phone",
        "push_token": "context.device.token",
    }
    warnings = [f"{field} is left out: {why}" for kind, field in fields.items() if kind in left_out]
    return changed, warnings
