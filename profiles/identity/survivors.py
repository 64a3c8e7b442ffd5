"""Where the data of a merged profile is now."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Integer, bindparam, exists, select

from config.database.arrays import any_of
from config.database.engine import Tx
from profiles.identity.person import Key
from profiles.tables import ADDRESS_KIND, merges

_ADDRESSES = frozenset(ADDRESS_KIND.values())

_m, _further = merges.c, merges.alias("further")
_start = (
    select(_m.from_id, _m.into_id).where(any_of(_m.from_id, "profiles")).cte("path", recursive=True)
)
# UNION, unlike UNION ALL, terminates on cycles, which manual changes of the table can create
_path = _start.union(select(_start.c.from_id, _m.into_id).where(_m.from_id == _start.c.into_id))
_LAST = select(_path.c.from_id, _path.c.into_id).where(
    ~exists().where(_further.c.from_id == _path.c.into_id)
)
_first = (
    select(_m.from_id, _m.into_id)
    .where(_m.from_id == bindparam("profile_id", type_=Integer))
    .cte("steps", recursive=True)
)
_steps = _first.union(select(_m.from_id, _m.into_id).where(_m.from_id == _first.c.into_id))
_STEPS = select(_m.from_id, _m.into_id, _m.moved["withheld"].label("withheld")).where(
    _m.from_id.in_(select(_steps.c.from_id))
)
_HAD = select(_m.moved["identifiers"]).where(_m.from_id == bindparam("profile_id", type_=Integer))


def survivors(tx: Tx, profile_ids: Collection[int]) -> dict[int, int]:
    """For each profile that was merged into another one: the profile that it is part of now."""
    rows = tx.conn.execute(_LAST, {"profiles": set(profile_ids)})
    return {row.from_id: row.into_id for row in rows}


class Survivor(NamedTuple):
    """Where the data of a merged profile is now.

    profile_id: the profile that it is part of.
    addresses: the addresses that it had when it was merged.
    withheld: addresses that a merge on the way did not make usable.
    """

    profile_id: int
    addresses: frozenset[Key]
    withheld: frozenset[Key]


def survivor_of(tx: Tx, profile_id: int) -> Survivor | None:
    """Where the data of a profile is now; None if it was not merged."""
    steps = {row.from_id: row for row in tx.conn.execute(_STEPS, {"profile_id": profile_id})}
    if profile_id not in steps:
        return None
    known = tx.conn.execute(_HAD, {"profile_id": profile_id}).scalar_one() or ()
    [last] = {row.into_id for row in steps.values()} - steps.keys()
    withheld = [row.withheld["addresses"] for row in steps.values() if row.withheld]
    return Survivor(
        last,
        frozenset((kind, value) for kind, value in known if kind in _ADDRESSES),
        frozenset((kind, value) for addresses in withheld for kind, value in addresses),
    )
