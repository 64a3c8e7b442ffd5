"""The settings that real messages require, and what is lost without each.

This file has the needs of every installation; a provider's file has its own.
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

    setting: the field of the settings model. lost: what goes wrong without it.
    fits: whether a value that is set, and not the default, is usable.
    """

    setting: str
    lost: str
    fits: Callable[[str], object] = bool


GENERAL = (
    Need("secret_key", "it signs customers' links, and everybody knows the default"),
    Need("write_key", "it lets in who sends events, and everybody knows the default"),
    Need("hook_secret", "it lets in who starts journeys, and everybody knows the default"),
    Need("call_secret", "it signs the calls of Call steps, and everybody knows the default"),
    Need(
        "public_url",
        "without an https:// address that customers and providers reach, no unsubscribe and no "
        "STOP arrives",
        _PUBLIC_URL.fullmatch,
    ),
)


def unmet(needs: Sequence[Need], settings: BaseSettings) -> Iterator[str]:
    """One sentence for each need that the settings do not meet."""
    model = type(settings)
    for need in needs:
        name = variable(model, need.setting)
        value = getattr(settings, need.setting)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
        if not text.strip() or value == model.model_fields[need.setting].default:
            yield f"{name} is not set: {need.lost}"
        elif not need.fits(text):
            shown = "not usable" if isinstance(value, SecretStr) else repr(text)
            yield f"{name} is {shown}: {need.lost}"


def unmet_general(settings: Settings) -> Iterator[str]:
    """One sentence for each general need that is not met."""
    yield from unmet(GENERAL, settings)
    if Settings.model_fields["secret_key"].default in settings.secret_keys_retired:
        yield "SEGUE_SECRET_KEYS_RETIRED has the default of SEGUE_SECRET_KEY: everybody knows it"
    if settings.receiver_port == 0:
        yield "SEGUE_RECEIVER_PORT is 0: the proxy can't pass call-backs to a port of chance"
