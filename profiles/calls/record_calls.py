"""Record Segment's calls: find or create and update profiles, and store each event once."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from config.database.arrays import any_of
from config.database.engine import Tx
from profiles.attributes.companies import GROUP_ID, CompanyStatement, record_companies
from profiles.attributes.latest import FIELDS, attribute_key
from profiles.calls.call_profiles import CallProfiles, MergeProfiles, find_profiles
from profiles.calls.limits import STATED_IN, record_hits
from profiles.calls.segment_calls import CallRefused, SegmentCall
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.person import Key, Person, excerpt
from profiles.identity.upsert import upsert_people
from profiles.rules import DEFAULT_RULES, InputRules
from profiles.tables import identifiers, profiles

_i, _p = identifiers.c, profiles.c
_UNVERIFY = (
    update(identifiers)
    .where(_i.kind == "anonymous_id", any_of(_i.value, "anonymous"), _i.unverified_from.is_(None))
    .values(unverified_from=0)
)
_KNOWN_VALUES = select(
    _p.id, _p.country, _p.timezone, _p.language, _p.attributes, _p.attribute_times
).where(any_of(_p.id, "profiles"))
SOURCE = "segment"
# After a stop the next part has this many calls plus twice the previous part, so that many stops
# stay linear.
_FEWEST = 20
_UNVERIFIED = (
    "all but the event is left out: an address that is not verified joined this anonymousId to its "
    "customer. Send the userId or a verified address with it"
)
_STATED_BY_ANYONE = (
    "all but the event is left out: anyone can state the address, which is not verified"
)
_ANOTHER_JOINED = (
    "another address in the call, which is not verified, joined this anonymousId to its customer"
)


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
        who = find_profiles(tx, some, merge, rules)
        some = some[: who.stopped_at]
        outcomes = _write(tx, some, who, rules)
        for place, call in enumerate(some):
            if not call.company_traits:
                continue
            if outcomes[place].refused is None and who.takes_all_of(place):
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
    who: CallProfiles,
    rules: InputRules,
) -> list[Outcome]:
    """Record calls whose profiles are known."""
    outcomes = [Outcome([*call.warnings]) for call in calls]
    profile_ids: dict[int, int] = {}  # by the place of the call
    changing: dict[int, int] = {}  # place of the call -> place in `people`
    people: list[Person] = []
    filling = _filling(tx, calls, who)
    now = tx.now
    for place, call in enumerate(calls):
        if place in who.again:
            continue
        person = call.person
        warnings: list[str] = []
        hits = who.hits.get(place, ())
        if place in filling:
            person, warnings = filling[place]
        elif place in who.events_only:
            about = who.keys[place][0]
            person = Person(anonymous_id=about[1] if about[0] == "anonymous_id" else None)
            warnings = [_UNVERIFIED] if call.person.has_details and not hits else []
        elif place in who.foreign:
            limited = {hit.key for hit in hits if not hit.exempt}
            person, warnings = _without(person, who.foreign[place], limited=limited)
        warnings += [hit.warning(rules.joins) for hit in hits if not hit.exempt]
        if hits and place in who.events_only:
            warnings.append(_STATED_BY_ANYONE)
        outcomes[place].warnings += warnings
        # The keys of an alias contain an id that is not the person's.
        unchanged = person is call.person and call.previous_id is None
        if hits and place in who.events_only:
            profile_ids[place] = who.owners[who.keys[place][0]]
            continue
        owner = who.owner_of(who.keys[place] if unchanged else person.keys)
        if owner is not None and not person.has_details:
            profile_ids[place] = owner
        else:
            changing[place] = len(people)
            people.append(person._replace(seen_at=call.occurred_at(now)))
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
            occurred_at=call.occurred_at(now),
            dedupe_key=call.dedupe_key(now),
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
            occurred_at=now,
            dedupe_key=f"{calls[place].dedupe_key(now)} changed the profile",
            properties={},
            identifier=who.keys[place][0],
        )
        for place, index in changing.items()
        if index in report.effective
        and not calls[place].describes_person
        and people[index].has_details
    ]
    record_events(tx, [*new, *changed], worked=False)
    found = [
        (profile_ids[place], hit)
        for place, hits in who.hits.items()
        if place in profile_ids
        for hit in hits
    ]
    if found:
        record_hits(tx, found, rules.joins)
    return outcomes


def _note_unverified(tx: Tx, keys: Collection[Key]) -> None:
    """Mark stored anonymous ids as unverified: an unverified address joined them to a profile."""
    if keys:
        tx.conn.execute(_UNVERIFY, {"anonymous": [value for _, value in keys]})


def _filling(
    tx: Tx, calls: Sequence[SegmentCall], who: CallProfiles
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


def _without(
    person: Person,
    keys: Collection[Key],
    why: str = "it belongs to another customer",
    *,
    limited: Collection[Key] = (),
) -> tuple[Person, list[str]]:
    """The person without some identifiers, and a warning for each of their kinds.

    limited: those that a limit leaves out, which have warnings of their own.
    """
    if not keys:
        return person, []
    kinds = {kind for kind, value in keys if (kind, value) not in limited}
    warnings = [
        f"{name} is left out: {why}"
        for kind, name in STATED_IN.items()
        if kind in kinds and kind != "user_id"
    ]
    return person.without(keys), warnings
