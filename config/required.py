"""The settings that are required for real messages, and the consequence if one is missing.

This module has the general requirements; each provider module has its own.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from config.settings import Settings, variable

# An https:// URL with a public name: no IP address, no single-label name, no name that is
# reserved for private or example use (RFC 2606, 6761, 6762, 8375, 9476).
_PUBLIC_URL = re.compile(
    r"https://[^\s/?#@]+\.(?!(?:localhost|local|internal|lan|arpa|test|example|invalid|onion|alt)\b)"
    r"[a-z][a-z0-9-]+\.?(:\d+)?(/[^?#]*)?",
    re.IGNORECASE,
)


class Need(NamedTuple):
    """A setting that real messages need.

    setting: the field of the settings model. lost: the consequence without it.
    fits: whether a value other than the default is valid.
    """

    setting: str
    lost: str
    fits: Callable[[str], object] = bool


GENERAL = (
    Need("secret_key", "it signs customers' links, and the default is public"),
    Need("write_key", "it authenticates senders of events, and the default is public"),
    Need("hook_secret", "it authenticates calls that start journeys, and the default is public"),
    Need("call_secret", "it signs the requests of Call steps, and the default is public"),
    Need(
        "public_url",
        "it must be an https:// URL that customers and providers reach, or no unsubscribe and no "
        "STOP arrives",
        _PUBLIC_URL.fullmatch,
    ),
)


def unmet(needs: Sequence[Need], settings: BaseSettings) -> Iterator[str]:
    """A text for each need that the settings do not meet."""
    model = type(settings)
    for need in needs:
        name = variable(model, need.setting)
        value = getattr(settings, need.setting)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
        if not text.strip() or value == model.model_fields[need.setting].default:
            yield f"{name} is not set: {need.lost}"
        elif not need.fits(text):
            shown = "invalid" if isinstance(value, SecretStr) else repr(text)
            yield f"{name} is {shown}: {need.lost}"


def unmet_general(settings: Settings) -> Iterator[str]:
    """A text for each general need that is not met."""
    yield from unmet(GENERAL, settings)
    if Settings.model_fields["secret_key"].default in settings.secret_keys_retired:
        yield "SEGUE_SECRET_KEYS_RETIRED has the default of SEGUE_SECRET_KEY, which is public"
    if settings.receiver_port == 0:
        yield "SEGUE_RECEIVER_PORT is 0: a proxy can't forward webhooks to a random port"
