"""Authentication by the write key, which Segment's client libraries send, and by signature."""

import hmac
from base64 import b64decode
from collections.abc import Mapping
from typing import NamedTuple

from fastapi import Request, Security
from fastapi.security import HTTPBasic

from config.access.signatures import SIGNATURE, TIMESTAMP, sign
from config.clock.times import MINUTE, Instant, Seconds
from config.settings import Settings
from flows.http.context import Receiver
from flows.http.errors import Refusal

# A signature is valid this long before and after its timestamp.
TOLERANCE: Seconds = 5 * MINUTE
_SIGNATURE_LENGTH = 64  # hex digits of a SHA-256

# For the description of a path; `check_write_key` checks.
WRITE_KEY = Security(
    HTTPBasic(
        scheme_name="write_key",
        description="The write key (SEGUE_WRITE_KEY) as the user name, no password.",
        auto_error=False,
    )
)


async def check_write_key(receiver: Receiver, request: Request) -> None:
    """Check the write key.

    Raises Refusal: 401 for a missing key, 401 after a delay for a wrong one, 429 if too many
    requests with a wrong key wait.
    """
    user = _user_of(request.headers.get("authorization", ""))
    if user is not None:
        key = receiver.segue.settings.write_key.get_secret_value()
        if hmac.compare_digest(user.encode(), key.encode()):
            return
        await receiver.guesses.wrong(request.client.host if request.client else "")
    raise Refusal(
        401,
        "not_signed_in",
        "sign in with the write key as the user name, with HTTP basic auth",
        headers={"WWW-Authenticate": "Basic"},
    )


def _user_of(authorization: str) -> str | None:
    """The user name of a header with HTTP basic auth (RFC 7617); None if it has none."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, separator, _ = b64decode(credentials).decode("ascii").partition(":")
    except ValueError:
        return None
    return user if separator else None


class SignedHeaders(NamedTuple):
    """The signature headers of a call, not yet verified."""

    signature: str
    timestamp: str

    @property
    def at(self) -> Instant:
        return int(self.timestamp)


def signed_headers(headers: Mapping[str, str]) -> SignedHeaders:
    """Parse the signature headers. Raises Refusal (401) for malformed ones.

    It runs before the body is read.
    """
    timestamp = headers.get(TIMESTAMP, "")
    signature = headers.get(SIGNATURE, "").strip().lower()
    if len(signature) != _SIGNATURE_LENGTH:
        raise _not_signed()
    if not (len(timestamp) <= 12 and timestamp.isascii() and timestamp.isdecimal()):
        raise Refusal(401, "not_signed", f"{TIMESTAMP} is not a time; write the seconds since 1970")
    return SignedHeaders(signature, timestamp)


def check_signature(settings: Settings, signed: SignedHeaders, path: str, body: bytes) -> None:
    """Verify the signature. Raises Refusal (401). `check_age` checks the time."""
    expected = sign(settings.hook_secret, signed.timestamp, path, body)
    if not hmac.compare_digest(signed.signature.encode(), expected.encode()):
        raise _not_signed()


def _not_signed() -> Refusal:
    return Refusal(
        401,
        "not_signed",
        f"{SIGNATURE} is not the HMAC-SHA256 of {TIMESTAMP}, a dot, the path (such as "
        "/hooks/journeys/welcome), a dot and the body, as sent, with SEGUE_HOOK_SECRET; write "
        "it in hex",
    )


def check_age(signed_at: Instant, now: Instant) -> None:
    """Check that a call was signed less than TOLERANCE ago or ahead. Raises Refusal (401)."""
    if abs(now - signed_at) > TOLERANCE:
        raise Refusal(
            401,
            "stale",
            f"{TIMESTAMP} is {abs(now - signed_at)} seconds before or after the current time; sign "
            "the call when you send it",
        )
