"""The types between the server and a provider look-alike: one call in, one response out."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from config.times import Instant
from sandbox.store import Accepted


@dataclass(frozen=True, slots=True)
class Call:
    """One request as received."""

    headers: Mapping[str, str]
    path: Mapping[str, str]  # the account, the project
    body: bytes
    now: Instant
    opted_out: Set[str]  # phone numbers that replied STOP


@dataclass(frozen=True, slots=True)
class Answer:
    """The response, and the messages that were accepted."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    accepted: Sequence[Accepted] = ()


class Provider(Protocol):
    """A look-alike of one provider's sending endpoint: a module with these two functions."""

    def answer(self, call: Call, /) -> Answer:
        """Validate a request as the provider does."""

    def failure(self, status: int, call: Call, /, retry_after: int) -> Answer:
        """The provider's error body for 401, 403, 429, 500 or 503."""


def json_answer(
    status: int,
    body: Any,
    headers: dict[str, str] | None = None,
    accepted: Sequence[Accepted] = (),
) -> Answer:
    """A response with a JSON body."""
    return Answer(
        status,
        orjson.dumps(body),
        {"Content-Type": "application/json", **(headers or {})},
        accepted,
    )


def bearer(call: Call) -> str:
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
