"""Signed links from messages to the customer's pages.

A token is valid for one purpose. It has the profile id and a keyed digest of the address that the
message was sent to. Unsubscribe links do not expire, because a link in an old mail must still work;
preferences links do. Replacing the key revokes all links (docs/operate/customer-pages.md).
"""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from html import escape
from typing import Any, NamedTuple

from itsdangerous import BadData, URLSafeSerializer

from config.channels import ChannelName
from config.clock.times import Instant
from config.settings import Settings
from profiles.consent.double_opt_in import CONFIRMED_ON
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND

_UNSUBSCRIBE = "unsubscribe"
_PREFERENCES = "preferences"
_CONFIRM = "confirm"
# The path of each page, below the public URL.
_PATHS = ("/u/", "/preferences/", "/confirm/")


class Subscription(NamedTuple):
    """The subscription that an unsubscribe link ends.

    digest: of the address; empty in links from before schema 0009.
    """

    profile_id: int
    channel: ChannelName
    topic: str
    digest: str = ""


class Access(NamedTuple):
    """The profile whose preferences a link opens.

    digest: of the address. made_at: the time of the message. Both are empty in links from before
    schema 0009.
    """

    profile_id: int
    digest: str = ""
    made_at: Instant | None = None


def unsubscribe_url(
    settings: Settings, profile_id: int, channel: ChannelName, topic: str, address: str
) -> str:
    """The one-click unsubscribe link (RFC 8058) for a profile, channel, topic and address."""
    digest = _current_digest(settings, (ADDRESS_KIND[channel], address))
    content = [profile_id, channel, topic, digest]
    return f"{settings.public_url}/u/{_token(settings, _UNSUBSCRIBE, content)}"


def preferences_url(
    settings: Settings, profile_id: int, channel: ChannelName, address: str, now: Instant
) -> str:
    """The link to the preference center. now: the time of the message."""
    digest = _current_digest(settings, (ADDRESS_KIND[channel], address))
    return f"{settings.public_url}/preferences/" + _token(
        settings, _PREFERENCES, [profile_id, digest, now]
    )


def read_unsubscribe(settings: Settings, token: str) -> Subscription | None:
    """The content of a valid unsubscribe token; None for any other text."""
    content = _read(settings, _UNSUBSCRIBE, token)
    return None if content is None else Subscription(*content)


def read_preferences(settings: Settings, token: str) -> Access | None:
    """The content of a valid preferences token; None for any other text."""
    content = _read(settings, _PREFERENCES, token)
    if content is None:
        return None
    return Access(content) if isinstance(content, int) else Access(*content)


def address_of(settings: Settings, digest: str, addresses: Iterable[Key]) -> Key | None:
    """The address whose digest a link has; None: none of them."""
    return next(
        (
            address
            for address in addresses
            for key in _keys(settings)
            if hmac.compare_digest(_digest(key, address), digest)
        ),
        None,
    )


def _current_digest(settings: Settings, address: Key) -> str:
    return _digest(settings.secret_key.get_secret_value(), address)


def _digest(key: str, address: Key) -> str:
    """Six characters, enough to distinguish the addresses of one profile."""
    digest = hmac.digest(key.encode(), ":".join(address).encode(), sha256)
    return urlsafe_b64encode(digest[:4])[:6].decode()


class Confirmation(NamedTuple):
    """The opt-in that a confirmation link confirms: a topic on e-mail, for one address."""

    profile_id: int
    digest: str
    topic: str


def confirm_url(settings: Settings, profile_id: int, address: str, topic: str) -> str:
    """The link to the page on which the owner of an address confirms an opt-in on e-mail."""
    content = [profile_id, _current_digest(settings, (ADDRESS_KIND[CONFIRMED_ON], address)), topic]
    return f"{settings.public_url}/confirm/{_token(settings, _CONFIRM, content)}"


def read_confirmation(settings: Settings, token: str) -> Confirmation | None:
    """The content of a valid confirmation token; None for any other text."""
    content = _read(settings, _CONFIRM, token)
    return None if content is None else Confirmation(*content)


def our_pages(settings: Settings) -> tuple[str, ...]:
    """The URL prefixes of the customer's pages."""
    return tuple(settings.public_url + path for path in _PATHS)


def own_anchors(settings: Settings) -> re.Pattern[str]:
    """Matches the start of each `<a>` whose `href` is one of the customer's pages.

    Senders add the provider's attribute against tracking there: a click on these links is no
    evidence, and an unsubscribe must not depend on a redirect.
    """
    begin = "|".join(re.escape(escape(url)) for url in our_pages(settings))
    attributes = r"""(?:[^<>"']|"[^"]*"|'[^']*')*?"""
    return re.compile(rf"""<a\b(?={attributes}\shref\s*=\s*["']?\s*(?:{begin}))""", re.IGNORECASE)


def one_click_headers(unsubscribe_url: str) -> dict[str, str]:
    """The headers of a mail for one-click unsubscribe (RFC 8058)."""
    return {
        "List-Unsubscribe": f"<{unsubscribe_url}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def _token(settings: Settings, purpose: str, content: Any) -> str:
    token = _serializer(settings, purpose).dumps(content)
    assert isinstance(token, str)
    return token


def _read(settings: Settings, purpose: str, token: str) -> Any:
    try:
        return _serializer(settings, purpose).loads(token)
    except BadData:
        return None


def _serializer(settings: Settings, purpose: str) -> URLSafeSerializer:
    return _for_keys(_keys(settings), purpose)


def _keys(settings: Settings) -> tuple[str, ...]:
    """All accepted keys; the last one signs."""
    keys = [*settings.secret_keys_retired, settings.secret_key]
    return tuple(key.get_secret_value() for key in keys)


@lru_cache(maxsize=16)
def _for_keys(keys: tuple[str, ...], purpose: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        keys, salt=purpose, signer_kwargs={"key_derivation": "hmac", "digest_method": sha256}
    )
