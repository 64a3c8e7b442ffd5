"""Threads for the work of requests, and the age of requests in progress."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, ParamSpec, TypeVar

from config.clock.times import Seconds

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A fixed number of threads, separate from those of the engine and the dispatcher."""

    def __init__(self, number: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(number, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """Call `work` in one of the threads, when one is free."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(*given, **named))


async def at_once(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Call `work` on the event loop: work that takes about as long as its way to a thread."""
    return work(*given, **named)


class Shared(Generic[T]):
    """Work whose result all concurrent callers share, so that it uses at most one thread.

    It runs in the event loop's default threads.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return what the work returns. Raises what the work raises."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(asyncio.to_thread(self._work))
        return await asyncio.shield(self._task)


class InProgress:
    """The requests that were received and have no response yet."""

    def __init__(self) -> None:
        self._since: dict[object, float] = {}

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one request for the duration of the block."""
        mark = object()
        self._since[mark] = time.monotonic()
        try:
            yield
        finally:
            del self._since[mark]

    def oldest(self) -> Seconds:
        """The age of the oldest request without a response, in seconds; 0 if there is none."""
        since = next(iter(self._since.values()), None)
        return 0 if since is None else int(time.monotonic() - since)
