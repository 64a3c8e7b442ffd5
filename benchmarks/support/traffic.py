"""A fast client that sends prepared requests over persistent connections."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, cast

import orjson

from config.settings import Settings

_FRESH = 3.0  # seconds
_KEY = b64encode(Settings().write_key.get_secret_value().encode() + b":")


def read_of(path: str) -> bytes:
    """A complete GET request with the write key."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {_KEY.decode()}\r\n\r\n"
    return head.encode()


def request_of(path: str, value: Any) -> bytes:
    """A complete POST request with the write key."""
    body = orjson.dumps(value)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nAuthorization: Basic {_KEY.decode()}\r\n\r\n"
    )
    return head.encode() + body


class Shop:
    """Sends to the receivers in turn, with one connection per concurrent request."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._idle: dict[int, list[_Connection]] = {port: [] for port in ports}
        self._turn = 0

    async def send(self, request: bytes) -> tuple[float, int]:
        """Send a request. Returns when its first byte left (monotonic clock), and the status."""
        port = self._ports[self._turn % len(self._ports)]
        self._turn += 1
        idle = self._idle[port]
        # The connection used last. The receiver closes connections that are idle for 5 seconds.
        connection = idle.pop() if idle else None
        if connection is None or time.monotonic() - connection.used > _FRESH:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, "127.0.0.1", port
            )
        left = connection.used = time.monotonic()
        status = await connection.ask(request)
        idle.append(connection)
        return left, status

    def close(self) -> None:
        """Close all connections."""
        for idle in self._idle.values():
            for connection in idle:
                connection.transport.close()


class _Connection(asyncio.Protocol):
    """A connection with one request at a time. Responses must have a Content-Length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.used = 0.0
        self._buffer = b""
        self._answered: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request. Returns a future of the response's status."""
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) >= end + 4 + length:
            status = int(self._buffer[9:12])
            self._buffer = b""
            if self._answered is not None:
                self._answered.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error or ConnectionResetError("closed by the receiver"))
