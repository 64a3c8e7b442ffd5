"""Enter profiles that join the segment of a journey's entry, once each time they join.

The table segment_member stores the members for each journey; a profile without a row is new.
"""

from collections.abc import Sequence

from sqlalchemy import BigInteger, delete, literal, not_, select

from config.database.engine import Tx, insert_into
from journeys.definition.journey import Version
from journeys.engine.due import DueEnrollment
from journeys.engine.entry import enter_people, of_profiles
from journeys.operations.control import STOPPED, held
from journeys.tables import segment_members
from profiles.bulk import among, lock_profiles
from profiles.conditions.language import Condition
from profiles.tables import profiles


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
    c = segment_members.c
    in_it = select(profiles.c.id).where(
        among(tx, profiles.c.id, profile_ids), condition.sql(of_profiles(tx))
    )
    left = delete(segment_members).where(
        c.journey == journey, among(tx, c.profile_id, profile_ids), not_(c.profile_id.in_(in_it))
    )
    tx.conn.execute(left)
    coming = (
        insert_into(tx.conn, segment_members)
        .from_select(
            ["journey", "profile_id", "bucket", "since"],
            in_it.with_only_columns(
                literal(journey), profiles.c.id, profiles.c.bucket, literal(tx.now, BigInteger)
            ),
        )
        .on_conflict_do_nothing()
        .returning(c.profile_id)
    )
    newcomers = tx.conn.execute(coming).scalars().all()
    return enter_people(tx, version, newcomers, None) if newcomers else []


def profiles_after(tx: Tx, after: int, limit: int) -> Sequence[int]:
    """The ids of at most `limit` profiles with an id above `after`, in order."""
    found = select(profiles.c.id).where(profiles.c.id > after).order_by(profiles.c.id)
    return tx.conn.execute(found.limit(limit)).scalars().all()
