"""A source's statements about one customer, with identifiers in normal form."""

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NewType

from email_validator import EmailNotValidError, validate_email

from config.channels import ChannelName
from config.clock.times import Instant
from config.text.invisible_characters import visible
from profiles.identity.phones import Phone, normalise_phone
from profiles.tables import IdentifierKind

Email = NewType("Email", str)  # normalise_email is the only function that makes one
Key = tuple[IdentifierKind, str]

# Longer text is refused without parsing. An address has at most 254 characters (RFC 5321,
# 4.5.3.1.3); the rest is room for surrounding spaces.
_LONGEST_WRITTEN = 400
_LONGEST_LOCAL = 64  # RFC 5321, 4.5.3.1.1
# Full-width forms of ASCII, and the characters that IDNA treats as dots (RFC 3490, 3.1).
_FULL_WIDTH: dict[int, int | str] = {
    **{0xFF01 + place: 0x21 + place for place in range(94)},
    **dict.fromkeys((0x3002, 0xFF61), "."),
}
# An index entry of PostgreSQL has at most 2,704 bytes.
LONGEST_IDENTIFIER = 1000
# More than the longest zone, country and language tag (RFC 5646, 4.4.1: 35 characters).
LONGEST_NAME = 100
_SHOWN = 60

# From 2^53 on a float represents several integers (IEEE 754, binary64).
_FIRST_INEXACT = 2.0**53
# How spreadsheets and data frames write the id 1042, and a long one.
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
_ROUNDED = re.compile(r"[0-9](\.[0-9]+)?[eE]\+[0-9]+")


def excerpt(text: str) -> str:
    """The text in quotes, shortened, for a message."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def check_length(text: str, longest: int) -> None:
    """Raises ValueError for a text of more than `longest` characters.

    Call it before anything whose cost grows with the length.
    """
    if len(text) > longest:
        raise ValueError(f"{text[:20]!r}... is longer than {longest} characters")


def normalise_email(text: str, *, lenient_dots: bool = False) -> Email:
    """Normalise an e-mail address, so that every spelling of a mailbox is stored in the same form.

    Lower case, Unicode NFC, full-width characters as ASCII. The domain is in ASCII (IDNA A-labels,
    RFC 5890), which every mail server accepts, without a final dot. The local part stays in Unicode
    (SMTPUTF8, RFC 6531). `mailto:`, surrounding spaces and invisible characters are removed.

    lenient_dots: also accept a local part with dots at its ends or in a row. RFC 5321 forbids them,
    but Japanese providers once assigned such addresses.

    It checks only the syntax and uses no network. Raises ValueError with the reason.
    """
    check_length(text, _LONGEST_WRITTEN)
    written = visible(text).translate(_FULL_WIDTH)
    if written[:7].lower() == "mailto:":
        written = written[7:]
    local, at, domain = written.rpartition("@")
    checked = ".".join(filter(None, local.split("."))) if lenient_dots else local
    try:
        address = validate_email(
            f"{checked}{at}{domain.removesuffix('.')}", check_deliverability=False
        )
    except EmailNotValidError as error:
        raise ValueError(f"{text!r} is not an e-mail address: {error}") from None
    if len(local) > _LONGEST_LOCAL:
        raise ValueError(
            f"{text!r} is not an e-mail address: it has more than {_LONGEST_LOCAL} characters "
            "before the @-sign"
        )
    # Lower-casing can decompose a letter: capital I with a dot becomes i and a combining dot.
    lower = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower())
    return Email(f"{lower}@{address.ascii_domain.lower()}")


def normalise_id(text: str) -> str:
    """Normalise a user id, anonymous id or push token. Raises ValueError if it is unusable.

    Surrounding spaces are removed. "1042.0" becomes "1042": programs that keep ids as
    floating-point numbers write them so.
    """
    if len(text) > LONGEST_IDENTIFIER:
        raise _too_long(text)
    value = text.strip()
    if not value:
        raise ValueError("the value is empty")
    if "\0" in value:
        raise ValueError(f"{value!r} contains a NUL character")
    if not value.isascii() and len(value.encode()) > LONGEST_IDENTIFIER:
        raise _too_long(text)
    if "." not in value and "+" not in value:
        return value  # both forms below have one of them
    whole = _WHOLE.fullmatch(value)
    if _ROUNDED.fullmatch(value) or (whole and abs(float(value)) >= _FIRST_INEXACT):
        raise ValueError(f"{value!r} may be a rounded number; write all digits without a point")
    return whole[1] if whole else value


def _too_long(text: str) -> ValueError:
    return ValueError(f"{text[:20]!r}... is longer than {LONGEST_IDENTIFIER} bytes")


def id_text(value: object) -> str:
    """An id from JSON as text: 1042, "1042" and 1042.0 are the same. Raises ValueError if unusable.

    It never rounds: integers have at most 64 bits, and floats are below 2^53.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError('write it as text, such as "u-1042"')
    if isinstance(value, float):
        if not math.isfinite(value) or abs(value) >= _FIRST_INEXACT:
            raise ValueError(f"the number {value} is not exact; write the id as text")
        return str(int(value)) if value.is_integer() else repr(value)
    if not -(2**63) <= value < 2**64:
        raise ValueError("the number does not fit into 64 bits; write the id as text")
    return str(value)


