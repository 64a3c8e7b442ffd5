"""The receiver served on the caller's event loop: in a worker, and in the demo."""

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from config.errors import SegueError
from config.settings import Settings
from flows.app import Segue
from flows.http.app import create_app
from flows.http.limits.connections import Config, Limits

# How long open requests may take to end at a stop, in seconds.
_GRACE = 10


@asynccontextmanager
async def serving(segue: Segue, arrived: Callable[[], object]) -> AsyncIterator[asyncio.Task[None]]:
    """The receiver on its port, as a task that ends only if the receiver does so by itself.

    `arrived` is called on this loop when something is committed that journeys react to. Raises
    SegueError when the port can't be had, and in the end whatever the receiver died of.
    """
    loop = asyncio.get_running_loop()
    app = create_app(segue, lambda: loop.call_soon_threadsafe(arrived))
    listener = _listen(segue.settings)
    proxies = segue.settings.trusted_proxies
    server = Server(Config(app, limits_here(), proxies, timeout_graceful_shutdown=_GRACE))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield task
    finally:
        server.should_exit = True
        await task


def limits_here() -> Limits:
    """Half of the files that the process may open stay free for the database and providers."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = Limits()
    if files == resource.RLIM_INFINITY:
        return limits
    return limits._replace(connections=min(limits.connections, files // 2))


def _listen(settings: Settings) -> socket.socket:
    """Taken before anything is claimed: who can't receive must not begin to send."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.receiver_port), family=family)
    except OSError as error:
        raise SegueError(
            f"the receiver can't listen on {settings.host}:{settings.receiver_port}: "
            f"{error.strerror}. Set SEGUE_RECEIVER_PORT to a free port"
        ) from error


class Server(uvicorn.Server):
    """uvicorn within our loop: signals are not its business; slow clients are."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._connections = config.connections

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        self._connections.tick(time.monotonic())
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them."""
        yield
