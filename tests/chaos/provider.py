"""SendGrid, Twilio and FCM in one process that fails at times and records every request.

It records each message of a request before it responds, so the accepted messages are known even if
a process is killed next. The response to a request depends on the seed, the first message, its
address, and the number of earlier requests with it.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
import orjson

from tests.support.shop import read_request

Fault = Literal["429", "503", "500", "gone", "slow", "cut before", "cut after", "silent", "outage"]
# How many of a hundred requests meet what.
FAULTS: dict[Fault, int] = {
    "429": 4,
    "503": 3,
    "500": 2,
    "gone": 2,
    "slow": 8,
    "cut before": 2,
    "cut after": 2,
    "silent": 1,
}
# What FCM answers for a device that is not registered any more.
_GONE = orjson.dumps(
    {
        "error": {
            "details": [
                {
                    "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                    "errorCode": "UNREGISTERED",
                }
            ]
        }
    }
)
# A message that came so often is left alone, so that every run ends.
_PATIENCE = 3
_SLOW = (0.1, 1.5)


class Outage(NamedTuple):
    """A time, in seconds from the start, in which everything on a channel is answered 503."""

    channel: str
    begins: float
    ends: float


class Heard(NamedTuple):
    """One message in one request. device: the token of a push; empty for other channels."""

    message_id: int
    device: str
    at: float
    accepted: bool
    fault: Fault | None


def remembered(file: Path) -> list[Heard]:
    """Everything that was ever handed over."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [Heard._make(orjson.loads(line)) for line in lines]


def serve(port: int, file: str, seed: int, outages: Sequence[Outage]) -> None:
    """Answer until killed."""
    asyncio.run(_Provider(file, seed, outages).serve(port))


class _Provider:
    def __init__(self, file: str, seed: int, outages: Sequence[Outage]) -> None:
        self._memory = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._seed = seed
        self._outages = outages
        self._came: Counter[tuple[int, str]] = Counter()
        self._began = time.monotonic()

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", port, backlog=1000)
        await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(*await _request(reader), writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays open."""
        sent = list(read_request(httpx.Request("POST", f"http://x{path}", content=body)))
        channel = sent[0].channel
        posts = [(one.message_id, one.to if channel == "push" else "") for one in sent]
        fault, patience = self._meets(channel, posts)
        accepted = fault in (None, "slow", "cut after", "silent")
        self._remember(posts, accepted, fault)
        if fault in ("cut before", "cut after"):
            return False
        if fault == "slow":
            await asyncio.sleep(patience)
        if fault == "silent":
            await asyncio.sleep(60)
        status = {"429": "429 No", "500": "500 No", "gone": "404 No"}.get(fault or "", "503 No")
        head = [f"HTTP/1.1 {'202 Accepted' if accepted else status}"]
        said = _GONE if fault == "gone" else b"{}"
        head += [f"Date: {formatdate(usegmt=True)}", f"Content-Length: {len(said)}"]
        if fault == "429":
            head.append("Retry-After: 1")
        if fault in ("503", "outage"):
            head.append(f"Retry-After: {formatdate(time.time() + 2, usegmt=True)}")
        writer.write("\r\n".join([*head, "", ""]).encode() + said)
        await writer.drain()
        return True

    def _meets(self, channel: str, posts: Sequence[tuple[int, str]]) -> tuple[Fault | None, float]:
        """The fault that a request meets, and how long it takes if it is slow."""
        since = time.monotonic() - self._began
        if any(one.channel == channel and one.begins <= since < one.ends for one in self._outages):
            return "outage", 0
        before = max(self._came[one] for one in posts)
        self._came.update(posts)
        draw = random.Random(f"{self._seed}/{posts[0]}/{before}")
        if before >= _PATIENCE:
            return None, 0
        place = draw.uniform(0, 100)
        for fault, share in FAULTS.items():
            place -= share
            # What is not for this channel is taken for the next kind.
            if place < 0 and (fault != "gone" or channel == "push"):
                return fault, draw.uniform(*_SLOW)
        return None, 0

    def _remember(
        self, posts: Sequence[tuple[int, str]], accepted: bool, fault: Fault | None
    ) -> None:
        lines = [
            orjson.dumps(
                [
                    *Heard(
                        message_id=message_id,
                        device=device,
                        at=time.time(),
                        accepted=accepted,
                        fault=fault,
                    )
                ]
            )
            for message_id, device in posts
        ]
        os.write(self._memory, b"".join(line + b"\n" for line in lines))


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Path and body of the next request."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    return first.split(" ")[1], await reader.readexactly(int(headers["content-length"]))
