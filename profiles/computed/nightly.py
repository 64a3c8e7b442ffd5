"""Compute the traits of all profiles: once a day, as time passes, and after a new definition."""

from array import array
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import BigInteger, bindparam, select

from config.database.engine import Database, Tx
from profiles.bulk import lock_profiles
from profiles.computed.definitions import ComputedTraits
from profiles.computed.update import put_states, stored_values, update_all, update_quantiles
from profiles.computed.values import cuts_of
from profiles.tables import profiles, trait_states

# Profiles in a transaction.
_CHUNK = 1000
_p, _s = profiles.c, trait_states.c
_AFTER = (
    select(_p.id)
    .where(_p.id > bindparam("after", type_=BigInteger))
    .order_by(_p.id)
    .limit(bindparam("most", type_=BigInteger))
)
_STATES = select(_s.trait, _s.digest, _s.day)

# Is given the profiles of a transaction whose traits have changed, with the names of these traits.
ReportChanged = Callable[[Tx, Sequence[tuple[int, set[str]]]], None]


def is_due(tx: Tx, traits: ComputedTraits, today: str) -> bool:
    """Whether a trait was not computed today for all profiles, as it is defined now."""
    states = {(name, digest) for name, digest, day in tx.rows(_STATES, {}) if day == today}
    return any((one.name, one.digest) not in states for one in traits.all.values())


def compute_all(
    db: Database,
    traits: ComputedTraits,
    today: str,
    report: ReportChanged,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Compute all traits of all profiles, then the quantiles. Returns how many profiles changed.

    A chunk is a transaction, so it can be stopped and started again. today: ISO 8601.
    """
    bases = {one.quantile: array("d") for one in traits.quantiles.values()}
    changed = 0
    for ids in _chunks(db, stopped):
        with db.transaction() as tx:
            locked = lock_profiles(tx, ids)
            found = list(update_all(tx, traits, locked))
            report(tx, found)
            changed += len(found)
            if bases:
                _collect(tx, locked, bases)
    if stopped():
        return changed
    cuts = {
        one.name: cuts_of(sorted(bases[one.quantile]), one.groups)
        for one in traits.quantiles.values()
    }
    rows = [(one.name, one.digest, today, cuts.get(one.name)) for one in traits.all.values()]
    if not cuts:
        with db.transaction() as tx:
            put_states(tx.conn, rows)
        return changed
    # Without a day, so that a pass that is stopped now is repeated.
    with db.transaction() as tx:
        put_states(tx.conn, [(name, digest, "", cut) for name, digest, _, cut in rows])
    for ids in _chunks(db, stopped):
        with db.transaction() as tx:
            found = list(update_quantiles(tx, traits, lock_profiles(tx, ids)))
            report(tx, found)
            changed += len(found)
    if not stopped():
        with db.transaction() as tx:
            put_states(tx.conn, rows)
    return changed


def _chunks(db: Database, stopped: Callable[[], bool]) -> Iterable[Sequence[int]]:
    after = 0
    while not stopped():
        with db.transaction(write=False) as tx:
            ids = tx.conn.execute(_AFTER, {"after": after, "most": _CHUNK}).scalars().all()
        if not ids:
            return
        yield ids
        after = ids[-1]


def _collect(tx: Tx, ids: Sequence[int], bases: dict[str, "array[float]"]) -> None:
    """Add the values from which quantiles are taken."""
    for values in stored_values(tx, ids).values():
        for name, found in bases.items():
            value = values.get(name)
            if isinstance(value, int | float):
                found.append(value)
