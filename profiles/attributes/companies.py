"""Companies: what `group` calls state of them. Conditions and templates read it as `group`.

A profile belongs to the company that its attribute `group_id` names, so membership follows the
rules of attributes: the latest statement holds, and merges move it.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, bindparam, select, update

from config.clock.times import Instant
from config.database.arrays import InsertRows, any_of
from config.database.engine import Tx
from profiles.attributes.latest import Times, attribute_key, attributes_size, entry_size, holds
from profiles.tables import companies, profiles

# The attribute of a profile that names its company.
GROUP_ID = "group_id"

_c = companies.c
# Whether a company is that of the profile in the enclosing statement.
IS_COMPANY_OF_PROFILE = _c.id == profiles.c.attributes[GROUP_ID].as_string()
_INSERT = InsertRows(_c.id, _c.traits, _c.trait_times, _c.updated_at, on_conflict="DO NOTHING")
_LOCKED = (
    select(_c.id, _c.traits, _c.trait_times)
    .where(any_of(_c.id, "companies"))
    .order_by(_c.id)
    .with_for_update()
)
_UPDATE = (
    update(companies)
    .where(_c.id == bindparam("of_id"))
    .values(
        traits=bindparam("new_traits", type_=_c.traits.type),
        trait_times=bindparam("new_times", type_=_c.trait_times.type),
        updated_at=bindparam("now", type_=BigInteger),
    )
)


class CompanyStatement(NamedTuple):
    """What one call states of a company. A trait of None removes the trait."""

    company_id: str
    traits: Mapping[str, Any]
    at: Instant


def record_companies(
    tx: Tx, statements: Sequence[CompanyStatement], limit: int
) -> Mapping[str, Collection[str]]:
    """Store statements of companies; of each trait the latest statement holds.

    limit: the most bytes of a company's traits as JSON. Returns the names of the traits that were
    left out because of it, by company. Call it after profiles are locked.
    """
    left_out: dict[str, set[str]] = defaultdict(set)
    if not statements:
        return left_out
    ids = sorted({one.company_id for one in statements})
    _INSERT(tx.conn, [(one, {}, {}, tx.now) for one in ids])
    rows = {row.id: row for row in tx.conn.execute(_LOCKED, {"companies": ids})}
    traits = {one: dict(rows[one].traits) for one in ids}
    times: dict[str, Times] = {one: dict(rows[one].trait_times) for one in ids}
    for company_id, stated, at in statements:
        for name, value in stated.items():
            if not _set(traits[company_id], times[company_id], name, value, at, limit=limit):
                left_out[company_id].add(name)
    changed = [
        one for one in ids if traits[one] != rows[one].traits or times[one] != rows[one].trait_times
    ]
    if changed:
        tx.conn.execute(
            _UPDATE,
            [
                {
                    "of_id": one,
                    "new_traits": traits[one],
                    "new_times": times[one],
                    "now": tx.now,
                }
                for one in changed
            ],
        )
    return left_out


def _set(
    traits: dict[str, Any], times: Times, name: str, value: Any, at: Instant, *, limit: int
) -> bool:
    """Set or remove a trait unless a later statement holds. False: there is no room for it."""
    key = attribute_key(name)
    if not holds(times, key, at):
        return True
    before = entry_size(name, traits.get(name)) if name in traits or key in times else 0
    after = entry_size(name, value)
    if after > before and attributes_size(traits, times) - before + after > limit:
        return False
    if value is None:
        traits.pop(name, None)
    else:
        traits[name] = value
    times[key] = at
    return True
