"""What must be set before real messages go out, and what is lost without it: the one list."""

import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from pydantic import SecretStr

from config.errors import SegueError
from config.settings import Settings

# An https:// address under a name that others can look up: no bare address, no machine's own name,
# no name that is reserved for private or example use (RFC 2606, 6761, 6762, 8375, 9476).
_PUBLIC_URL = re.compile(
    r"https://[^\s/?#@]+\.(?!(?:localhost|local|internal|lan|arpa|test|example|invalid|onion|alt)\b)"
    r"[a-z][a-z0-9-]+\.?(:\d+)?(/[^?#]*)?",
    re.IGNORECASE,
)
# What customers can reply to: a number, a short code or a messaging service.
_SENDER = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|MG[0-9a-fA-F]{32}")


class Need(NamedTuple):
    """A setting that real messages need.

    provider: the module in channels/providers/ that needs it; None: every installation does.
    lost: what goes wrong without it.
    fits: whether a value that is set, and not the default, will do.
    """

    setting: str
    provider: str | None
    lost: str
    fits: Callable[[str], object] = bool


NEEDS = (
    Need("secret_key", None, "it signs customers' links, and everybody knows the default"),
    Need("write_key", None, "it lets in who sends events, and everybody knows the default"),
    Need("hook_secret", None, "it lets in who starts journeys, and everybody knows the default"),
    Need("call_secret", None, "it signs the calls of Call steps, and everybody knows the default"),
    Need(
        "public_url",
        None,
        "without an https:// address that customers and providers reach, no unsubscribe and no "
        "STOP arrives",
        _PUBLIC_URL.fullmatch,
    ),
    Need("sendgrid_api_key", "sendgrid", "no mail can be sent"),
    Need("sendgrid_from", "sendgrid", "no mail can be sent"),
    Need(
        "sendgrid_webhook_key",
        "sendgrid",
        "SendGrid's events are refused, so unsubscribes, spam reports and bounces are lost (copy "
        "it from Settings, Mail Settings, Event Webhook, Signature Verification)",
    ),
    Need("twilio_account_sid", "twilio", "no text can be sent"),
    Need(
        "twilio_auth_token",
        "twilio",
        "no text can be sent, and Twilio's call-backs are refused, so every STOP is lost",
    ),
    Need(
        "twilio_from",
        "twilio",
        "customers reply STOP to it, so it is a number in E.164, a short code or a messaging "
        "service (MG...), not a name",
        _SENDER.fullmatch,
    ),
    Need("fcm_credentials_file", "fcm", "no push can be sent"),
)


def unmet_needs(settings: Settings, providers: Collection[str]) -> list[str]:
    """What is missing for real messages by these providers, in words; nothing in the sandbox.

    `providers` are names of modules in channels/providers/: another maker's needs do not count.
    """
    if settings.providers != "live":
        return []
    return [*_unmet(settings, providers), *_retired_default(settings), *_no_port(settings)]


def refuse_unmet_needs(settings: Settings, providers: Collection[str]) -> None:
    """Raises SegueError that names all settings that are missing, each with what is lost."""
    if unmet := unmet_needs(settings, providers):
        raise SegueError(
            f"SEGUE_PROVIDERS is live, but {'; '.join(unmet)}. "
            "Set what is missing, or SEGUE_PROVIDERS=sandbox"
        )


def _unmet(settings: Settings, providers: Collection[str]) -> Iterator[str]:
    for need in NEEDS:
        if need.provider is not None and need.provider not in providers:
            continue
        name = f"SEGUE_{need.setting.upper()}"
        value = getattr(settings, need.setting)
        default = Settings.model_fields[need.setting].default
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")
        if not text.strip() or value == default:
            yield f"{name} is not set: {need.lost}"
        elif not need.fits(text):
            yield f"{name} is {text!r}: {need.lost}"


def _retired_default(settings: Settings) -> Iterator[str]:
    if Settings.model_fields["secret_key"].default in settings.secret_keys_retired:
        yield "SEGUE_SECRET_KEYS_RETIRED has the default of SEGUE_SECRET_KEY: everybody knows it"


def _no_port(settings: Settings) -> Iterator[str]:
    if settings.receiver_port == 0:
        yield "SEGUE_RECEIVER_PORT is 0: the proxy can't pass call-backs to a port of chance"
