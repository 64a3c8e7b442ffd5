"""What passes between the server and a provider look-alike: one call in, one answer out."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from config.times import Instant
from sandbox.store import Accepted


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came."""

    headers: Mapping[str, str]
    path: Mapping[str, str]  # the account, the project
    body: bytes
    now: Instant
    opted_out: Set[str]  # the phone numbers that replied STOP


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, and the messages that were taken on."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    accepted: Sequence[Accepted] = ()


class Provider(Protocol):
    """A look-alike of one provider's sending endpoint; a module with these two is one."""

    def answer(self, call: Call, /) -> Answer:
        """Judge a request as the provider would."""

    def failure(self, status: int, call: Call, /, retry_after: int) -> Answer:
        """The provider's own words for 401, 403, 429, 500 or 503."""


def json_answer(
    status: int,
    body: Any,
    headers: dict[str, str] | None = None,
    accepted: Sequence[Accepted] = (),
) -> Answer:
    """An answer with a JSON body."""
    return Answer(
        status,
        orjson.dumps(body),
        {"Content-Type": "application/json", **(headers or {})},
        accepted,
    )


def bearer(call: Call) -> str:
    """The token of an `Authorization: Bearer` header; empty when there is none."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def json_type(value: Any) -> str:
    """What JSON calls the type of a value."""
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
