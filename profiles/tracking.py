"""Segment's calls, written down: people found, made and joined; what they did, each event once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import delete, select, tuple_

from config.database import Tx
from profiles.bulk import among, in_slices, lock_profiles
from profiles.calls import Call, CallRefused
from profiles.events import NewEvent, record_events
from profiles.identity import owners_of, settled_owners_of, upsert_people
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


def take_calls(tx: Tx, calls: Sequence[Call], merge: Merge) -> list[Outcome]:
    """Write down what the calls say, in their order; the same call again changes nothing.

    Once a transaction, and before anything else is locked in it.
    """
    keys = {key for call in calls for key in keys_of(call)}
    owners = owners_of(tx, keys)
    foreign: Mapping[int, set[Key]] = {}
    same: Sequence[set[Key]] = ()
    if any(_unsettled(call, owners) for call in calls):
        owners = settled_owners_of(tx, keys)
        profile_ids = set(owners.values())
        joined = join(calls, owners, _users(tx, profile_ids))
        foreign, same = joined.foreign, joined.people
        if joined.mergers:
            merge(tx, joined.mergers, also_lock=profile_ids)
            owners = owners_of(tx, keys)
        if joined.released:
            lock_profiles(tx, profile_ids)
            _release(tx, joined.released)
            owners = {key: owner for key, owner in owners.items() if key not in joined.released}
    outcomes = [Outcome(list(call.warnings)) for call in calls]
    taken: dict[int, int] = {}  # place of the call -> place of its person
    people: list[Person] = []
    known = _known(tx, calls, owners)
    for place, call in enumerate(calls):
        if place in known:
            continue
        person, warnings = _without(call.person, foreign.get(place, set()))
        if call.kind == "identify" and person.anonymous_id != call.person.anonymous_id:
            outcomes[place].refused = CallRefused(
                "anonymousId",
                "it belongs to the customer of another userId. Give each person an anonymousId of "
                "their own (the client's reset() does), or send an alias if they are one person",
            )
            continue
        outcomes[place].warnings += warnings
        taken[place] = len(people)
        if call.tells_of_person:
            person = replace(person, seen_at=call.occurred_at(tx.now))
        people.append(person)
        previous: Key = ("anonymous_id", call.previous_id or "")
        if any(previous in group for group in same):
            people.append(Person(anonymous_id=call.previous_id))
    report = upsert_people(tx, people, SOURCE, same=same, owners=owners)
    new: list[NewEvent] = []
    for place, index in taken.items():
        call, profile_id = calls[place], report.profile_ids[index]
        if profile_id is None:
            outcomes[place].refused = CallRefused("", report.refused[index])
            continue
        at, key = call.occurred_at(tx.now), call.dedupe_key(tx.now)
        new.append(NewEvent(profile_id, call.event, at, key, dict(call.properties)))
    record_events(tx, new, worked=False)
    return outcomes


def _unsettled(call: Call, owners: Mapping[Key, int]) -> bool:
    """Whether it may tell us who is who: not all that it names is one profile's already."""
    keys = keys_of(call)
    found = {owners.get(key) for key in keys}
    return len(keys) > 1 and (len(found) > 1 or None in found)


def _users(tx: Tx, profile_ids: Collection[int]) -> dict[int, set[str]]:
    """The user ids of each profile that has one."""
    c = identifiers.c
    users: dict[int, set[str]] = {}
    found = select(c.profile_id, c.value).where(
        c.kind == "user_id", among(tx, c.profile_id, profile_ids)
    )
    for profile_id, user_id in tx.conn.execute(found):
        users.setdefault(profile_id, set()).add(user_id)
    return users


def _release(tx: Tx, keys: Collection[Key]) -> None:
    """These are nobody's any more; whoever is said to have them gets them next."""
    key = tuple_(identifiers.c.kind, identifiers.c.value)
    for some in in_slices(sorted(keys)):
        tx.conn.execute(delete(identifiers).where(key.in_(some)))


def _known(tx: Tx, calls: Sequence[Call], owners: Mapping[Key, int]) -> set[int]:
    """Calls about people that came before: their places.

    What comes again must not undo what was said since. Events need no such look, for the database
    takes each once.
    """
    places: dict[tuple[int, str], list[int]] = {}
    again: set[int] = set()
    before: set[tuple[Key, str]] = set()
    for place, call in enumerate(calls):
        if not call.tells_of_person:
            continue
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
