"""Which parts of a condition do not hold for a profile."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Select, bindparam, select

from config.database.arrays import STATEMENTS
from config.database.buckets import in_buckets
from config.database.engine import Tx
from profiles.bucketing import bucket_of
from profiles.conditions.language import AllOf, Condition
from profiles.conditions.sql import Scope, condition_holds
from profiles.tables import profiles


def failing_parts(tx: Tx, condition: Condition, profile_id: int) -> list[Condition]:
    """The smallest parts because of which a condition does not hold; empty if it holds.

    Of `AllOf` these are the parts that do not hold. `AnyOf` and `Not` are parts as a whole. Each
    part is evaluated with the SQL of the whole condition, all in one statement.
    """
    given = {"profile": profile_id, "now": tx.now, "buckets": [bucket_of(profile_id)]}
    row = tx.conn.execute(_evaluating(condition, tx.is_sqlite), given).one()
    holds = dict(zip(_all_of(condition), map(bool, row), strict=True))
    return list(_failing(condition, holds))


@lru_cache(maxsize=STATEMENTS)
def _evaluating(condition: Condition, sqlite: bool) -> Select[Any]:
    scope = Scope(sqlite=sqlite, profile_id=profiles.c.id)
    columns = [
        condition_holds(part, scope).label(f"part_{number}")
        for number, part in enumerate(_all_of(condition))
    ]
    return select(*columns).where(
        profiles.c.id == bindparam("profile", type_=BigInteger), in_buckets(profiles.c.bucket)
    )


def _all_of(condition: Condition) -> list[Condition]:
    """A condition, and what it joins by `&`, at any depth."""
    inner = condition.conditions if isinstance(condition, AllOf) else ()
    return list(dict.fromkeys([condition, *(one for part in inner for one in _all_of(part))]))


def _failing(condition: Condition, holds: Mapping[Condition, bool]) -> Iterator[Condition]:
    if holds[condition]:
        return
    if not isinstance(condition, AllOf):
        yield condition
    else:
        for part in condition.conditions:
            yield from _failing(part, holds)
