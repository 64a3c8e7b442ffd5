"""Statements of consent by a shop's server: parsed, then written with their proof."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast
from uuid import uuid4

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from sqlalchemy import select

from config.channels import ChannelName
from config.database.arrays import rows_of
from config.database.engine import Tx
from config.policy import Policy
from profiles.bulk import lock_profiles
from profiles.calls.segment_calls import CallRefused, CallTime, Id, refusal, without_faults
from profiles.consent.changes import ConsentChange, change_consent
from profiles.consent.opt_outs import No
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.identity.owners import holders_of, settled_owners_of, users_of
from profiles.identity.person import Email, Key, Person, normalise_email
from profiles.identity.phones import Phone, normalise_phone
from profiles.identity.placeholders import MEANINGLESS, Meaningless, without_meaningless
from profiles.identity.upsert import upsert_people
from profiles.imports.values import yes_or_no
from profiles.tables import events

# Limits of a statement: the wording in characters, the evidence as JSON in bytes.
LONGEST_WORDING = 4000
LARGEST_EVIDENCE = 4096

_PAIRS = rows_of("pairs", events.c.profile_id, events.c.dedupe_key)
_RECORDED = select(events.c.profile_id, events.c.dedupe_key).join(
    _PAIRS,
    (events.c.profile_id == _PAIRS.c.profile_id) & (events.c.dedupe_key == _PAIRS.c.dedupe_key),
)
_UNVERIFIED = (
    "an address that is not verified joined it to its customer, so it only adds events; give the "
    "userId or an address"
)

# recorded: it is effective. waiting: it counts after a confirmation by e-mail. no_address: it needs
# one, but there is no e-mail address. overruled: a later statement or a no overrules it. again: it
# was recorded before.
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
        raise ValueError("the value is nested too deeply") from None
    if size > LARGEST_EVIDENCE:
        raise ValueError(f"the value is larger than {LARGEST_EVIDENCE} bytes as JSON; shorten it")
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
    source: str = Field(min_length=1, max_length=200, description="where the statement was made")
    wording: str | None = Field(
        default=None, max_length=LONGEST_WORDING, description="the text that was shown"
    )
    evidence: Annotated[Any, AfterValidator(_bounded)] = Field(
        default=None, description="proof as JSON, such as form and IP address"
    )

    def person(self) -> Person:
        """The identifiers of the customer, without other values."""
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
        """The key that is equal for statements with the same `messageId`.

        Without `messageId` it is unique, because the same statement may be repeated after others.
        """
        return f"consent {self.message_id or uuid4()}"


def read_statement(stated: object, policy: Policy) -> ConsentStatement:
    """Parse a statement. Raises CallRefused naming the field and the fix."""
    if not isinstance(stated, dict):
        raise CallRefused("", 'write an object, such as {"userId": ..., "channel": "email", ...}')
    try:
        one = ConsentStatement.model_validate(stated)
    except ValidationError as error:
        raise refusal(error) from None
    one = one.without(Meaningless(policy.meaningless))
    if not one.person().keys:
        raise CallRefused("userId", "give userId, anonymousId, email or phone")
    if one.topic != "*" and policy.topics and one.topic not in policy.topics:
        known = ", ".join(["*", *policy.topics])
        raise CallRefused("topic", f"there is no topic {one.topic!r}; the topics are {known}")
    if one.granted and not one.wording:
        raise CallRefused("wording", "a yes needs the text that was shown to the customer")
    if one.granted and one.evidence is None:
        raise CallRefused("evidence", 'a yes needs its proof, such as {"form": ..., "ip": ...}')
    return one


def opt_out_stated(stated: object, meaningless: Meaningless = MEANINGLESS) -> No | None:
    """The opt-out in a refused statement; None if it is a yes or has no identifier.

    Without a valid topic it applies to the whole channel.
    """
    if not isinstance(stated, dict) or not _is_no(stated.get("granted")):
        return None
    # An opt-out needs no source, and granted may be text such as "false".
    one = without_faults(ConsentStatement, {**stated, "source": "any", "granted": False})
    one = None if one is None else one.without(meaningless)
    if one is None or not one.person().keys:
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
    """Record statements; an unknown customer gets a new profile.

    Addresses of known profiles do not change. Of two statements with the same key the later one is
    effective. Call it at most once per transaction, before any other lock.
    """
    whose, refused = _people(tx, statements)
    new, results = _new(tx, statements, whose)
    for source, changes in _grouped_changes(tx, {place: statements[place] for place in new}, whose):
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
    """Find and lock the profiles of statements; returns refusals for the others."""
    people = {place: one.person() for place, one in statements.items()}
    keys = {place: person.keys for place, person in people.items()}
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
            person = person._replace(anonymous_id=None)
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
            others[place] = person._replace(seen_at=tx.now)
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
    """Record the keys of new statements. Returns their places, and the results of repeated ones."""
    named = {
        place: (one.profile_id, statements[place].dedupe_key()) for place, one in whose.items()
    }
    found = tx.conn.execute(_RECORDED, {"pairs": sorted(set(named.values()))})
    known = {(profile_id, dedupe_key) for profile_id, dedupe_key in found}
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


def _grouped_changes(
    tx: Tx, statements: Mapping[int, ConsentStatement], whose: Mapping[int, _Named]
) -> Iterator[tuple[str, dict[int, ConsentChange]]]:
    """The changes in order of time, grouped by source, without repeated keys in a group."""
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
