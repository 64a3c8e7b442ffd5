"""Leases of buckets: the processes on one PostgreSQL share the due work, so that they do not meet.

A process looks for due work only in buckets that it leases. It renews its leases every second; if
it stops or hangs they end after `timing.lease_lasts`. The live processes have equal shares: one
with too many buckets gives some up when it renews, one with too few takes free ones. Leases only
keep processes apart. Row locks keep the work correct if two processes have the same bucket.

The workers share the buckets for all journeys. The runs of a journey share them for this journey:
a run helps the workers, in the buckets of any of them. SQLite has one writer at a time, so there
each process has all buckets.
"""

import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import BigInteger, bindparam, delete, func, select

from config.clock.times import Instant
from config.database.arrays import any_of, insert_or_update
from config.database.buckets import ALL_BUCKETS, BUCKETS
from config.database.engine import READ_CLOCK, Database, Tx
from journeys.tables import bucket_holders, bucket_leases

# The journey of the workers' leases, which are for all journeys.
WORKERS = ""
# The key of the advisory lock under which leases change hands.
_LOCK = 7_334_802

_h, _l = bucket_holders.c, bucket_leases.c
_RENEW = insert_or_update(_h.journey, _h.holder, _h.until)
_HOLDERS = select(_h.holder).where(
    _h.until >= bindparam("now"), _h.journey == bindparam("of_journey")
)
_LEASES = select(_l.bucket, _l.holder).where(_l.journey == bindparam("of_journey"))
_TRY_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("key", _LOCK, type_=BigInteger)))
_TAKE = insert_or_update(_l.journey, _l.bucket, _l.holder)
_GIVE_UP = delete(bucket_leases).where(
    _l.journey == bindparam("of_journey"),
    _l.holder == bindparam("by"),
    any_of(_l.bucket, "surplus"),
)
_LEAVE = delete(bucket_holders).where(
    _h.journey == bindparam("of_journey"), _h.holder == bindparam("by")
)
_FORGET = delete(bucket_holders).where(_h.until < bindparam("now"))


class Leases:
    """The leases of this process.

    Parameters
    ----------
    process: its name: host and process id.
    journey: the journey that a run works on; WORKERS for a worker.
    """

    def __init__(self, db: Database, process: str, journey: str = WORKERS) -> None:
        self._db = db
        self._process = process
        self._journey = journey
        self._buckets: Collection[int] = ()
        self._renewed_at = 0.0
        # Whether it has its share, which others may have to give up first.
        self.is_complete = db.is_sqlite

    def held(self) -> Collection[int]:
        """The buckets that it leases now. Reads no database."""
        if self._db.is_sqlite:
            return ALL_BUCKETS
        # The database's clock has whole seconds, so other processes see the end later.
        lasts = time.monotonic() - self._renewed_at < self._db.timing.lease_lasts
        return self._buckets if lasts else ()

    def renew(self) -> None:
        """Renew the leases; give up and take buckets, so that the shares are equal."""
        if self._db.is_sqlite:
            return
        begun = time.monotonic()
        with self._db.transaction() as tx:
            buckets, self.is_complete = _renew(tx, self._journey, self._process)
        self._buckets, self._renewed_at = sorted(buckets), begun

    def release(self) -> None:
        """End the leases."""
        if self._db.is_sqlite:
            return
        self._buckets = ()
        given = {"of_journey": self._journey, "by": self._process, "surplus": ALL_BUCKETS}
        with self._db.transaction() as tx:
            tx.conn.execute(_GIVE_UP, given)
            tx.conn.execute(_LEAVE, given)


class LeaseShare(NamedTuple):
    """The buckets of one process.

    owned: those that it leases. wanted: those that it should lease now. size: how many it should
    have, once others have given up theirs.
    """

    owned: set[int]
    wanted: set[int]
    size: int


def share(process: str, holders: Collection[str], leases: Mapping[int, str]) -> LeaseShare:
    """What a process should lease: the buckets that it has, then free ones, up to an equal share.

    Parameters
    ----------
    holders: the live processes, this one included.
    leases: the holder by bucket; one that is not alive has lost its buckets.
    """
    ordered = sorted(holders)
    size, rest = divmod(BUCKETS, len(ordered))
    size += ordered.index(process) < rest
    owned = [bucket for bucket in ALL_BUCKETS if leases.get(bucket) == process]
    free = [bucket for bucket in ALL_BUCKETS if leases.get(bucket) not in ordered]
    return LeaseShare(set(owned), set((owned + free)[:size]), size)


def _renew(tx: Tx, journey: str, process: str) -> tuple[set[int], bool]:
    """Renew leases. Returns the buckets that the process has now, and whether it has its share."""
    # The database's own clock, because a simulated one stands still.
    now: Instant = tx.conn.execute(READ_CLOCK).scalar_one()
    _RENEW(tx.conn, [(journey, process, now + tx.timing.lease_lasts)])
    owned, wanted, size = _read(tx, journey, process, now)
    if owned != wanted and tx.conn.execute(_TRY_LOCK).scalar_one():
        # Another process may have changed them before it released the lock.
        owned, wanted, size = _read(tx, journey, process, now)
        given = {"of_journey": journey, "by": process, "surplus": owned - wanted, "now": now}
        tx.conn.execute(_GIVE_UP, given)
        _TAKE(tx.conn, [(journey, bucket, process) for bucket in sorted(wanted - owned)])
        tx.conn.execute(_FORGET, given)
        owned = wanted
    return owned, len(owned) == size


def _read(tx: Tx, journey: str, process: str, now: Instant) -> LeaseShare:
    given = {"of_journey": journey, "now": now}
    holders = tx.conn.execute(_HOLDERS, given).scalars().all()
    leases = dict(map(tuple, tx.conn.execute(_LEASES, given)))
    return share(process, holders, leases)
