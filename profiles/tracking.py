"""Segment's calls, written down: people found, made and joined; what they did, each event once."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from sqlalchemy import delete, select, tuple_

from config.database import Tx
from profiles.account import LIMITS, Limits
from profiles.bulk import in_slices, lock_profiles
from profiles.calls import Call, CallRefused
from profiles.confirming import NO_TOPICS
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity import (
    held_owners_of,
    owners_of,
    settled_owners_of,
    upsert_people,
    users_of,
)
from profiles.joining import join, keys_of
from profiles.merging import Merger
from profiles.person import Key, Person
from profiles.tables import events, identifiers

SOURCE = "segment"


class Merge(Protocol):
    """How two profiles become one, in every journey too: journeys/merging.py has it."""

    def __call__(
        self, tx: Tx, mergers: Sequence[Merger], *, also_lock: Collection[int] = ()
    ) -> None: ...


@dataclass(slots=True)
class Outcome:
    """What became of a call: what was left out of it, or why it was not taken at all."""

    warnings: list[str]
    refused: CallRefused | None = None


def take_calls(
    tx: Tx,
    calls: Sequence[Call],
    merge: Merge,
    limits: Limits = LIMITS,
    double_opt_in: Mapping[str, str] = NO_TOPICS,
) -> list[Outcome]:
    """Write down what the calls say, in their order; the same call again changes nothing.

    Once a transaction, and before anything else is locked in it. `double_opt_in` is
    `Policy.double_opt_in`.
    """
    who = _settle(tx, calls, merge)
    outcomes = [Outcome(list(call.warnings)) for call in calls]
    profile_ids: dict[int, int] = {}  # by the place of the call
    changing: dict[int, int] = {}  # place of the call -> place among the people
    people: list[Person] = []
    for place, call in enumerate(calls):
        if place in who.again:
            continue
        person, warnings = _without(call.person, who.foreign.get(place, set()))
        outcomes[place].warnings += warnings
        owner = who.owner_of(person)
        if owner is not None and not _tells_anything(person):
            profile_ids[place] = owner
        else:
            changing[place] = len(people)
            people.append(replace(person, seen_at=call.occurred_at(tx.now)))
        previous: Key = ("anonymous_id", call.previous_id or "")
        if any(previous in group for group in who.same):
            people.append(Person(anonymous_id=call.previous_id))
    report = upsert_people(
        tx,
        people,
        SOURCE,
        same=who.same,
        owners=who.owners,
        limits=limits,
        topics_too=True,
        double_opt_in=double_opt_in,
    )
    for place, index in changing.items():
        profile_id = report.profile_ids[index]
        if profile_id is None:
            outcomes[place].refused = CallRefused("", report.refused[index])
        else:
            profile_ids[place] = profile_id
            outcomes[place].warnings += report.left_out.get(index, ())
    new = [
        NewEvent(
            profile_ids[place],
            call.event,
            call.occurred_at(tx.now),
            call.dedupe_key(tx.now),
            dict(call.properties),
            call.waited,
        )
        for place, call in enumerate(calls)
        if place in profile_ids
    ]
    # What happened shows in its context what else is new of the person: journeys look again.
    changed = [
        NewEvent(
            profile_ids[place],
            PROFILE_CHANGED,
            tx.now,
            f"{calls[place].dedupe_key(tx.now)} changed the profile",
            {},
        )
        for place, index in changing.items()
        if index in report.told_more
        and not calls[place].tells_of_person
        and _tells_anything(people[index])
    ]
    record_events(tx, [*new, *changed], worked=False)
    return outcomes


class _Who(NamedTuple):
    """Whom the calls are about; the profiles are locked. The rest is as in `Joined`."""

    owners: Mapping[Key, int]
    foreign: Mapping[int, set[Key]]
    same: Sequence[set[Key]]
    again: Collection[int]  # places of calls that came before

    def owner_of(self, person: Person) -> int | None:
        """The one profile that has all the person's identifiers already."""
        found = {self.owners.get(key) for key, _ in person.identifiers()}
        return found.pop() if len(found) == 1 else None


