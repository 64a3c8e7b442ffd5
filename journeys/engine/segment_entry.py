"""Enter profiles that join the segment of a journey's entry, once each time they join.

The table segment_member stores the members for each journey; a profile without a row is new.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import BigInteger, Delete, Text, bindparam, delete, insert, not_, select
from sqlalchemy.sql.dml import ReturningInsert

from config.database.arrays import STATEMENTS, any_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from journeys.definition.journey import Version
from journeys.engine.due import DueEnrollment
from journeys.engine.entry import enter_people
from journeys.operations.control import STOPPED, held
from journeys.tables import segment_members
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles
from profiles.conditions.language import Condition
from profiles.conditions.sql import NOW, Scope, condition_holds
from profiles.tables import profiles

_AFTER = (
    select(profiles.c.id)
    .where(profiles.c.id > bindparam("after"), in_buckets(profiles.c.bucket))
    .order_by(profiles.c.id)
    .limit(bindparam("most", type_=BigInteger))
)


def enter_newcomers(
    tx: Tx, version: Version, condition: Condition, profile_ids: Sequence[int]
) -> list[DueEnrollment]:
    """Update the memberships of these profiles, and enter those that joined, by the re-entry rule.

    Returns their enrollments. Does nothing while the journey is stopped, so a profile that joins
    meanwhile enters when the journey is resumed.
    """
    journey = version.journey.name
    if held(tx).get(journey) == STOPPED:
        return []
    lock_profiles(tx, profile_ids)
    given = {
        "of_journey": journey,
        "profiles": profile_ids,
        "now": tx.now,
        "buckets": buckets_of(profile_ids),
    }
    changes = _changes(condition, tx.is_sqlite)
    tx.conn.execute(changes.leaving, given)
    newcomers = tx.conn.execute(changes.joining, given).scalars().all()
    return enter_people(tx, version, newcomers, None) if newcomers else []


class _Changes(NamedTuple):
    """The members among the profiles that are not in the segment any more, and the new ones."""

    leaving: Delete
    joining: ReturningInsert[tuple[int]]


@lru_cache(maxsize=STATEMENTS)
def _changes(condition: Condition, sqlite: bool) -> _Changes:
    c = segment_members.c
    journey = bindparam("of_journey", type_=Text)
    in_it = select(profiles.c.id).where(
        any_of(profiles.c.id, "profiles"),
        in_buckets(profiles.c.bucket),
        condition_holds(condition, Scope(sqlite=sqlite, profile_id=profiles.c.id)),
    )
    leaving = delete(segment_members).where(
        c.journey == journey,
        any_of(c.profile_id, "profiles"),
        in_buckets(c.bucket),
        not_(c.profile_id.in_(in_it)),
    )
    rows = in_it.with_only_columns(journey, profiles.c.id, profiles.c.bucket, NOW)
    joining = insert(segment_members).from_select(
        ["journey", "profile_id", "bucket", "since"],
        # SQLAlchemy compiles a statement with its own ON CONFLICT at each execution.
        rows.suffix_with("ON CONFLICT DO NOTHING"),
    )
    return _Changes(leaving, joining.returning(c.profile_id))


def profiles_after(tx: Tx, after: int, limit: int) -> Sequence[int]:
    """The ids of at most `limit` profiles with an id above `after`, in order, in the transaction's
    buckets.
    """
    given = {"after": after, "most": limit, "buckets": tx.buckets}
    return tx.conn.execute(_AFTER, given).scalars().all()
