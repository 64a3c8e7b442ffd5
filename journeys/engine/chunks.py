"""Chunks: how many enrollments or profiles one transaction takes, adapted to its duration.

A transaction blocks others until it ends: all writers on SQLite, those of its rows on PostgreSQL.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from config.batches import TimedSize
from config.database.engine import Database, Tx

# The target duration of a transaction, in seconds.
_ON_SQLITE = 0.04
_ON_POSTGRESQL = 0.25
# Smaller chunks cost more: each has the same statements, however many rows they write.
_SMALLEST, LARGEST = 500, 5000


@dataclass(slots=True)
class Chunk:
    """One transaction. size: the rows it may take. people: the rows it took, set by the caller."""

    tx: Tx
    size: int
    people: int = 0


class Chunks:
    """Opens chunks, and adapts the size of each kind of work to the duration of its last chunk.

    In a database with a sole user nobody waits for a transaction, and all chunks are the largest.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.largest = LARGEST
        aim = _ON_SQLITE if db.is_sqlite else _ON_POSTGRESQL
        smallest = LARGEST if db.sole_user else _SMALLEST
        self._sizes: dict[str, TimedSize] = defaultdict(
            lambda: TimedSize(aim, first=smallest, smallest=smallest, largest=LARGEST)
        )

    @contextmanager
    def transaction(self, kind: str, most: int = LARGEST) -> Iterator[Chunk]:
        """A chunk of at most `most` rows.

        kind: work that takes about the same time for each row.
        """
        with self._db.transaction() as tx:
            # The clock starts after the wait for other transactions.
            started = time.perf_counter()
            chunk = Chunk(tx, min(self._sizes[kind].size, most, self.largest))
            yield chunk
        self._sizes[kind].note(chunk.people, time.perf_counter() - started)
