"""Who sends: the key of a request, and the signature of calls that start journeys.

A key is looked for in HTTP basic auth, then as a bearer token, then as `writeKey` in the body, then
in the query. Clients differ in where they put it (docs/start/clients.md).
"""

import hmac
import logging
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import Request, Security
from fastapi.security import HTTPBasic

from config.access.api_keys import ApiKey, digest_of
from config.access.signatures import SIGNATURE, TIMESTAMP, sign
from config.clock.times import MINUTE, Instant, Seconds
from config.settings import Settings
from flows.http.context import Receiver
from flows.http.errors import Refusal
from flows.http.limits.clients import client_of
from flows.http.limits.rates import Rates

log = logging.getLogger(__name__)

# A signature is valid this long before and after its timestamp.
TOLERANCE: Seconds = 5 * MINUTE
_SIGNATURE_LENGTH = 64  # hex digits of a SHA-256
# The key of the setting SEGUE_WRITE_KEY.
_SETTING = ApiKey("SEGUE_WRITE_KEY")

# For the description of a path; `Authentication` checks.
WRITE_KEY = Security(
    HTTPBasic(
        scheme_name="write_key",
        description="A key as the user name, no password: SEGUE_WRITE_KEY, or one of `segue keys`.",
        auto_error=False,
    )
)


class Authentication:
    """Checks the key of each request, and counts the calls of public keys.

    Its methods raise Refusal: 401 for a missing key, 401 after a delay for a wrong one, 429 if too
    many requests with a wrong key wait or a public key is over its rate, 403 for a public key where
    it may not be used.
    """

    def __init__(self, receiver: Receiver) -> None:
        settings = receiver.segue.settings
        self._receiver = receiver
        self._own = settings.write_key.get_secret_value().encode()
        self._key_rates = Rates(settings.public_key_rate)
        self._address_rates = Rates(settings.public_address_rate)

    async def in_headers(self, request: Request) -> ApiKey | None:
        """The key in the headers; None if there is none."""
        key = _in_authorization(request.headers.get("authorization", ""))
        return await self._known(request, key) if key else None

    async def in_body(self, request: Request, body: Mapping[str, Any]) -> ApiKey:
        """The key in a parsed body, or in the query, of a request without one in the headers."""
        key = body.get("writeKey") or request.query_params.get("writeKey")
        if not key or not isinstance(key, str):
            raise _no_key(request)
        return await self._known(request, key)

    async def server_key(self, request: Request) -> ApiKey:
        """The server key in the headers."""
        key = await self.in_headers(request)
        if key is None:
            raise _no_key(request)
        if key.is_public:
            raise Refusal(403, "public_key", "this path needs a server key")
        return key

    async def public_key(self, request: Request, key: str | None = None) -> ApiKey:
        """The public key `key`; None: the one in the headers or the query."""
        key = key or _in_authorization(request.headers.get("authorization", ""))
        key = key or request.query_params.get("writeKey")
        found = await self._known(request, key) if key else None
        if found is None or not found.is_public:
            raise _no_key(request)
        return found

    def check_rate(self, key: ApiKey, request: Request) -> None:
        """Refuse a request with a public key that is over its rate, or whose address is."""
        if not key.is_public:
            return
        wait = max(self._key_rates.wait(key.label), self._address_rates.wait(_address(request)))
        if wait:
            log.warning("calls with the public key %s are over their rate", key.label)
            raise Refusal(
                429,
                "too_many",
                "too many calls with this key or from this address; send the request again later",
                headers={"Retry-After": str(wait)},
            )

    def count(self, key: ApiKey, request: Request, calls: int) -> None:
        """Count calls with a public key, after `check_rate`."""
        if key.is_public:
            self._key_rates.take(key.label, calls)
            self._address_rates.take(_address(request), calls)

    async def _known(self, request: Request, key: str) -> ApiKey:
        if hmac.compare_digest(key.encode(), self._own):
            return _SETTING
        found = (await self._receiver.keys.current()).by_digest.get(digest_of(key))
        if found is None:
            await self._receiver.guesses.wrong(request.client.host if request.client else "")
            raise _no_key(request)
        origin = request.headers.get("origin")
        if found.is_public and origin is not None and origin not in found.origins:
            log.warning("a page of another origin uses the public key %s", found.label)
            raise Refusal(403, "origin", "pages of this origin may not use this key")
        return found


def _address(request: Request) -> str:
    return client_of(request.client.host if request.client else "")


def _no_key(request: Request) -> Refusal:
    # A browser would ask the visitor of a page for a password.
    by_page = "origin" in request.headers
    return Refusal(
        401,
        "not_signed_in",
        "send a valid key: as the user name of HTTP basic auth, as a bearer token, or as writeKey "
        "in the body",
        headers={} if by_page else {"WWW-Authenticate": "Basic"},
    )


def _in_authorization(authorization: str) -> str | None:
    """The user name of HTTP basic auth (RFC 7617), or the bearer token (RFC 6750); None if there
    is neither."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        user, separator, _ = b64decode(credentials).decode("ascii").partition(":")
    except ValueError:
        return None
    return user if separator and user else None


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
