"""A stub of the providers as a separate process. It accepts every message.

    python -m benchmarks.support.stub

prints its port. It responds to POST on persistent connections, and to GET with the number of
accepted messages. It needs far less time than any client, so the client determines the result.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import httpx
import uvloop

_ANSWER = (
    b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)


class _Stub(asyncio.Protocol):
    accepted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        """Respond to every complete request in the buffer. Clients must send a Content-Length."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            if (at := head.find(b"content-length:")) >= 0:
                length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            if head.startswith(b"post"):
                _Stub.accepted += 1
                body = b'{"sid": "SM%032x", "status": "queued"}' % _Stub.accepted
                self._transport.write(_ANSWER % (b"201 Created", len(body), body))
            else:
                body = b'{"accepted": %d}' % _Stub.accepted
                self._transport.write(_ANSWER % (b"200 OK", len(body), body))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Stub, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def running_stub() -> Iterator[int]:
    """Run the stub as a separate process until the block ends; yields its port."""
    command = [sys.executable, "-m", "benchmarks.support.stub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def accepted(port: int) -> int:
    """The number of messages that the stub has accepted."""
    answer = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
    return int(answer.json()["accepted"])


if __name__ == "__main__":
    uvloop.run(_serve())
