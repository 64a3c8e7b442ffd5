"""Who may speak: the write key of Segment's clients, and signed calls."""

import hmac
from collections.abc import Mapping
from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from config.errors import SegueError
from config.settings import Settings
from config.signatures import SIGNATURE, TIMESTAMP, sign
from config.times import MINUTE, Instant, Seconds
from flows.receiver.answers import Refusal

# A signed call is good for so long before and after the moment that it names.
TOLERANCE: Seconds = 5 * MINUTE

_basic = HTTPBasic(
    scheme_name="write key",
    description="The write key (SEGUE_WRITE_KEY) as the user name, no password.",
    auto_error=False,
)
Credentials = Annotated[HTTPBasicCredentials | None, Security(_basic)]


def refuse_defaults(settings: Settings) -> None:
    """Raises SegueError when real customers would be reached with secrets that everybody knows."""
    if settings.providers != "live":
        return
    for field in ("write_key", "hook_secret", "call_secret"):
        if getattr(settings, field) == Settings.model_fields[field].default:
            raise SegueError(
                f"SEGUE_{field.upper()} still has its default, which everybody knows: it lets "
                "others speak in its name. Set it to a long random text before real messages go out"
            )


def check_write_key(settings: Settings, credentials: HTTPBasicCredentials | None) -> None:
    """Raises Refusal (401)."""
    given = credentials.username.encode() if credentials is not None else b""
    if not hmac.compare_digest(given, settings.write_key.get_secret_value().encode()):
        raise Refusal(
            401,
            "not_signed_in",
            "sign in with the write key as the user name, with HTTP basic auth",
            headers={"WWW-Authenticate": "Basic"},
        )


def check_signature(
    settings: Settings, headers: Mapping[str, str], path: str, body: bytes
) -> tuple[str, Instant]:
    """The signature of a call and the moment it names. Raises Refusal (401).

    Whether the moment is now is `check_age`.
    """
    timestamp = headers.get(TIMESTAMP, "")
    given = headers.get(SIGNATURE, "").strip().lower()
    signature = sign(settings.hook_secret, timestamp, path, body)
    if not hmac.compare_digest(given.encode(), signature.encode()):
        raise Refusal(
            401,
            "not_signed",
            f"{SIGNATURE} is not the HMAC-SHA256 of {TIMESTAMP}, a dot, the path (such as "
            "/hooks/journeys/welcome), a dot and the body, as sent, with SEGUE_HOOK_SECRET; write "
            "it in hex",
        )
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise Refusal(401, "not_signed", f"{TIMESTAMP} is no time; write seconds since 1970")
    return signature, int(timestamp)


def check_age(named: Instant, now: Instant) -> None:
    """Raises Refusal (401) for a call that is not from now."""
    if abs(now - named) > TOLERANCE:
        raise Refusal(
            401,
            "stale",
            f"{TIMESTAMP} is {abs(now - named)} seconds away from now; sign it when you send it",
        )
