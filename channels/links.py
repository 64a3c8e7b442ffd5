"""Links that lead a customer from a message to their own pages.

A token names a profile's number, never an address, and is signed for one purpose: neither kind
passes for the other. It does not expire, for a link in an old mail must still stop the mail; what
revokes it is the key (docs/customer-pages.md says when and how).
"""

from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, cast

from itsdangerous import BadData, URLSafeSerializer

from config.policy import Channel
from config.settings import Settings

_UNSUBSCRIBE = "unsubscribe"
_PREFERENCES = "preferences"
_CONFIRM = "confirm"
# The path of each page, below the public URL.
_PATHS = ("/u/", "/preferences/", "/confirm/")


class Subscription(NamedTuple):
    """What an unsubscribe link stops: messages about a topic, on a channel, to somebody."""

    profile_id: int
    channel: Channel
    topic: str


def unsubscribe_url(settings: Settings, profile_id: int, channel: str, topic: str) -> str:
    """The one-click unsubscribe link (RFC 8058) for one person, channel and topic."""
    return f"{settings.public_url}/u/{_token(settings, _UNSUBSCRIBE, [profile_id, channel, topic])}"


def preferences_url(settings: Settings, profile_id: int) -> str:
    """The link to the page on which a person chooses what reaches them, and when."""
    return f"{settings.public_url}/preferences/{preferences_token(settings, profile_id)}"


def preferences_token(settings: Settings, profile_id: int) -> str:
    """The last part of `preferences_url`, for a page that links to it relatively."""
    return _token(settings, _PREFERENCES, profile_id)


def read_unsubscribe(settings: Settings, token: str) -> Subscription | None:
    """What an unsubscribe token of ours names; None for any other text."""
    said = _read(settings, _UNSUBSCRIBE, token)
    return None if said is None else Subscription(*said)


def read_preferences(settings: Settings, token: str) -> int | None:
    """The profile id that a preferences token of ours names; None for any other text."""
    return cast("int | None", _read(settings, _PREFERENCES, token))


class Confirmation(NamedTuple):
    """What a confirmation link confirms: a yes to a topic on e-mail, said for one address.

    address: its digest, as `address_digest` gives it.
    """

    profile_id: int
    address: str
    topic: str


def confirm_url(settings: Settings, profile_id: int, address: str, topic: str) -> str:
    """The link to the page on which the owner of an address confirms a yes on e-mail."""
    named = [profile_id, address_digest(address), topic]
    return f"{settings.public_url}/confirm/{_token(settings, _CONFIRM, named)}"


def read_confirmation(settings: Settings, token: str) -> Confirmation | None:
    """What a confirmation token of ours names; None for any other text."""
    said = _read(settings, _CONFIRM, token)
    return None if said is None else Confirmation(*said)


def address_digest(address: str) -> str:
    """Stands for an address in a link, which may end up in the logs of others."""
    return sha256(address.encode()).hexdigest()[:32]


def our_pages(settings: Settings) -> tuple[str, ...]:
    """What the links to customers' pages begin with."""
    return tuple(settings.public_url + path for path in _PATHS)


def _token(settings: Settings, purpose: str, named: Any) -> str:
    token = _serializer(settings, purpose).dumps(named)
    assert isinstance(token, str)
    return token


def _read(settings: Settings, purpose: str, token: str) -> Any:
    try:
        return _serializer(settings, purpose).loads(token)
    except BadData:
        return None


def _serializer(settings: Settings, purpose: str) -> URLSafeSerializer:
    keys = [*settings.secret_keys_retired, settings.secret_key]
    return _for_keys(tuple(key.get_secret_value() for key in keys), purpose)


@lru_cache(maxsize=16)
def _for_keys(keys: tuple[str, ...], purpose: str) -> URLSafeSerializer:
    """The last key signs, all of them are accepted."""
    return URLSafeSerializer(
        keys, salt=purpose, signer_kwargs={"key_derivation": "hmac", "digest_method": sha256}
    )