def _settle(tx: Tx, calls: Sequence[Call], merge: Merge) -> _Who:
    """Find out whom the calls are about, and join whom they join."""
    keys = {key for call in calls for key in keys_of(call)}
    owners = owners_of(tx, keys)
    if len(owners) == len(keys) and not any(_unsettled(call, owners) for call in calls):
        held = held_owners_of(tx, keys, owners)
        if held == owners:
            return _Who(owners, {}, (), _again(tx, _that_tell(calls), owners))
    owners = settled_owners_of(tx, keys)
    profile_ids = set(owners.values())
    again = _again(tx, enumerate(calls), owners)
    new = {place: call for place, call in enumerate(calls) if place not in again}
    joined = join(new, owners, users_of(tx, profile_ids))
    if joined.mergers:
        merge(tx, joined.mergers, also_lock=profile_ids)
    else:
        lock_profiles(tx, profile_ids)
    if joined.released:
        _release(tx, joined.released)
    return _Who(owners_of(tx, keys), joined.foreign, joined.people, again)


def _unsettled(call: Call, owners: Mapping[Key, int]) -> bool:
    """Whether it may tell us who is who: not all that it names is one profile's already."""
    keys = keys_of(call)
    found = {owners.get(key) for key in keys}
    return len(keys) > 1 and (len(found) > 1 or None in found)


def _release(tx: Tx, keys: Collection[Key]) -> None:
    """These are nobody's any more; whoever is said to have them gets them next."""
    key = tuple_(identifiers.c.kind, identifiers.c.value)
    for some in in_slices(sorted(keys)):
        tx.conn.execute(delete(identifiers).where(key.in_(some)))


def _that_tell(calls: Sequence[Call]) -> Iterator[tuple[int, Call]]:
    """Calls that say something of a person, an event in its context too. What happened needs no
    look, for the database takes each event once.
    """
    return (
        (place, call)
        for place, call in enumerate(calls)
        if call.tells_of_person or _tells_anything(call.person)
    )


def _again(tx: Tx, calls: Iterable[tuple[int, Call]], owners: Mapping[Key, int]) -> set[int]:
    """Calls that came before: their places.

    What comes again must not undo what was said since, of people or of who is who.
    """
    places: dict[tuple[int, str], list[int]] = {}
    again: set[int] = set()
    before: set[tuple[Key, str]] = set()
    for place, call in calls:
        first, dedupe_key = keys_of(call)[0], call.dedupe_key(tx.now)
        if (first, dedupe_key) in before:
            again.add(place)
        before.add((first, dedupe_key))
        if first in owners:
            places.setdefault((owners[first], dedupe_key), []).append(place)
    found = select(events.c.profile_id, events.c.dedupe_key)
    for some in in_slices(sorted(places)):
        pair = tuple_(events.c.profile_id, events.c.dedupe_key)
        for profile_id, dedupe_key in tx.conn.execute(found.where(pair.in_(some))):
            again.update(places[profile_id, dedupe_key])
    return again


def _tells_anything(person: Person) -> bool:
    """Whether more is said of a person than who they are."""
    return bool(
        person.attributes
        or person.removed
        or person.push_tokens
        or person.removed_tokens
        or person.email
        or person.phone
        or person.country
        or person.timezone
        or person.language
        or person.consent
    )


def _without(person: Person, foreign: Collection[Key]) -> tuple[Person, list[str]]:
    """The person without identifiers that are another customer's, and a warning for each."""
    if not foreign:
        return person, []
    left_out = {kind for kind, _ in foreign}
    changed = replace(
        person,
        anonymous_id=None if "anonymous_id" in left_out else person.anonymous_id,
        email=None if "email" in left_out else person.email,
        phone=None if "phone" in left_out else person.phone,
        push_tokens={
            token: platform
            for token, platform in person.push_tokens.items()
            if ("push_token", token) not in foreign
        },
    )
    fields = {"anonymous_id": "anonymousId", "email": "traits.email", "phone": "traits.phone"}
    warnings = [
        f"{field} is left out: it belongs to another customer"
        for kind, field in fields.items()
        if kind in left_out
    ]
    return changed, warnings
