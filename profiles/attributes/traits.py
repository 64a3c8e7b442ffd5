"""Parse Segment's traits and context: addresses, country, zone, attributes. Pure.

The names are those of Segment's Spec. An invalid value is left out with a warning and does not
affect the rest of the call.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from config.channels import ChannelName
from config.clock.zones import zone_name
from config.policy import ConsentTrait
from config.text.invisible_characters import trimmed
from profiles.attributes.countries import country_code
from profiles.identity.person import (
    LONGEST_IDENTIFIER,
    LONGEST_NAME,
    Person,
    check_length,
    normalise_email,
    normalise_id,
)
from profiles.identity.phones import normalise_phone
from profiles.identity.placeholders import Meaningless
from profiles.imports.values import yes_or_no
from profiles.rules import DEFAULT_RULES, InputRules
from profiles.tables import IdentifierKind

T = TypeVar("T")

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
# Traits of Segment's Spec that have other names here.
_NAMES = {"firstName": "first_name", "lastName": "last_name", "createdAt": "created_at"}
# Traits that are not attributes.
_FIELDS = ("email", "phone", "country", "timezone", "language")
_PLATFORMS = ("ios", "android", "web")
_OFFSET = re.compile(r"(GMT|UTC)[+-]\d{2}:?\d{2}")
# 32 bytes or more in hex; a registration token of FCM has a colon and other letters.
_APNS_TOKEN = re.compile(r"[0-9A-Fa-f]{64,200}")
# The claims of OpenID Connect (Core 1.0, section 5.1); Amazon Cognito writes them as text.
_CLAIMS: Mapping[IdentifierKind, str] = {
    "email": "email_verified",
    "phone": "phone_number_verified",
}


def read_person(
    about: Person,
    traits: Mapping[str, Any],
    context: Mapping[str, Any],
    rules: InputRules = DEFAULT_RULES,
) -> tuple[Person, list[str]]:
    """Apply traits and context to a person. Returns it with warnings about invalid values.

    `traits` override `context.traits`, which override other fields of the context. A trait of None
    removes the value.
    """
    if not traits and not context:
        return about, []
    take = _Values([], rules.meaningless)
    shown = context.get("traits") or {}
    if not isinstance(shown, dict):
        take.warnings.append("context.traits is left out: it is not an object")
        shown = {}
    stated = {**_named_traits("context.traits", shown), **_named_traits("traits", traits)}
    fields = {name: stated.pop(name) for name in _FIELDS if name in stated}
    country = take.field(fields, "country", _country)
    zone = take.field(fields, "timezone", _zone)
    language = take.field(fields, "language", _language)
    shown_zone = take("context.timezone", _without_offset(context.get("timezone")), _zone)
    shown_language = take("context.locale", context.get("locale"), _language)
    removed = frozenset(name for name, one in fields.items() if one.value is None)
    if "timezone" not in removed:
        zone = zone or shown_zone
    if "language" not in removed:
        language = language or shown_language
    # A claim is about the address in the same object.
    verified = {
        kind
        for kind, claim in _CLAIMS.items()
        if kind in fields
        and claim in stated
        and (stated[claim].value is True or stated[claim].value == "true")
        and fields[kind].place == stated[claim].place.replace(claim, kind)
    }
    device = context.get("device")
    token, gone = _token(device, take)
    person = about._replace(
        email=take.field(
            fields,
            "email",
            take.identifier(lambda text: normalise_email(text, lenient_dots=rules.lenient_dots)),
        ),
        phone=take.field(
            fields, "phone", take.identifier(lambda text: normalise_phone(text, country))
        ),
        push_tokens={token: _platform(_within(device, "type"))} if token and not gone else {},
        removed_tokens=frozenset({token} if token and gone else ()),
        country=country,
        timezone=zone,
        language=language,
        removed=removed,
        verified=verified,
        attributes={**{name: one.value for name, one in stated.items()}, **about.attributes},
    )
    return person, take.warnings


def consent_in(
    traits: Mapping[str, Any], context: Mapping[str, Any], rules: Sequence[ConsentTrait]
) -> dict[tuple[ChannelName, str], bool]:
    """The consent in the traits of a call by the policy's rules. If two disagree, the no is
    effective. `traits` override `context.traits`.
    """
    stated: dict[tuple[ChannelName, str], bool] = {}
    if not rules:
        return stated
    shown = context.get("traits")
    said = {**(shown if isinstance(shown, dict) else {}), **traits}
    for rule in rules:
        if rule.trait in said and _is(said[rule.trait], rule.value):
            key = rule.channel, rule.topic
            stated[key] = rule.granted and stated.get(key, True)
    return stated


def _is(value: object, wanted: bool | int | str) -> bool:
    """Whether a trait has this value. Booleans also match text ("yes") and 1 or 0."""
    text = str(value).strip().casefold()
    if not isinstance(wanted, bool):
        return text == str(wanted).strip().casefold()
    try:
        return yes_or_no(text) is wanted
    except ValueError:
        return False


class _Trait(NamedTuple):
    """A value and its place in the call, such as `traits.email`."""

    place: str
    value: Any


def _named_traits(place: str, traits: Mapping[str, Any]) -> dict[str, _Trait]:
    """The traits by Segue's names; `address.country` is the country."""
    address = traits.get("address")
    stated: dict[str, _Trait] = {}
    if isinstance(address, dict) and "country" in address:
        stated["country"] = _Trait(f"{place}.address.country", address["country"])
    for name, value in traits.items():
        stated[_NAMES.get(name, name)] = _Trait(f"{place}.{name}", value)
    return stated


