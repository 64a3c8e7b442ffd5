"""Links that lead a customer from a message to their own pages.

A token is signed for one purpose: neither kind passes for the other. It names a profile's number
and the address that the message went to, the address as a keyed digest. An unsubscribe link does
not expire, for a link in an old mail must still stop the mail; a link to the preferences page does.
What revokes both is the key (docs/customer-pages.md says when and how).
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
    """What an unsubscribe link stops: messages about a topic, on a channel, to somebody.

    digest: of the address; empty in links of releases before the schema 0009.
    """

    profile_id: int
    channel: ChannelName
    topic: str
    digest: str = ""


class Access(NamedTuple):
    """Whose preferences a link opens.

    digest, made_at: of the address, and when the message went; empty in links of releases before
    the schema 0009.
    """

    profile_id: int
    digest: str = ""
    made_at: Instant | None = None


def unsubscribe_url(
    settings: Settings, profile_id: int, channel: ChannelName, topic: str, address: str
) -> str:
    """The one-click unsubscribe link (RFC 8058) for one person, channel, topic and address."""
    digest = _digest_now(settings, (ADDRESS_KIND[channel], address))
    named = [profile_id, channel, topic, digest]
    return f"{settings.public_url}/u/{_token(settings, _UNSUBSCRIBE, named)}"


def preferences_url(
    settings: Settings, profile_id: int, channel: ChannelName, address: str, now: Instant
) -> str:
    """The link to the page on which a person chooses what reaches them, and when."""
    digest = _digest_now(settings, (ADDRESS_KIND[channel], address))
    return f"{settings.public_url}/preferences/" + _token(
        settings, _PREFERENCES, [profile_id, digest, now]
    )


def read_unsubscribe(settings: Settings, token: str) -> Subscription | None:
    """What an unsubscribe token of ours names; None for any other text."""
    said = _read(settings, _UNSUBSCRIBE, token)
    return None if said is None else Subscription(*said)


def read_preferences(settings: Settings, token: str) -> Access | None:
    """What a preferences token of ours names; None for any other text."""
    said = _read(settings, _PREFERENCES, token)
    if said is None:
        return None
    return Access(said) if isinstance(said, int) else Access(*said)


def address_of(settings: Settings, digest: str, addresses: Iterable[Key]) -> Key | None:
    """Which of the addresses a link was made for; None: none of them."""
    return next(
        (
            address
            for address in addresses
            for key in _keys(settings)
            if hmac.compare_digest(_digest(key, address), digest)
        ),
        None,
    )


def _digest_now(settings: Settings, address: Key) -> str:
    return _digest(settings.secret_key.get_secret_value(), address)


def _digest(key: str, address: Key) -> str:
    """Six characters: enough to tell the addresses of one profile apart."""
    digest = hmac.digest(key.encode(), ":".join(address).encode(), sha256)
    return urlsafe_b64encode(digest[:4])[:6].decode()


class Confirmation(NamedTuple):
    """What a confirmation link confirms: a yes to a topic on e-mail, said for one address."""

    profile_id: int
    digest: str
    topic: str


def confirm_url(settings: Settings, profile_id: int, address: str, topic: str) -> str:
    """The link to the page on which the owner of an address confirms a yes on e-mail."""
    named = [profile_id, _digest_now(settings, (ADDRESS_KIND[CONFIRMED_ON], address)), topic]
    return f"{settings.public_url}/confirm/{_token(settings, _CONFIRM, named)}"


def read_confirmation(settings: Settings, token: str) -> Confirmation | None:
    """What a confirmation token of ours names; None for any other text."""
    said = _read(settings, _CONFIRM, token)
    return None if said is None else Confirmation(*said)


def our_pages(settings: Settings) -> tuple[str, ...]:
    """What the links to customers' pages begin with."""
    return tuple(settings.public_url + path for path in _PATHS)


def own_anchors(settings: Settings) -> re.Pattern[str]:
    """Matches the beginning of each `<a>` whose `href` is one of customers' own pages.

    Providers have an attribute for links that are not to be tracked: a click on one of these is no
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
    return _for_keys(_keys(settings), purpose)


def _keys(settings: Settings) -> tuple[str, ...]:
    """The last key signs, all of them are accepted."""
    keys = [*settings.secret_keys_retired, settings.secret_key]
    return tuple(key.get_secret_value() for key in keys)


@lru_cache(maxsize=16)
def _for_keys(keys: tuple[str, ...], purpose: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        keys, salt=purpose, signer_kwargs={"key_derivation": "hmac", "digest_method": sha256}
    )
