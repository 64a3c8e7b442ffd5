"""`segue decide`: apply the planner to a hypothetical profile and send, given as JSON.

docs/reference/decide.md describes the format of a case and of its answer.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictBool, ValidationError

from channels.messages import COUNTING_STATES, MessageState
from channels.rules.caps import Counted
from channels.rules.planner import Mode, OnCap, Planner, Wanted
from channels.rules.recipient import Kind, Situation, StatedConsent, zones_for
from config.channels import AddressKind, ChannelName, channel_of
from config.clock.times import Duration, Instant, parse_instant
from config.policy import Policy
from config.text.strict import describe_errors
from profiles.attributes.countries import country_code
from profiles.identity.phones import Phone, normalise_phone

CaseTime = Annotated[Instant, BeforeValidator(parse_instant)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Profile(_Model):
    timezone: str | None = None
    country: str | None = None
    addresses: dict[ChannelName, str | list[str] | None] = {}
    consent: dict[ChannelName, dict[str, StrictBool]] = {}
    suppressed: set[ChannelName] = set()
    held_out: StrictBool = False


class _Past(_Model):
    channel: ChannelName
    send_at: CaseTime
    kind: Kind = "marketing"
    topic: str | None = None
    state: MessageState = "sent"


class _Message(_Model):
    channel: ChannelName
    after: Duration = 0
    kind: Kind = "marketing"
    topic: str | None = None
    on_cap: OnCap = "skip"
    max_delay: Duration | None = None


class _Send(_Model):
    mode: Mode = "any"
    messages: list[_Message]


class _Case(_Model):
    id: Any = None
    now: CaseTime
    policy: dict[str, Any] | None = None
    profile: _Profile
    history: list[_Past] = []
    send: _Send


@lru_cache(maxsize=256)
def _planner(policy: bytes) -> Planner:
    return Planner(Policy.model_validate(orjson.loads(policy)))


def answer_case(case: Mapping[str, Any], default: Planner) -> dict[str, Any]:
    """Decide one case with its own policy, or with the default planner if it has none.

    Raises ValueError that names the invalid fields.
    """
    try:
        parsed = _Case.model_validate(case)
        planner = default if parsed.policy is None else _planner(orjson.dumps(parsed.policy))
    except ValidationError as error:
        raise ValueError(describe_errors(error)) from error
    situation = _situation(parsed.profile, planner.policy)
    wanted = [
        Wanted(
            channel=message.channel,
            kind=message.kind,
            topic=message.topic or "",
            offset=message.after,
            on_cap=message.on_cap,
            max_delay=planner.policy.max_delay if message.max_delay is None else message.max_delay,
        )
        for message in parsed.send.messages
    ]
    history = [
        Counted(send_at=past.send_at, channel=past.channel, kind=past.kind, topic=past.topic or "")
        for past in parsed.history
        if past.state in COUNTING_STATES
    ]
    decisions = planner.decide(situation, parsed.send.mode, wanted, history, parsed.now)
    return {
        "id": parsed.id,
        "decisions": [
            {"channel": message.channel, **decision.described(situation)}
            for message, decision in zip(wanted, decisions, strict=True)
        ],
    }


def _phone(text: str) -> Phone | None:
    try:
        return normalise_phone(text, None)
    except ValueError:
        return None  # no address


def _is_usable(kind: AddressKind, given: Sequence[str]) -> bool:
    if kind == "email":
        return any("@" in address.strip("@ ") for address in given)
    if kind == "phone":
        return any(_phone(address) is not None for address in given)
    return any(address.strip() for address in given)


def _situation(profile: _Profile, policy: Policy) -> Situation:
    addresses = {
        name: [given] if isinstance(given, str) else given or []
        for name, given in profile.addresses.items()
    }
    phones = (
        phone
        for name, given in addresses.items()
        if channel_of(name).address_kind == "phone"
        for address in given
        if (phone := _phone(address)) is not None
    )
    return Situation(
        zones=zones_for(
            profile.timezone,
            country_code(profile.country),
            next((phone.country for phone in phones), None),
            policy.timezone,
        ),
        addresses=frozenset(
            name
            for name, given in addresses.items()
            if _is_usable(channel_of(name).address_kind, given)
        ),
        suppressed=frozenset(profile.suppressed),
        consent=StatedConsent.of(
            (channel, topic, granted)
            for channel, topics in profile.consent.items()
            for topic, granted in topics.items()
        ),
        held_out=profile.held_out,
    )
