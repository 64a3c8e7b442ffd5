"""Chunks sized by time: how many people one transaction takes.

SQLite has one writer, and PostgreSQL's rows are locked: others wait until a transaction ends.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from config.batches import TimedSize
from config.database import Database, Tx

# How long a transaction should take, in seconds.
_ON_SQLITE = 0.04
_ON_POSTGRESQL = 0.25
FIRST, _SMALLEST, LARGEST = 250, 50, 5000


@dataclass(slots=True)
class Chunk:
    """One transaction, and how many people it may take; who takes them says how many it took."""

    tx: Tx
    size: int
    people: int = 0


class Chunks:
    """Learns from every chunk how large the next one of its kind may be."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.largest = LARGEST
        aim = _ON_SQLITE if db.is_sqlite else _ON_POSTGRESQL
        self._sizes: dict[str, TimedSize] = defaultdict(
            lambda: TimedSize(aim, first=FIRST, smallest=_SMALLEST, largest=LARGEST)
        )

    @contextmanager
    def transaction(self, kind: str, most: int = LARGEST, *, keep: bool = True) -> Iterator[Chunk]:
        """A chunk of at most `most` people, of a kind of work that takes about as long for each."""
        with self._db.transaction(keep=keep) as tx:
            # Counted from here: the wait for others to end theirs says nothing about ours.
            started = time.perf_counter()
            chunk = Chunk(tx, min(self._sizes[kind].size, most, self.largest))
            yield chunk
        self._sizes[kind].note(chunk.people, time.perf_counter() - started)
