"""What Segment's traits and context say of a person: addresses, country, zone, attributes. Pure.

The names are those of Segment's Spec. What is no good is left out with a warning, so that
a mistyped phone number costs nobody the event it came with.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from config.blanks import trimmed
from config.policy import Channel, ConsentTrait
from config.zones import zone_name
from profiles.countries import country_code
from profiles.mapping import yes_or_no
from profiles.person import Person, normalise_email, normalise_id
from profiles.phones import normalise_phone

T = TypeVar("T")

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
# Spec'd traits that go by other names here; every other trait keeps its name.
_NAMES = {"firstName": "first_name", "lastName": "last_name", "createdAt": "created_at"}
_PLATFORMS = ("ios", "android", "web")


def read_person(
    about: Person,
    traits: Mapping[str, Any],
    context: Mapping[str, Any],
    *,
    lenient_dots: bool = False,
) -> tuple[Person, list[str]]:
    """The person with all that is said of them, and what had to be left out.

    What is said as a trait counts for more than what the context happens to show. `lenient_dots` is
    that of normalise_email.
    """
    left = dict(traits)
    address = left.get("address")
    device = context.get("device")
    take = _Taking([])
    country = take("traits.address.country", _within(address, "country"), _country)
    country = take("traits.country", left.pop("country", None), _country) or country
    zone = take("context.timezone", context.get("timezone"), _zone)
    language = take("context.locale", context.get("locale"), _language)
    token = take("context.device.token", _within(device, "token"), normalise_id)
    person = replace(
        about,
        email=take(
            "traits.email",
            left.pop("email", None),
            lambda text: normalise_email(text, lenient_dots=lenient_dots),
        ),
        phone=take(
            "traits.phone", left.pop("phone", None), lambda text: normalise_phone(text, country)
        ),
        push_tokens={token: _platform(_within(device, "type"))} if token else {},
        country=country,
        timezone=take("traits.timezone", left.pop("timezone", None), _zone) or zone,
        language=take("traits.language", left.pop("language", None), _language) or language,
        attributes={
            **{_NAMES.get(name, name): value for name, value in left.items()},
            **about.attributes,
        },
    )
    return person, take.warnings


def consent_in(
    traits: Mapping[str, Any], rules: Sequence[ConsentTrait]
) -> dict[tuple[Channel, str], bool]:
    """What traits say about consent, by the policy's rules. Where two disagree the no holds."""
    said: dict[tuple[Channel, str], bool] = {}
    for rule in rules:
        if rule.trait in traits and _is(traits[rule.trait], rule.value):
            key = rule.channel, rule.topic
            said[key] = rule.granted and said.get(key, True)
    return said


def _is(value: object, wanted: bool | int | str) -> bool:
    """Whether a trait has this value: for true and false also as text ("yes") or as 1 and 0."""
    text = str(value).strip().casefold()
    if not isinstance(wanted, bool):
        return text == str(wanted).strip().casefold()
    try:
        return yes_or_no(text) is wanted
    except ValueError:
        return False


class _Taking(NamedTuple):
    """Takes what is good, and notes what is not."""

    warnings: list[str]

    def __call__(self, field: str, value: object, parse: Callable[[str], T]) -> T | None:
        if value is None or value == "":
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise ValueError("it is no text")
            return parse(str(value))
        except ValueError as error:
            self.warnings.append(f"{field} is left out: {error}")
            return None


def _within(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _country(text: str) -> str:
    code = country_code(text)
    if code is None:
        raise ValueError(f"{text!r} is no country; write its ISO code or its English name")
    return code


def _zone(text: str) -> str:
    name = zone_name(text)
    if name is None:
        raise ValueError(f"{text!r} is no time zone; write an IANA name such as Europe/London")
    return name


def _language(text: str) -> str:
    text = trimmed(text)
    if not _LANGUAGE.fullmatch(text):
        raise ValueError(f"{text!r} is no language; write a tag such as en or de-AT")
    return text.replace("_", "-")


def _platform(kind: object) -> str | None:
    """Segment's device type as a platform of push tokens."""
    name = kind.lower() if isinstance(kind, str) else None
    return name if name in _PLATFORMS else None
