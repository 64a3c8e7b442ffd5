"""The receiver as a real server on a free port, for tests that talk HTTP to it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from flows.app import Segue
from flows.receiver.app import create_app

WRITE_KEY = "write-key-for-the-sandbox-only"


class Receiving:
    """A running receiver. `told`: how often it said that something arrived."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self.client = client
        self.told = 0

    def post(self, path: str, **options: object) -> httpx.Response:
        """Post as one who has the write key, unless told otherwise."""
        return self.client.post(path, **({"auth": (WRITE_KEY, "")} | options))  # type: ignore[arg-type]


@contextmanager
def receiving(segue: Segue) -> Iterator[Receiving]:
    """Serve until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=30) as client:
            receiver = Receiving(url, client)

            def arrived() -> None:
                receiver.told += 1

            server = uvicorn.Server(
                uvicorn.Config(
                    create_app(segue, arrived),
                    access_log=False,
                    log_config=None,
                    lifespan="off",
                    ws="none",
                )
            )
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                while not server.started:
                    time.sleep(0.005)
                yield receiver
            finally:
                server.should_exit = True
                thread.join()
