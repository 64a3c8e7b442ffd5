"""Turns for the writers of an SQLite database, which has one write lock.

SQLite lets waiting writers poll for its lock at growing intervals, so a process that writes chunk
after chunk would keep it. Here a waiting writer goes first: whoever releases the turn has to queue
again behind it. The turns are only for fairness; SQLite's own lock excludes other writers.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.access.private_files import open_private

# Seconds between two tries to get a lock that another process holds.
_POLL = 0.001


class WriteTurn:
    """The turns of one database: between the threads of this process, and between processes.

    Parameters
    ----------
    file: the database's file; None for a database in memory, which one process uses.
    within: seconds after which a writer goes ahead without its turn, because the one that has the
        turn may hang.
    """

    def __init__(self, file: Path | None, within: float) -> None:
        self._within = within
        # The first of the waiting writers holds the queue until it has the turn.
        self._queue = threading.Lock()
        self._turn = threading.Lock()
        self._file = file
        self._descriptors: tuple[int, int] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait for the turn, and hold it for the block."""
        ends = time.monotonic() + self._within
        queued = self._queue.acquire(timeout=self._within)
        ours = self._turn.acquire(timeout=max(0.0, ends - time.monotonic()))
        if queued:
            self._queue.release()
        try:
            if ours and self._file is not None:
                with self._among_processes(self._file, ends):
                    yield
            else:
                yield
        finally:
            if ours:
                self._turn.release()

    @contextmanager
    def _among_processes(self, file: Path, ends: float) -> Iterator[None]:
        if self._descriptors is None:
            try:
                self._descriptors = _open(file, "queue"), _open(file, "turn")
            except OSError:  # a folder without write access: SQLite reports that better
                yield
                return
        queue, turn = self._descriptors
        queued = _lock(queue, ends)
        _lock(turn, ends)
        if queued:
            fcntl.flock(queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock files."""
        with self._turn:
            descriptors, self._descriptors = self._descriptors or (), None
            for one in descriptors:
                os.close(one)


def _open(file: Path, name: str) -> int:
    return open_private(f"{file}-{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)


def _lock(descriptor: int, ends: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                return False
            time.sleep(_POLL)
        else:
            return True
