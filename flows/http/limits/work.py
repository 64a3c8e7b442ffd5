"""Work on requests: in how many threads it is done, and since when it has been under way."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, ParamSpec, TypeVar

from config.times import Seconds

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A fixed number of threads, apart from those in which the worker moves and sends people."""

    def __init__(self, number: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(number, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """Call it in one of the threads, as soon as one is free."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(*given, **named))


class Shared(Generic[T]):
    """Work whose result all share who ask for it at the same time: one thread is used at most.

    It is done in the event loop's own threads, beside the worker's other work.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """What the work returns or raises."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(asyncio.to_thread(self._work))
        return await asyncio.shield(self._task)


class InHand:
    """Requests that are received and not answered, and since when."""

    def __init__(self) -> None:
        self._since: dict[object, float] = {}

    @contextmanager
    def one(self) -> Iterator[None]:
        """A request is in hand for as long as the block lasts."""
        mark = object()
        self._since[mark] = time.monotonic()
        try:
            yield
        finally:
            del self._since[mark]

    def oldest(self) -> Seconds:
        """For how long the oldest of them has been in hand; 0 if there is none."""
        since = next(iter(self._since.values()), None)
        return 0 if since is None else int(time.monotonic() - since)
