"""The cost of an unauthenticated request grows at most linearly with its size."""

import asyncio
import gzip
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
from fastapi import FastAPI
from starlette.types import Message, Scope

from flows.http.app import create_app
from flows.http.limits.guessing import Guesses
from tests.support.http.receiving import WRITE_KEY
from tests.support.shop import House

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
DISPOSITION = b'--x\r\nContent-Disposition: form-data; name="a"'
TWILIO = {"x-twilio-signature": "a" * 28, "content-type": FORM}
SENDGRID = {
    "x-twilio-email-event-webhook-signature": "a" * 96,
    "x-twilio-email-event-webhook-timestamp": "1",
}
SIGNED = {"x-segue-signature": "a" * 64, "x-segue-timestamp": "1"}
KEY = {"authorization": f"Basic {b64encode(WRITE_KEY.encode() + b':').decode()}"}


class Asked(NamedTuple):
    """A request of a stranger."""

    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    method: str = "POST"
    query: str = ""


def repeated(unit: bytes, size: int) -> bytes:
    return unit * (size // len(unit))


def form(kind: str, make: Callable[[int], bytes]) -> Callable[[int], Asked]:
    return lambda size: Asked("/u/x", headers={"content-type": kind}, body=make(size))


def part(inside: bytes) -> bytes:
    return DISPOSITION + b"\r\n\r\n" + inside + b"\r\n--x--\r\n"


def batch(make: Callable[[int], bytes]) -> Callable[[int], Asked]:
    return lambda size: Asked("/v1/batch", headers=KEY, body=make(size))


# A request by its size in bytes, and the largest size that is read.
ATTACKS: dict[str, tuple[Callable[[int], Asked], int]] = {
    "twilio: fields": (
        lambda size: Asked("/hooks/twilio/inbound", headers=TWILIO, body=repeated(b"a&", size)),
        64_000,
    ),
    "twilio: one field": (
        lambda size: Asked(
            "/hooks/twilio/inbound", headers=TWILIO, body=b"a=" + repeated(b"%41", size)
        ),
        64_000,
    ),
    "twilio: query": (
        lambda size: Asked(
            "/hooks/twilio/status", headers=TWILIO, query="&".join(["bodySHA256=a"] * (size // 13))
        ),
        8_000,
    ),
    "twilio: json": (
        lambda size: Asked(
            "/hooks/twilio/inbound",
            headers={**TWILIO, "content-type": "application/json"},
            body=repeated(b"[", size),
        ),
        64_000,
    ),
    "sendgrid": (
        lambda size: Asked("/hooks/sendgrid", headers=SENDGRID, body=repeated(b"[", size)),
        1_000_000,
    ),
    "journey": (
        lambda size: Asked("/hooks/journeys/j", headers=SIGNED, body=repeated(b"[", size)),
        500_000,
    ),
    "form: fields": (form(FORM, lambda size: repeated(b"a=b&", size)), 64_000),
    "form: one field": (form(FORM, lambda size: b"a=" + repeated(b"%41", size)), 64_000),
    "form: separators": (form(FORM, lambda size: repeated(b"&", size)), 64_000),
    "multipart: parts": (
        form(MULTIPART, lambda size: repeated(DISPOSITION + b"\r\n\r\n\r\n", size)),
        64_000,
    ),
    "multipart: files": (
        form(MULTIPART, lambda size: repeated(DISPOSITION + b"; filename=a\r\n\r\n\r\n", size)),
        64_000,
    ),
    "multipart: line ends": (form(MULTIPART, lambda n: part(repeated(b"\r\n-", n))), 64_000),
    "multipart: dashes": (form(MULTIPART, lambda n: part(repeated(b"\r\n--", n))), 64_000),
    "multipart: options": (
        form(MULTIPART, lambda n: DISPOSITION + repeated(b";a=b", n) + b"\r\n\r\n"),
        64_000,
    ),
    "multipart: quotes": (
        form(MULTIPART, lambda n: DISPOSITION + b';a="' + repeated(b'\\"', n) + b"\r\n\r\n"),
        64_000,
    ),
    "multipart: a slow codec": (
        form(f"{MULTIPART}; charset=punycode", lambda n: part(b"-" + repeated(b"a", n))),
        64_000,
    ),
    "content-type": (
        lambda size: Asked(
            "/u/x", headers={"content-type": MULTIPART + ';a="' * (size // 4)}, body=b"--x"
        ),
        32_000,
    ),
    "token": (lambda size: Asked("/u/" + "a." * (size // 2), method="GET"), 8_000),
    "path": (lambda size: Asked("/" * size, method="GET"), 8_000),
    "profile: value": (
        lambda size: Asked("/v1/profiles/phone:" + "1-" * (size // 2), headers=KEY, method="GET"),
        8_000,
    ),
    "profile: fields": (
        lambda size: Asked(
            "/v1/profiles/user_id:a",
            headers=KEY,
            method="GET",
            query="fields=" + "a," * (size // 2),
        ),
        8_000,
    ),
    "a wrong key": (
        lambda size: Asked("/v1/track", headers={"authorization": "Basic " + "YTph" * (size // 4)}),
        32_000,
    ),
    "a key of no kind": (
        lambda size: Asked("/v1/track", headers={"authorization": " " * size}),
        32_000,
    ),
    # With the write key, which apps may hold.
    "json: depth": (batch(lambda size: repeated(b"[", size)), 500_000),
    "json: half emoji": (batch(lambda n: b'{"batch":"' + repeated(rb"\ud800", n) + b'"}'), 500_000),
    "json: NaN": (batch(lambda n: b'{"batch":[' + repeated(b"NaN,", n) + b"0]}"), 500_000),
    "json: digits": (batch(lambda n: b'{"batch":' + repeated(b"9", n) + b"}"), 500_000),
    "json: numbers": (
        batch(lambda n: b'{"a":[' + repeated(b"9" * 4000 + b",", n) + b"0]}"),
        500_000,
    ),
    "json: names": (
        batch(lambda n: b"{" + b",".join(b'"%d":0' % one for one in range(n // 9)) + b"}"),
        500_000,
    ),
    "gzip": (
        lambda size: Asked(
            "/v1/batch",
            headers={**KEY, "content-encoding": "gzip"},
            body=gzip.compress(b"[" * size * 40, 1),
        ),
        50_000,
    ),
}


async def answered(app: FastAPI, asked: Asked) -> int:
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": asked.body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: Scope = {
        "type": "http",
        "method": asked.method,
        "path": asked.path,
        "query_string": asked.query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in asked.headers.items()],
    }
    await app(scope, receive, send)
    [status] = statuses
    return status


@pytest.mark.parametrize("name", ATTACKS)
def test_four_times_the_size_costs_four_times_the_work(sqlite_house: House, name: str) -> None:
    """By the processor's time, which other programs do not add to; a square would be 16 times."""
    make, largest = ATTACKS[name]
    app = create_app(sqlite_house.open(), lambda _: None, Guesses(wait=0))
    small, large = make(largest // 4), make(largest)

    async def cost(asked: Asked) -> float:
        costs = []
        for _ in range(5):
            begun = time.process_time()
            assert await answered(app, asked) in (200, 400, 401, 403, 404, 413)
            costs.append(time.process_time() - begun)
        return min(costs)

    async def costs() -> tuple[float, float]:
        return await cost(small), await cost(large)

    of_small, of_large = asyncio.run(costs())
    assert of_large < 8 * of_small + 0.01
