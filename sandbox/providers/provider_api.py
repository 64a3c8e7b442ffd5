"""The types between the server and a provider look-alike: one call in, one response out."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import orjson

from config.clock.times import Instant
from sandbox.store import Accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """One request as received."""

    headers: Mapping[str, str]
    path: Mapping[str, str]  # the account, the project
    body: bytes
    now: Instant
    # phone numbers that replied STOP, and mail addresses that are inactive at Postmark
    opted_out: Set[str]


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The response, and the messages that were accepted."""

    status: int
    body: bytes
    _: KW_ONLY
    headers: dict[str, str] = field(default_factory=dict)
    accepted: Sequence[Accepted] = ()


class LookAlike(Protocol):
    """A look-alike of one provider's sending endpoint: a module with these two functions."""

    def answer(self, call: ApiCall, /) -> ApiResponse:
        """Validate a request as the provider does."""

    def failure(self, status: int, call: ApiCall, /, retry_after: int) -> ApiResponse:
        """The provider's error body for 401, 403, 429, 500 or 503."""


def json_answer(
    status: int,
    body: Any,
    headers: dict[str, str] | None = None,
    accepted: Sequence[Accepted] = (),
) -> ApiResponse:
    """A response with a JSON body."""
    return ApiResponse(
        status,
        orjson.dumps(body),
        headers={"Content-Type": "application/json", **(headers or {})},
        accepted=accepted,
    )


def bearer(call: ApiCall) -> str:
    """The token of an `Authorization: Bearer` header; empty if there is none."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def json_type(value: Any) -> str:
    """The JSON name of a value's type."""
    for kind, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
        (dict, "object"),
    ):
        if isinstance(value, kind):
            return name
    return "null"