class _Values(NamedTuple):
    """Collects valid values, and warnings about invalid ones."""

    warnings: list[str]
    meaningless: Meaningless

    def __call__(self, field: str, value: object, parse: Callable[[str], T]) -> T | None:
        if value is None or value == "":
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise ValueError("the value is not text")
            text = str(value)
            check_length(text, LONGEST_IDENTIFIER)
            return parse(text)
        except ValueError as error:
            self.warnings.append(f"{field} is left out: {error}")
            return None

    def field(self, fields: Mapping[str, _Trait], name: str, parse: Callable[[str], T]) -> T | None:
        """The value of a trait, if present."""
        return self(*fields[name], parse) if name in fields else None

    def identifier(self, parse: Callable[[str], T]) -> Callable[[str], T]:
        """`parse` for an identifier; it refuses placeholders."""

        def checked(text: str) -> T:
            if text in self.meaningless:
                raise ValueError(f"{text!r} is a placeholder")
            return parse(text)

        return checked


def _without_offset(zone: object) -> object:
    """The zone, or None for an offset such as "GMT+0100", which RudderStack's clients always send.

    An offset is not a zone: it does not tell when the clocks change.
    """
    return None if isinstance(zone, str) and _OFFSET.fullmatch(zone) else zone


def _token(device: object, take: _Values) -> tuple[str | None, bool]:
    """The push token of a device, and whether it is removed: `{"token": ..., "removed": true}`."""
    gone = _within(device, "removed")
    if not isinstance(gone, bool | None):
        take.warnings.append("context.device is left out: `removed` must be true or false")
        return None, False
    token = _within(device, "token")
    on_ios = _platform(_within(device, "type")) == "ios"

    def checked(text: str) -> str:
        if on_ios and not gone and _APNS_TOKEN.fullmatch(text):
            raise ValueError(
                "it is an APNs token; push messages need the registration token of FCM. Segment's "
                "Swift library sends the APNs token if the app forwards its registration to it"
            )
        return normalise_id(text)

    return take("context.device.token", token, take.identifier(checked)), bool(gone)


def _within(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _country(text: str) -> str:
    check_length(text, LONGEST_NAME)
    code = country_code(text)
    if code is None:
        raise ValueError(f"{text!r} is not a country; use its ISO code or English name")
    return code


def _zone(text: str) -> str:
    check_length(text, LONGEST_NAME)
    name = zone_name(text)
    if name is None:
        raise ValueError(f"{text!r} is not a time zone; use an IANA name such as Europe/London")
    return name


def _language(text: str) -> str:
    check_length(text, LONGEST_NAME)
    text = trimmed(text)
    if not _LANGUAGE.fullmatch(text):
        raise ValueError(f"{text!r} is not a language; use a tag such as en or de-AT")
    return text.replace("_", "-")


def _platform(kind: object) -> str | None:
    """Segment's device type as a platform of push tokens."""
    name = kind.lower() if isinstance(kind, str) else None
    return name if name in _PLATFORMS else None
