"""Put profiles into the global holdout that were there before it: before an upgrade, or before the
policy's percentage was raised.

New profiles are stored when a call or an import creates them (profiles/identity/holdout.py). Those
that something else creates, such as the opt-out of a stranger, are stored here.
"""

from sqlalchemy import bindparam, select

from config.database.arrays import InsertRows, insert_or_update
from config.database.engine import Database, Tx
from journeys.tables import retention_positions
from profiles.bulk import lock_profiles
from profiles.identity.holdout import Holdout, hold_out
from profiles.tables import profiles

_r, _p = retention_positions.c, profiles.c
_BEGIN = InsertRows(_r.name, _r.position, on_conflict="DO NOTHING")
_PUT = insert_or_update(_r.name, _r.position)
_POSITION = select(_r.position).where(_r.name == bindparam("of")).with_for_update(skip_locked=True)
_NEXT = select(_p.id).where(_p.id > bindparam("after")).order_by(_p.id).limit(bindparam("most"))


def hold_out_drawn(db: Database, holdout: Holdout, *, chunk: int = 1_000) -> int:
    """Walk over all profiles that no call has walked over with this percentage.

    In transactions of `chunk` profiles; returns how many it put into the holdout. While another
    process walks, it does nothing.
    """
    held = 0
    more = holdout.percent > 0
    while more:
        with db.transaction() as tx:
            some, more = _walk(tx, holdout, chunk)
        held += some
    return held


def _walk(tx: Tx, holdout: Holdout, chunk: int) -> tuple[int, bool]:
    name = f"holdout {holdout.percent:g}"
    _BEGIN(tx.conn, [(name, 0)])
    after = tx.conn.scalar(_POSITION, {"of": name})
    if after is None:
        return 0, False
    ids = tx.conn.execute(_NEXT, {"after": after, "most": chunk}).scalars().all()
    if not ids:
        return 0, False
    there = lock_profiles(tx, ids)
    _PUT(tx.conn, [(name, ids[-1])])
    return hold_out(tx, holdout, there), len(ids) == chunk
