"""The live keys in memory, read again at most once a second, so that no call costs a statement."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from config.access.api_keys import ApiKey, live_keys
from config.clock.times import Instant
from config.database.engine import Database
from config.database.failures import of_the_database
from flows.http.limits.work import Shared


class LiveKeys(NamedTuple):
    """The live keys by digest, the origins of all public ones, and when they were read.

    at: by the database's clock. monotonic: by this machine's.
    """

    by_digest: Mapping[str, ApiKey]
    origins: frozenset[str]
    at: Instant
    monotonic: float


class KeyCache:
    """Reads the keys when a request needs them and the last read is `keys_every` seconds old."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keys: LiveKeys | None = None
        self._read_at = 0.0
        self._reading = Shared(self._read)

    async def current(self) -> LiveKeys:
        """The live keys; while the database fails, those of the last read.

        Raises the database's error if there was no read yet.
        """
        now = time.monotonic()
        if self._keys is None or now - self._read_at >= self._db.timing.keys_every:
            self._read_at = now
            try:
                self._keys = await self._reading.get()
            except Exception as error:
                if self._keys is None or not of_the_database(error):
                    raise
        return self._keys

    @property
    def now(self) -> Instant:
        """The database's time, without a statement: that of the last read and what passed since.

        Only for a request with a key from `current`.
        """
        assert self._keys is not None
        return self._keys.at + int(time.monotonic() - self._keys.monotonic)

    def _read(self) -> LiveKeys:
        with self._db.transaction(write=False) as tx:
            keys, at = live_keys(tx), tx.now
        origins = (key.origins for key in keys.values() if key.is_public)
        return LiveKeys(
            by_digest=keys,
            origins=frozenset().union(*origins),
            at=at,
            monotonic=time.monotonic(),
        )