_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Person(NamedTuple):
    """A source's statements about one customer. None or missing means not stated, so not changed.

    Identifiers are in normal form (normalise_id, normalise_email, normalise_phone); the country is
    a result of country_code. An attribute of None removes the attribute. `removed` does this for
    email, phone, country, timezone and language, and `removed_tokens` for push tokens.
    """

    user_id: str | None = None
    anonymous_id: str | None = None
    email: Email | None = None
    phone: Phone | None = None
    push_tokens: Mapping[str, str | None] = _NOTHING  # token -> platform
    country: str | None = None
    timezone: str | None = None  # IANA name as stated; it can be invalid
    language: str | None = None
    attributes: Mapping[str, Any] = _NOTHING
    consent: Mapping[tuple[ChannelName, str], bool] = _NOTHING  # (channel, topic)
    removed: Collection[str] = frozenset()
    removed_tokens: Collection[str] = frozenset()
    seen_at: Instant | None = None  # time of the statements; None: unknown
    # kinds of address that the sender states as verified
    verified: Collection[IdentifierKind] = frozenset()
    # stated with a public key: it changes nothing of a profile with another kind of identifier
    by_public_key: bool = False

    @property
    def has_details(self) -> bool:
        """Whether it states anything besides ids."""
        return bool(
            self.attributes
            or self.removed
            or self.push_tokens
            or self.removed_tokens
            or self.email
            or self.phone
            or self.country
            or self.timezone
            or self.language
            or self.consent
        )

    @property
    def named_by(self) -> Key | None:
        """The identifier that the statements are stored with: the first of `keys`."""
        return next(iter(self.keys), None)

    @property
    def keys(self) -> list[Key]:
        """The identifiers, user id first."""
        keys: list[Key] = []
        if self.user_id is not None:
            keys.append(("user_id", self.user_id))
        if self.anonymous_id is not None:
            keys.append(("anonymous_id", self.anonymous_id))
        if self.email is not None:
            keys.append(("email", self.email))
        if self.phone is not None:
            keys.append(("phone", self.phone.value))
        if self.push_tokens:
            keys += [("push_token", token) for token in self.push_tokens]
        return keys

    @property
    def proofs(self) -> list[Key]:
        """The identifiers that prove who it is: the user id, or else verified addresses."""
        if self.user_id is not None:
            return [("user_id", self.user_id)]
        return [key for key in self.keys if key[0] in self.verified]

    def without(self, keys: Collection[Key]) -> "Person":
        """The person without some identifiers."""
        if not keys:
            return self
        return self._replace(
            user_id=None if ("user_id", self.user_id) in keys else self.user_id,
            anonymous_id=None if ("anonymous_id", self.anonymous_id) in keys else self.anonymous_id,
            email=None if ("email", self.email) in keys else self.email,
            phone=None if self.phone and ("phone", self.phone.value) in keys else self.phone,
            push_tokens={
                token: platform
                for token, platform in self.push_tokens.items()
                if ("push_token", token) not in keys
            },
        )

    def described(self, key: Key) -> dict[str, Any]:
        """The columns that describe one of `keys`."""
        if key[0] == "phone" and self.phone is not None:
            return {"country": self.phone.country}
        platform = self.push_tokens.get(key[1]) if key[0] == "push_token" else None
        return {"platform": platform} if platform else {}


def address_of(kind: IdentifierKind, text: str) -> str:
    """Normalise an address from an external system. Invalid text is returned unchanged.

    No profile has an invalid address, so it identifies nobody.
    """
    try:
        return _READERS[kind](text)
    except ValueError:
        return text


def possible_keys(text: str) -> list[Key]:
    """Every identifier that the text can be, in normal form, for a lookup."""
    found: list[Key] = []
    for kind, read in _READERS.items():
        try:
            found.append((kind, read(text)))
        except ValueError:
            continue
    return found


def read_key(kind: IdentifierKind, text: str, country: str | None = None) -> Key:
    """The identifier of a kind that a text means, in normal form, for a lookup.

    country: ISO alpha-2, for a phone number without its country code. Raises ValueError with the
    reason.
    """
    if kind == "phone":
        return kind, normalise_phone(text, country).value
    return kind, _READERS[kind](text)


# Lookups accept odd dots in addresses; whether such an address can be stored is decided elsewhere.
_READERS: Mapping[IdentifierKind, Callable[[str], str]] = {
    "user_id": normalise_id,
    "email": lambda text: normalise_email(text, lenient_dots=True),
    "phone": lambda text: normalise_phone(text, None).value,
    "anonymous_id": normalise_id,
    "push_token": normalise_id,
}
