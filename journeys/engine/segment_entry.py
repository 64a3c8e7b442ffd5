"""Coming into the segment of a journey's entry: seen once each time, and never while one stays in.

Who is in it is written down for each journey, so that coming in can be told from being in.
"""

from collections.abc import Sequence

from sqlalchemy import BigInteger, delete, literal, not_, select

from config.database import Tx, insert_into
from journeys.definition.journey import Version
from journeys.engine.entry import enter_people, of_profiles
from journeys.operations.control import STOPPED, held
from journeys.tables import segment_members
from profiles.bulk import among, lock_profiles
from profiles.conditions.language import Condition
from profiles.tables import profiles


def enter_newcomers(
    tx: Tx, version: Version, condition: Condition, profile_ids: Sequence[int]
) -> int:
    """Look which of these profiles have come into the segment, or left it; says how many entered.

    They enter by the re-entry rule. Of a journey that is stopped nobody looks: who comes in
    meanwhile comes in when it runs again.
    """
    journey = version.journey.name
    if held(tx).get(journey) == STOPPED:
        return 0
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
    return enter_people(tx, version, newcomers, None) if newcomers else 0


def profiles_after(tx: Tx, after: int, limit: int) -> Sequence[int]:
    """The next profiles by id, whoever they are: at most `limit` beyond `after`."""
    found = select(profiles.c.id).where(profiles.c.id > after).order_by(profiles.c.id)
    return tx.conn.execute(found.limit(limit)).scalars().all()
