"""Statements of consent by a shop's server: parsed, then written with their proof."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, cast
from uuid import uuid4

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from sqlalchemy import select, tuple_

from config.channels import ChannelName
from config.database.engine import Tx
from config.policy import Policy
from profiles.bulk import in_slices, lock_profiles
from profiles.consent.changes import ConsentChange, change_consent
from profiles.consent.opt_outs import No
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.person import Email, Key, Person, normalise_email
from profiles.identity.phones import Phone, normalise_phone
from profiles.identity.placeholders import MEANINGLESS, Meaningless, without_meaningless
from profiles.identity.segment_calls import CallRefused, CallTime, Id, refusal, without_faults
from profiles.identity.upsert import holders_of, settled_owners_of, upsert_people, users_of
from profiles.imports.columns import yes_or_no
from profiles.tables import events

# Limits of a statement: the wording in characters, the evidence as JSON in bytes.
LONGEST_WORDING = 4000
LARGEST_EVIDENCE = 4096

_UNVERIFIED = (
    "an address that is not verified joined it to its customer, so it only adds events; give the "
    "userId or an address"
)

# recorded: it holds. waiting: it counts once confirmed by e-mail. no_address: it needs that too,
# but there is no e-mail address. overruled: a later statement or a no holds. again: a repetition.
Result = Literal["recorded", "waiting", "no_address", "overruled", "again"]


def _email(value: object) -> Email | None:
    return None if value in (None, "") else normalise_email(str(value), lenient_dots=True)


def _phone(value: object) -> Phone | None:
    return None if value in (None, "") else normalise_phone(str(value), None)


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _bounded(value: Any) -> Any:
    try:
        size = len(orjson.dumps([value]))
    except TypeError:
        raise ValueError("it lies too deep within itself") from None
    if size > LARGEST_EVIDENCE:
        raise ValueError(f"it is larger than {LARGEST_EVIDENCE} bytes as JSON; shorten it")
    return value


class ConsentStatement(BaseModel):
    """A yes or a no of one profile to a channel (topic `*`) or to a topic on it."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", arbitrary_types_allowed=True
    )

    message_id: Id
    user_id: Id
    anonymous_id: Id
    email: Annotated[
        str | None, BeforeValidator(_email, json_schema_input_type=str | None), Field(default=None)
    ]
    phone: Annotated[
        Phone | None,
        BeforeValidator(_phone, json_schema_input_type=str | None),
        Field(default=None, description="E.164: + and country code"),
    ]
    channel: Annotated[ChannelName, BeforeValidator(_lower, json_schema_input_type=ChannelName)]
    topic: str = Field(default="*", min_length=1, description="`*`: the whole channel")
    granted: bool = Field(strict=True)
    timestamp: CallTime
    source: str = Field(min_length=1, max_length=200, description="where it was said")
    wording: str | None = Field(
        default=None, max_length=LONGEST_WORDING, description="the words that were shown"
    )
    evidence: Annotated[Any, AfterValidator(_bounded)] = Field(
        default=None, description="proof as JSON, such as form and IP address"
    )

    def person(self) -> Person:
        """The profile it names, by identifiers alone."""
        return Person(
            user_id=self.user_id,
            anonymous_id=self.anonymous_id,
            email=cast("Email | None", self.email),
            phone=self.phone,
        )

    def without(self, meaningless: Meaningless) -> "ConsentStatement":
        """The statement without placeholders."""
        named = without_meaningless(self.person(), meaningless)
        ids = {name: getattr(named, name) for name in ("user_id", "anonymous_id", "email", "phone")}
        if self.message_id is not None and self.message_id in meaningless:
            ids["message_id"] = None
        return self.model_copy(update=ids)

    def dedupe_key(self) -> str:
        """The same `messageId` is the same statement; without one each is a statement of its own,
        for the same words may be said again after others."""
        return f"consent {self.message_id or uuid4()}"


def read_statement(said: object, policy: Policy) -> ConsentStatement:
    """Parse a statement. Raises CallRefused naming the field and the fix."""
    if not isinstance(said, dict):
        raise CallRefused("", 'write an object, such as {"userId": ..., "channel": "email", ...}')
    try:
        one = ConsentStatement.model_validate(said)
    except ValidationError as error:
        raise refusal(error) from None
    one = one.without(Meaningless(policy.meaningless))
    if not list(one.person().identifiers()):
        raise CallRefused("userId", "give userId, anonymousId, email or phone: it names nobody")
    if one.topic != "*" and policy.topics and one.topic not in policy.topics:
        known = ", ".join(["*", *policy.topics])
        raise CallRefused("topic", f"there is no topic {one.topic!r}; there are: {known}")
    if one.granted and not one.wording:
        raise CallRefused("wording", "a yes needs the words that were shown to the person")
    if one.granted and one.evidence is None:
        raise CallRefused("evidence", 'a yes needs its proof, such as {"form": ..., "ip": ...}')
    return one


def opt_out_stated(said: object, meaningless: Meaningless = MEANINGLESS) -> No | None:
    """The no in a refused statement; None if it is a yes, or names nobody.

    Without a topic that can be read it is a no to the whole channel.
    """
    if not isinstance(said, dict) or not _is_no(said.get("granted")):
        return None
    # A no needs no source, and "false" as text is one too.
    one = without_faults(ConsentStatement, {**said, "source": "any", "granted": False})
    one = None if one is None else one.without(meaningless)
    if one is None or not list(one.person().identifiers()):
        return None
    at = one.timestamp
    return No(
        person=one.person(), refuses=[(one.channel, one.topic)], said_at=at, just_now=at is None
    )


def _is_no(value: object) -> bool:
    try:
        return not yes_or_no(str(value).strip())
    except ValueError:
        return False


