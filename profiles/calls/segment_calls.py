"""Parse Segment's calls: the customer, the statements and the event of each. Pure.

The fields are those of Segment's HTTP tracking API. An invalid call raises CallRefused. An invalid
trait is ignored with a warning.
"""

import hashlib
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic.alias_generators import to_camel

from config.clock.times import HOUR, Instant, Seconds, parse_instant
from profiles.attributes.companies import GROUP_ID
from profiles.attributes.traits import consent_in, read_person
from profiles.consent.double_opt_in import CONFIRMED_ON
from profiles.consent.opt_outs import No
from profiles.events import PROFILE_CHANGED
from profiles.identity.person import Key, Person, id_text, normalise_id
from profiles.identity.placeholders import Meaningless, without_meaningless
from profiles.rules import DEFAULT_RULES, InputRules
from profiles.tables import IdentifierKind

CallKind = Literal["identify", "track", "page", "screen", "group", "alias"]

M = TypeVar("M", bound=BaseModel)

_LONGEST_NAME = 255


_NO_TRAITS: Mapping[str, Any] = MappingProxyType({})


class CallRefused(ValueError):
    """An invalid call. field: its name. why: the error and the fix."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.field = field
        self.why = why


class SegmentCall(NamedTuple):
    """One parsed call.

    person: the customer; `seen_at` is not set yet.
    event, properties: the event that journeys see.
    previous_id: of an alias, the previous id, of whatever kind.
    company_traits: of a group, the traits of the company that the attribute `group_id` names.
    waited: seconds from its receipt to the transaction that records it.
    """

    kind: CallKind
    person: Person
    event: str
    properties: dict[str, Any]
    message_id: str | None
    digest: str
    at: Instant | None  # by the sender's clock
    sent_at: Instant | None  # by the sender's clock
    warnings: tuple[str, ...] = ()
    previous_id: str | None = None
    company_traits: Mapping[str, Any] = _NO_TRAITS
    waited: Seconds = 0

    @property
    def keys(self) -> list[Key]:
        """The identifiers; the first is the one that the call is about."""
        keys = self.person.keys
        if self.previous_id is not None:
            kinds: tuple[IdentifierKind, ...] = ("anonymous_id", "user_id")
            keys += [(kind, self.previous_id) for kind in kinds]
        return keys

    @property
    def describes_person(self) -> bool:
        """Whether it changes the profile, so that repeating it could undo a later change."""
        return self.kind in ("identify", "group", "alias")

    def depends_on_address(self, double_opt_in: Collection[str]) -> bool:
        """Whether it states a yes that is confirmed by e-mail, or a no that can end such a wait.

        Both depend on the e-mail address in use. double_opt_in: the topics with confirmations.
        """
        return bool(double_opt_in) and any(
            channel == CONFIRMED_ON and (not granted or topic in double_opt_in)
            for (channel, topic), granted in self.person.consent.items()
        )

    def occurred_at(self, now: Instant) -> Instant:
        """The time of the event by this clock: Segment's receivedAt - (sentAt - originalTimestamp).

        It is limited to the time from 1970 to the receipt.
        """
        received = now - self.waited
        if self.at is None:
            return received
        at = self.at if self.sent_at is None else received - (self.sent_at - self.at)
        return max(0, min(at, received))

    def dedupe_key(self, now: Instant) -> str:
        """The key that is equal for a repeated call.

        Without a message id it is a digest of the call. If the call has no time either, the digest
        is combined with the hour: the same call an hour later is a new event, such as a monthly
        "renewed".
        """
        if self.message_id is not None:
            return self.message_id
        return (
            self.digest if self.at is not None else f"{self.digest}@{(now - self.waited) // HOUR}"
        )


# Models ----------------------------------------------------------------------------------------


def _id(value: object) -> object:
    return None if value is None or value == "" else normalise_id(id_text(value))


def _moment(value: object) -> object:
    return None if value is None else parse_instant(value)


def _object(value: object) -> object:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError('write a JSON object, such as {"plan": "premium"}')
    return value


Id = Annotated[
    str | None, PlainValidator(_id, json_schema_input_type=str | int | None), Field(default=None)
]
CallTime = Annotated[
    Instant | None,
    PlainValidator(_moment, json_schema_input_type=str | None),
    Field(default=None, examples=["2026-03-02T10:00:00.000Z"]),
]
Object = Annotated[
    dict[str, Any],
    PlainValidator(_object, json_schema_input_type=dict[str, Any] | None),
    Field(default_factory=dict),
]


class _Call(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    user_id: Id
    anonymous_id: Id
    message_id: Id
    timestamp: CallTime
    original_timestamp: CallTime
    sent_at: CallTime
    context: Object


class Identify(_Call):
    """Traits of a customer."""

    traits: Object


class Track(_Call):
    """An event of a customer."""

    event: str = Field(min_length=1, max_length=_LONGEST_NAME, examples=["cart_abandoned"])
    properties: Object


class Page(_Call):
    """A page that a customer viewed: the event page_viewed."""

    name: str | None = None
    category: str | None = None
    properties: Object


class Screen(Page):
    """A screen of an app that a customer viewed: the event screen_viewed."""


class Group(_Call):
    """A company that a customer belongs to, and its traits; also the customer's attributes group_id
    and group_<trait>."""

    group_id: Id
    traits: Object


class Alias(_Call):
    """Two ids of one customer: everything of previousId belongs to userId from now on."""

    previous_id: Id


MODELS: Mapping[CallKind, type[_Call]] = {
    "identify": Identify,
    "track": Track,
    "page": Page,
    "screen": Screen,
    "group": Group,
    "alias": Alias,
}

_KINDS: Mapping[str, CallKind] = {kind: kind for kind in MODELS}
# `model_validate` takes a sixth longer for a call.
_VALIDATE = {kind: model.__pydantic_validator__.validate_python for kind, model in MODELS.items()}

_IDS = ("userId", "anonymousId", "groupId", "previousId", "messageId")


# Parsing ---------------------------------------------------------------------------------------


def read_call(
    kind: CallKind,
    fields: Mapping[str, Any],
    sent_at: Instant | None = None,
    rules: InputRules = DEFAULT_RULES,
) -> SegmentCall:
    """Parse a call of one kind.

    Parameters
    ----------
    fields: its fields, without NUL characters in texts.
    sent_at: when the batch was sent, for calls without a time of their own.
    rules: ids that are placeholders by these rules are ignored with a warning.

    Raises CallRefused.
    """
    nothing = _meaningless_ids(fields, rules.meaningless)
    try:
        meant = {k: v for k, v in fields.items() if k not in nothing} if nothing else fields
        call: _Call = _VALIDATE[kind](meant)
    except ValidationError as error:
        raise refusal(error) from None
    if call.user_id is None and kind == "alias":
        raise CallRefused("userId", "an alias needs userId, the id that stays")
    if call.user_id is None and call.anonymous_id is None:
        why = "".join(f"{value} is a placeholder; " for value in nothing.values())
        raise CallRefused("userId", f"{why}give userId or anonymousId")
    previous_id = None
    company_traits = _NO_TRAITS
    traits: Mapping[str, Any] = {}
    more: dict[str, Any] = {}
    event: str = PROFILE_CHANGED
    properties: dict[str, Any] = {}
    match call:
        case Identify():
            traits = call.traits
        case Track():
            event, properties = call.event, call.properties
        case Page():  # Screen is a subclass of Page
            event = f"{kind}_viewed"
            named = {"name": call.name, "category": call.category}
            properties = {
                **_page_url(call.context),
                **call.properties,
                **{k: v for k, v in named.items() if v is not None},
            }
        case Group():
            more = {f"group_{name}": value for name, value in call.traits.items()}
            if call.group_id is not None:
                more[GROUP_ID] = call.group_id
                company_traits = call.traits
            elif "groupId" not in nothing:
                raise CallRefused("groupId", "give the group's id")
        case Alias():
            if call.previous_id is None:
                raise CallRefused("previousId", "give the previous id of the customer")
            previous_id = call.previous_id
    person = Person(call.user_id, call.anonymous_id, attributes=more)
    warnings: list[str] = []
    if traits or more or call.context:
        consent = consent_in(traits, call.context, rules.consent_traits)
        about = person._replace(consent=consent)
        person, warnings = read_person(about, traits, call.context, rules)
    if nothing:
        left_out = "{} is left out: {} is a placeholder"
        warnings = [*(left_out.format(*one) for one in nothing.items()), *warnings]
    return SegmentCall(
        kind=kind,
        person=person,
        event=event,
        properties=properties,
        message_id=call.message_id,
        digest="" if call.message_id else _digest(kind, fields),
        at=call.timestamp if call.original_timestamp is None else call.original_timestamp,
        sent_at=sent_at if call.sent_at is None else call.sent_at,
        warnings=tuple(warnings),
        previous_id=previous_id,
        company_traits=company_traits,
    )


def _page_url(context: Mapping[str, Any]) -> dict[str, str]:
    """The property `url`, from `context.page.url`."""
    page = context.get("page")
    url = page.get("url") if isinstance(page, dict) else None
    return {"url": url} if isinstance(url, str) and url else {}


def _meaningless_ids(fields: Mapping[str, Any], meaningless: Meaningless) -> dict[str, str]:
    """The ids in a call that are placeholders, such as "undefined", by field, in quotes."""
    found: dict[str, str] = {}
    for name in _IDS:
        value = fields.get(name)
        try:
            if value is not None and id_text(value) in meaningless:
                found[name] = repr(value)
        except ValueError:
            continue  # the model refuses it
    return found


def read_item(
    item: object, sent_at: Instant | None, rules: InputRules = DEFAULT_RULES
) -> SegmentCall:
    """Parse a call of a batch, whose `type` names its kind. Raises CallRefused."""
    if not isinstance(item, dict):
        raise CallRefused("", 'write a call, such as {"type": "track", "userId": ...}')
    named = item.get("type")
    kind = _KINDS.get(named) if isinstance(named, str) else None
    if kind is None:
        raise CallRefused("type", f"write one of {', '.join(MODELS)}")
    return read_call(kind, item, sent_at, rules)


def opt_out_in(fields: Mapping[str, Any], rules: InputRules = DEFAULT_RULES) -> No | None:
    """The opt-out in the traits of an identify call, even if the call has other errors.

    None if there is none, or if the call has no valid identifier.
    """
    call = without_faults(Identify, fields)
    if call is None:
        return None
    stated = consent_in(call.traits, call.context, rules.consent_traits)
    refuses = [key for key, granted in stated.items() if not granted]
    about, _ = read_person(Person(), call.traits, call.context, InputRules(lenient_dots=True))
    person = Person(
        user_id=call.user_id, anonymous_id=call.anonymous_id, email=about.email, phone=about.phone
    )
    person = without_meaningless(person, rules.meaningless)
    if not refuses or not person.keys:
        return None
    at = call.timestamp if call.original_timestamp is None else call.original_timestamp
    return No(person=person, refuses=refuses, said_at=at, just_now=at is None)


def without_faults(model: type[M], fields: Mapping[str, Any]) -> M | None:
    """Parse what is valid and ignore invalid fields. None if a required field is invalid."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        faulty = {fault["loc"][0] for fault in error.errors() if fault["loc"]}
    try:
        return model.model_validate({k: v for k, v in fields.items() if k not in faulty})
    except ValidationError:
        return None


def parse_sent_at(value: object) -> Instant | None:
    """The time at which a batch was sent, by the sender's clock. Raises CallRefused."""
    try:
        return None if value is None else parse_instant(value)
    except ValueError as error:
        raise CallRefused("sentAt", str(error)) from None


def refusal(error: ValidationError) -> CallRefused:
    """The first error of a validation."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return CallRefused(field, "the field is missing")
    return CallRefused(field, first["msg"].removeprefix("Value error, "))


def _digest(kind: CallKind, fields: Mapping[str, Any]) -> str:
    """A digest of everything that is equal when the same call is sent again."""
    lasting = {name: value for name, value in fields.items() if name not in ("sentAt", "writeKey")}
    packed = orjson.dumps([kind, lasting], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(packed).hexdigest()
