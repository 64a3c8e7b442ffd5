"""What one source says about one person, its identifiers in normal form."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NewType

from email_validator import EmailNotValidError, validate_email

from config.policy import Channel
from config.times import Instant
from profiles.phones import Phone
from profiles.tables import IdentifierKind

Email = NewType("Email", str)  # made by normalise_email only
Key = tuple[IdentifierKind, str]

# An index entry of PostgreSQL holds 2,704 bytes.
LONGEST_IDENTIFIER = 1000


def normalise_email(text: str) -> Email:
    """The address in the one form that is stored: lower case.

    Only the form is looked at; nothing is asked of the network. Raises ValueError with the fault.
    """
    try:
        address = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(f"{text!r} is no e-mail address: {error}") from None
    return Email(address.normalized.lower())


def normalise_id(text: str) -> str:
    """A user id, anonymous id or push token without outer space. Raises ValueError if unusable."""
    value = text.strip()
    if not value:
        raise ValueError("it is empty")
    if "\0" in value:
        raise ValueError(f"{value!r} contains a NUL character")
    if len(value.encode()) > LONGEST_IDENTIFIER:
        raise ValueError(f"{value[:20]!r}... is longer than {LONGEST_IDENTIFIER} bytes")
    return value


@dataclass(frozen=True, slots=True)
class Person:
    """What one source says about one person. What is None or missing is not said, so not changed.

    Identifiers are in normal form (normalise_id, normalise_email, normalise_phone), the country is
    what country_code gives. An attribute of None takes the attribute away.
    """

    user_id: str | None = None
    anonymous_id: str | None = None
    email: Email | None = None
    phone: Phone | None = None
    push_tokens: Mapping[str, str | None] = field(default_factory=dict)  # token -> platform
    country: str | None = None
    timezone: str | None = None  # IANA name as given, perhaps invalid
    language: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    consent: Mapping[tuple[Channel, str], bool] = field(default_factory=dict)  # (channel, topic)
    seen_at: Instant | None = None  # when all this was so; None: not known

    def identifiers(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Each identifier with the columns that describe it."""
        if self.user_id is not None:
            yield ("user_id", self.user_id), {}
        if self.anonymous_id is not None:
            yield ("anonymous_id", self.anonymous_id), {}
        if self.email is not None:
            yield ("email", self.email), {}
        if self.phone is not None:
            yield ("phone", self.phone.value), {"country": self.phone.country}
        for token, platform in self.push_tokens.items():
            yield ("push_token", token), {"platform": platform} if platform else {}
