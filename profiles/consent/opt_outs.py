"""Opt-outs in rows and calls that are refused for another error; these opt-outs still count."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from config.channels import ChannelName
from config.clock.times import Instant
from config.database.engine import Tx
from profiles.bulk import lock_profiles
from profiles.consent.changes import ConsentChange, change_consent_in_turn
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.owners import holders_of, lock_identities, users_of
from profiles.identity.person import Key, Person
from profiles.identity.upsert import upsert_people


@dataclass(frozen=True, slots=True, kw_only=True)
class No:
    """An opt-out.

    person: the identifiers of the customer, without other values. refuses: channels and topics (or
    `*`). said_at: None if unknown. just_now: it is stated now.
    """

    person: Person
    refuses: Collection[tuple[ChannelName, str]]
    said_at: Instant | None
    just_now: bool = False

    def __str__(self) -> str:
        names = (on if topic == "*" else f"{on} ({topic})" for on, topic in sorted(self.refuses))
        return f"the no to {', '.join(names)} is recorded nevertheless"


def take_opt_outs(
    tx: Tx, noes: Mapping[int, No], source: str, *, topics_too: bool = False
) -> dict[int, No]:
    """Record opt-outs. Call it at most once per transaction, before any other lock.

    An opt-out applies to the customer with its user id or anonymous id, else to all customers with
    one of its addresses, else to a new profile. Unverified anonymous ids are ignored.

    Parameters
    ----------
    noes: by their places in the input.
    topics_too: as for `change_consent`.

    Returns
    -------
    The opt-outs that have identifiers, by place.
    """
    lock_identities(tx)
    holders = holders_of(tx, {key for no in noes.values() for key in _keys(no.person)})
    unverified = {key for key, holder in holders.items() if holder.unverified}
    owners = {key: one.profile_id for key, one in holders.items() if not one.retired}
    named = {
        place: replace(no, person=_without(no.person, unverified)) for place, no in noes.items()
    }
    taken = {place: no for place, no in named.items() if _keys(no.person)}
    lock_profiles(tx, set(owners.values()))
    users = users_of(tx, set(owners.values()))
    whose: dict[int, set[int]] = {}
    strangers: dict[int, Person] = {}
    for place, no in taken.items():
        whose[place] = _meant(no.person, owners, users)
        # An unticked box changes nothing for a profile without a yes.
        if not whose[place] and not all(one.unticked_box for one in _changes(no, 0)):
            strangers[place] = _without(no.person, owners.keys())
    created = upsert_people(tx, _apart(strangers.values()), source).profile_ids
    for place, profile_id in zip(strangers, created, strict=True):
        if profile_id is not None:
            whose[place] = {profile_id}
    rounds = [
        [change for profile_id in whose[place] for change in _changes(no, profile_id)]
        for place, no in taken.items()
    ]
    applied = change_consent_in_turn(tx, rounds, source, topics_too=topics_too).applied
    record_events(
        tx,
        [
            NewEvent(
                profile_id=one,
                name=PROFILE_CHANGED,
                occurred_at=tx.now,
                dedupe_key=f"a no of {source} {tx.now}",
                properties={},
            )
            for one in sorted({change.profile_id for change in applied})
        ],
        worked=False,
    )
    return taken


def _keys(person: Person) -> list[Key]:
    return person.keys


def _meant(
    person: Person, owners: Mapping[Key, int], users: Mapping[int, Collection[str]]
) -> set[int]:
    """The profiles that an opt-out applies to; empty if none is known."""
    user: Key = ("user_id", person.user_id or "")
    if user in owners:
        return {owners[user]}
    # A profile with another user id is another customer.
    known = {
        key: owners[key]
        for key in _keys(person)
        if key in owners and not (person.user_id and users.get(owners[key]))
    }
    anonymous: Key = ("anonymous_id", person.anonymous_id or "")
    return {known[anonymous]} if anonymous in known else set(known.values())


def _without(person: Person, others: Collection[Key]) -> Person:
    """The person without identifiers of other customers; the user id is kept."""
    email, phone = person.email, person.phone
    anonymous: Key = ("anonymous_id", person.anonymous_id or "")
    return person._replace(
        anonymous_id=None if anonymous in others else person.anonymous_id,
        email=None if email and ("email", email) in others else email,
        phone=None if phone and ("phone", phone.value) in others else phone,
        push_tokens={
            token: platform
            for token, platform in person.push_tokens.items()
            if ("push_token", token) not in others
        },
    )


def _apart(people: Iterable[Person]) -> list[Person]:
    """Give a new address that occurs with several user ids to the first of them."""
    first: dict[Key, str | None] = {}
    apart = []
    for person in people:
        user = person.user_id
        others = {key for key in _keys(person) if first.setdefault(key, user) != user}
        apart.append(_without(person, others) if user else person)
    return apart


def _changes(no: No, profile_id: int) -> Iterator[ConsentChange]:
    for channel, topic in no.refuses:
        yield ConsentChange(
            profile_id=profile_id,
            channel=channel,
            topic=topic,
            granted=False,
            occurred_at=no.said_at,
            just_now=no.just_now,
            identifier=no.person.named_by,
        )
