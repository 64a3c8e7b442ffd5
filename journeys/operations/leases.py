"""Leases of buckets: the processes on one PostgreSQL share the due work, so that they do not meet.

A process looks for due work only in buckets that it leases. It renews its leases every second; if
it stops or hangs they end after `timing.lease_lasts`. The live processes have equal shares: one
with too many buckets gives some up when it renews, one with too few takes free ones. Leases only
keep processes apart. Row locks keep the work correct if two processes have the same bucket.

The workers share the buckets for all journeys. Runs of a journey share those for it, while no
worker is running. SQLite has one writer at a time, so each process has all its buckets.
"""

import time
from collections.abc import Collection, Mapping

from sqlalchemy import BigInteger, bindparam, delete, func, select

from config.database.arrays import InsertRows, any_of
from config.database.buckets import ALL_BUCKETS, BUCKETS
from config.database.engine import Database, Tx
from journeys.tables import bucket_holders, bucket_leases

# The journey of the workers' leases, which are for all journeys.
WORKERS = ""
# The key of the advisory lock under which leases change hands.
_LOCK = 7_334_802

_h, _l = bucket_holders.c, bucket_leases.c
_RENEW = InsertRows(
    *(_h.journey, _h.holder, _h.until),
    on_conflict="(journey, holder) DO UPDATE SET until = excluded.until",
)
_HOLDERS = select(_h.journey, _h.holder).where(
    _h.until >= bindparam("now"), any_of(_h.journey, "journeys")
)
_LEASES = select(_l.bucket, _l.holder).where(_l.journey == bindparam("of_journey"))
_TRY_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("key", _LOCK, type_=BigInteger)))
_TAKE = InsertRows(
    *(_l.journey, _l.bucket, _l.holder),
    on_conflict="(journey, bucket) DO UPDATE SET holder = excluded.holder",
)
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
            buckets = _renew(tx, self._journey, self._process)
        self._buckets, self._renewed_at = buckets, begun

    def release(self) -> None:
        """End the leases."""
        if self._db.is_sqlite:
            return
        self._buckets = ()
        given = {"of_journey": self._journey, "by": self._process, "surplus": ALL_BUCKETS}
        with self._db.transaction() as tx:
            tx.conn.execute(_GIVE_UP, given)
            tx.conn.execute(_LEAVE, given)


def _renew(tx: Tx, journey: str, process: str) -> list[int]:
    _RENEW(tx.conn, [(journey, process, tx.now + tx.timing.lease_lasts)])
    owned, wanted = _read(tx, journey, process)
    if owned != wanted and tx.conn.execute(_TRY_LOCK).scalar_one():
        # Another process may have changed them before it released the lock.
        owned, wanted = _read(tx, journey, process)
        given = {"of_journey": journey, "by": process, "surplus": owned - wanted, "now": tx.now}
        tx.conn.execute(_GIVE_UP, given)
        _TAKE(tx.conn, [(journey, bucket, process) for bucket in sorted(wanted - owned)])
        tx.conn.execute(_FORGET, given)
        owned = wanted
    return sorted(owned)


def _read(tx: Tx, journey: str, process: str) -> tuple[set[int], set[int]]:
    """The buckets that a process leases, and those that it should lease."""
    given = {"journeys": {journey, WORKERS}, "of_journey": journey, "now": tx.now}
    holders = [tuple(row) for row in tx.conn.execute(_HOLDERS, given)]
    leases = dict(map(tuple, tx.conn.execute(_LEASES, given)))
    owned = {bucket for bucket, holder in leases.items() if holder == process}
    if journey != WORKERS and any(whose == WORKERS for whose, _ in holders):
        return owned, set()
    return owned, share(process, [holder for _, holder in holders], leases)


def share(process: str, holders: Collection[str], leases: Mapping[int, str]) -> set[int]:
    """The buckets that a process should lease: those that it has, then free ones, up to its share.

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
    return set((owned + free)[:size])
