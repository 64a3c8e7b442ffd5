"""Serve the receiver on the caller's event loop, in a worker or in the demo."""

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from config.errors import SegueError
from config.settings import Settings, variable
from flows.app import Segue
from flows.http.app import create_app
from flows.http.limits.connections import Config, Limits

# The seconds after a stop in which open requests can end.
GRACE = 10


@asynccontextmanager
async def serving(
    segue: Segue, arrived: Callable[[Collection[int]], object]
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve the receiver; yields its task, which ends early only if the server fails.

    It calls `arrived` on this loop after committing something that journeys react to, with the
    buckets of the events. Raises SegueError if the port is not available, and at the end the
    server's error, if it failed.
    """
    loop = asyncio.get_running_loop()
    app = create_app(segue, lambda buckets: loop.call_soon_threadsafe(arrived, buckets))
    listener = listen(segue.settings, "receiver_port", "the receiver")
    proxies = segue.settings.trusted_proxies
    server = Server(Config(app, limits_here(), proxies, timeout_graceful_shutdown=GRACE))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield task
    finally:
        server.should_exit = True
        await task


def limits_here() -> Limits:
    """The limits for this process: connections use at most half of its file descriptors.

    The database and the providers' requests need the others.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = Limits()
    if files == resource.RLIM_INFINITY:
        return limits
    return limits._replace(connections=min(limits.connections, files // 2))


def listen(settings: Settings, field: str, what: str) -> socket.socket:
    """Open the port that a field of the settings names. Raises SegueError if it is not available.

    A worker does this before it claims messages, so a worker without a port sends none.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    port: int = getattr(settings, field)
    try:
        return socket.create_server((settings.host, port), family=family)
    except OSError as error:
        raise SegueError(
            f"{what} can't listen on {settings.host}:{port}: {error.strerror}. Set "
            f"{variable(Settings, field)} to a free port"
        ) from error


class Server(uvicorn.Server):
    """uvicorn's server on the caller's loop. It closes slow connections."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._connections = config.connections

    async def on_tick(self, counter: int) -> bool:
        """Close slow connections. uvicorn calls this ten times a second."""
        self._connections.tick(time.monotonic())
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: the worker has its own."""
        yield
