"""A stub of the providers in a process of its own: it accepts every message, and little else.

    python -m benchmarks.stub

It prints its port, answers POSTs on connections that stay open, and tells on GET how many it had,
and when each mail arrived. Far cheaper than any client, so that what is measured is the client.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import httpx
import uvloop

_ANSWER = (
    b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)


# Whom a mail is for: one of benchmarks.material.
_TO = re.compile(rb'"email":"customer\.(\d+)@')


class _Stub(asyncio.Protocol):
    accepted = 0
    arrivals: ClassVar[dict[str, float]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""
        self._since = 0.0

    def data_received(self, data: bytes) -> None:
        """Answer every whole request in the buffer; the clients name a Content-Length."""
        if not self._buffer:
            self._since = time.monotonic()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            content = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            if head.startswith(b"post"):
                _Stub.accepted += 1
                if b"/mail/send" in head and (to := _TO.search(content)):
                    _Stub.arrivals.setdefault(to[1].decode(), self._since)
                body = b'{"sid": "SM%032x", "status": "queued"}' % _Stub.accepted
                self._transport.write(_ANSWER % (b"201 Created", len(body), body))
            else:
                told = {"accepted": _Stub.accepted, "arrivals": _Stub.arrivals}
                body = json.dumps(told).encode()
                self._transport.write(_ANSWER % (b"200 OK", len(body), body))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Stub, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def running_stub() -> Iterator[int]:
    """The stub in a process of its own, until the block ends; gives its port."""
    command = [sys.executable, "-m", "benchmarks.stub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def accepted(port: int) -> int:
    """How many messages the stub has accepted so far."""
    return int(_asked(port)["accepted"])


def arrivals(port: int) -> dict[int, float]:
    """When the first mail to each customer arrived, by the monotonic clock."""
    return {int(number): at for number, at in _asked(port)["arrivals"].items()}


def _asked(port: int) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).json()
    return told


if __name__ == "__main__":
    uvloop.run(_serve())