class Stated(NamedTuple):
    """The results of the statements, by their positions."""

    results: Mapping[int, Result]
    refused: Mapping[int, CallRefused]


class _Named(NamedTuple):
    """The profile that a statement is about, and the identifier that names it."""

    profile_id: int
    by: Key


def take_statements(
    tx: Tx, statements: Mapping[int, ConsentStatement], double_opt_in: Mapping[str, str]
) -> Stated:
    """Record statements for the profiles they name; an unknown customer gets a profile.

    No address of somebody who is known changes. Of two statements about the same the later one
    holds. Once a transaction, before any other lock.
    """
    whose, refused = _people(tx, statements)
    new, results = _new(tx, statements, whose)
    for source, changes in _rounds(tx, {place: statements[place] for place in new}, whose):
        outcome = change_consent(
            tx, list(changes.values()), source, topics_too=True, double_opt_in=double_opt_in
        )
        found: dict[tuple[int, str, str], Result] = {
            **dict.fromkeys((one.key for one in outcome.waiting), "waiting"),
            **dict.fromkeys((one.key for one in outcome.no_address), "no_address"),
            **dict.fromkeys((one.key for one in outcome.overruled), "overruled"),
        }
        for place, change in changes.items():
            results[place] = found.get(change.key, "recorded")
    return Stated(results, refused)


def _people(
    tx: Tx, statements: Mapping[int, ConsentStatement]
) -> tuple[dict[int, _Named], dict[int, CallRefused]]:
    """The profiles that statements name, locked; and why other statements name none."""
    people = {place: one.person() for place, one in statements.items()}
    keys = {place: [key for key, _ in person.identifiers()] for place, person in people.items()}
    named = {key for some in keys.values() for key in some}
    owners = settled_owners_of(tx, named)
    found_by = holders_of(tx, named)
    # A yes does not count for the former owner of an address, but a no does.
    holders = {key: holder.profile_id for key, holder in found_by.items()}
    unverified = {key for key, holder in found_by.items() if holder.unverified}
    lock_profiles(tx, set(holders.values()))
    users = users_of(tx, set(owners.values()))
    whose: dict[int, _Named] = {}
    refused: dict[int, CallRefused] = {}
    others: dict[int, Person] = {}
    for place, person in people.items():
        if unverified.intersection(keys[place]):
            person = replace(person, anonymous_id=None)
            keys[place] = [key for key in keys[place] if key not in unverified]
            if not keys[place]:
                refused[place] = CallRefused("anonymousId", _UNVERIFIED)
                continue
        found = {owners[key] for key in keys[place] if key in owners}
        if not found and not statements[place].granted:
            found = {holders[key] for key in keys[place] if key in holders}
        stranger = person.user_id is not None and ("user_id", person.user_id) not in owners
        if len(found) > 1 or (stranger and any(users.get(one) for one in found)):
            refused[place] = CallRefused("", "its identifiers belong to different customers")
        elif found:
            whose[place] = _Named(found.pop(), keys[place][0])
        else:
            others[place] = replace(person, seen_at=tx.now)
    report = upsert_people(tx, list(others.values()), "consent", owners=owners)
    for index, place in enumerate(others):
        profile_id = report.profile_ids[index]
        if profile_id is None:
            refused[place] = CallRefused("", report.refused[index])
        else:
            whose[place] = _Named(profile_id, keys[place][0])
    return whose, refused


def _new(
    tx: Tx, statements: Mapping[int, ConsentStatement], whose: Mapping[int, _Named]
) -> tuple[list[int], dict[int, Result]]:
    """The places of statements that had not come before, noted; and the results of the others."""
    named = {
        place: (one.profile_id, statements[place].dedupe_key()) for place, one in whose.items()
    }
    key = tuple_(events.c.profile_id, events.c.dedupe_key)
    known: set[tuple[int, str]] = set()
    for some in in_slices(sorted(set(named.values())), 500):
        found = select(events.c.profile_id, events.c.dedupe_key).where(key.in_(some))
        known.update((row.profile_id, row.dedupe_key) for row in tx.conn.execute(found))
    new: list[int] = []
    results: dict[int, Result] = {}
    noted: list[NewEvent] = []
    for place, (profile_id, dedupe_key) in named.items():
        if (profile_id, dedupe_key) in known:
            results[place] = "again"
            continue
        known.add((profile_id, dedupe_key))
        new.append(place)
        event = NewEvent(
            profile_id=profile_id,
            name=PROFILE_CHANGED,
            occurred_at=tx.now,
            dedupe_key=dedupe_key,
            properties={},
            identifier=whose[place].by,
        )
        noted.append(event)
    record_events(tx, noted, worked=False)
    return new, results


def _rounds(
    tx: Tx, statements: Mapping[int, ConsentStatement], whose: Mapping[int, _Named]
) -> Iterator[tuple[str, dict[int, ConsentChange]]]:
    """The changes in order, in groups of one source without repeated keys."""
    changes = {
        place: ConsentChange(
            profile_id=whose[place].profile_id,
            channel=one.channel,
            topic=one.topic,
            granted=one.granted,
            occurred_at=tx.now if one.timestamp is None else one.timestamp,
            wording=one.wording,
            evidence=one.evidence,
            identifier=whose[place].by,
        )
        for place, one in statements.items()
    }
    together: dict[int, ConsentChange] = {}
    keys: set[tuple[int, str, str]] = set()
    source = ""
    for place in sorted(changes, key=lambda place: (changes[place].at(tx.now), place)):
        if together and (statements[place].source != source or changes[place].key in keys):
            yield source, together
            together, keys = {}, set()
        source = statements[place].source
        together[place] = changes[place]
        keys.add(changes[place].key)
    if together:
        yield source, together
