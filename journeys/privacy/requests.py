"""The record of who exported or erased a person, and when. It names people by keyed hashes only."""

from collections.abc import Collection, Iterator, Mapping
from typing import Literal, NamedTuple

from sqlalchemy import select

from config.clock.times import Instant
from config.database.arrays import InsertRows
from config.database.engine import Tx
from profiles.identity.erased import ErasedAddresses
from profiles.identity.person import Key
from profiles.tables import privacy_requests

PrivacyAct = Literal["erase", "export"]

_r = privacy_requests.c
_INSERT = InsertRows(_r.at, _r.act, _r.asked_by, _r.hashes, _r.counts)
_ALL = select(_r.at, _r.act, _r.asked_by, _r.hashes, _r.counts).order_by(_r.id)


class PrivacyRequestRecord(NamedTuple):
    """A request that was carried out. counts: rows by table."""

    at: Instant
    act: PrivacyAct
    asked_by: str
    counts: Mapping[str, int]


def record_request(
    tx: Tx,
    erased: ErasedAddresses,
    act: PrivacyAct,
    *,
    asked_by: str,
    identifiers: Collection[Key],
    counts: Mapping[str, int],
) -> None:
    """Record a request in the transaction that carries it out."""
    hashes = sorted(erased.hashes(key)[0] for key in identifiers) if erased.keys else []
    _INSERT(tx.conn, [(tx.now, act, asked_by, hashes, dict(counts))])


def requests_about(
    tx: Tx, erased: ErasedAddresses, identifiers: Collection[Key]
) -> Iterator[PrivacyRequestRecord]:
    """The requests about whoever had one of the identifiers, the oldest first.

    Reads all requests: there are few, and it is asked rarely.
    """
    wanted = {one for key in identifiers for one in erased.hashes(key)}
    for row in tx.conn.execute(_ALL):
        if not wanted.isdisjoint(row.hashes):
            yield PrivacyRequestRecord(
                at=row.at, act=row.act, asked_by=row.asked_by, counts=row.counts
            )
