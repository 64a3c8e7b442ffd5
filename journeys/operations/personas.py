"""The personas: sizes, movement between them by month, and the journeys that speak to each.

A nightly pass stores the persona of each profile and counts who moved.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import BigInteger, Select, bindparam, case, func, literal, select, update

from channels.messages import messages
from config.clock.times import DAY, Instant
from config.database.arrays import STATEMENTS, InsertRows, any_of, one_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Database, Tx
from journeys.definition.segment import Segment
from journeys.tables import persona_moves
from profiles.bucketing import bucket_of, buckets_of
from profiles.bulk import lock_profiles
from profiles.conditions.sql import Scope, condition_holds
from profiles.tables import profiles

# Profiles in a transaction.
_CHUNK = 1000
# Messages of this time count as speaking to a persona.
_SPOKEN_WITHIN = 30 * DAY

_p, _m, _c = profiles.c, persona_moves.c, messages.c
_AFTER = (
    select(_p.id)
    .where(_p.id > bindparam("after", type_=BigInteger))
    .order_by(_p.id)
    .limit(bindparam("most", type_=BigInteger))
)
_CHANGES = rows_of("changes", _p.id, _p.bucket, _p.persona)
_STORE = (
    update(profiles)
    .where(_p.id == _CHANGES.c.id, _p.bucket == _CHANGES.c.bucket, in_buckets(_p.bucket))
    .values(persona=_CHANGES.c.persona)
)
_COUNT_MOVES = InsertRows(
    _m.month,
    _m.from_persona,
    _m.to_persona,
    _m.people,
    on_conflict="(month, from_persona, to_persona) DO UPDATE SET "
    "people = persona_move.people + excluded.people",
)
_SIZES = select(_p.persona, func.count()).where(_p.persona.is_not(None)).group_by(_p.persona)
_MOVES = select(_m.month, _m.from_persona, _m.to_persona, _m.people).order_by(
    _m.month.desc(), _m.people.desc(), _m.from_persona, _m.to_persona
)
_SPOKEN = (
    select(_c.journey, _p.persona, func.count(func.distinct(_c.profile_id)))
    .join(profiles, (_p.id == _c.profile_id) & (_p.bucket == _c.bucket))
    .where(
        _p.persona.is_not(None),
        _c.send_at > bindparam("since", type_=BigInteger),
        one_of(_c.state, ("sent", "delivered")),
    )
    .group_by(_c.journey, _p.persona)
)


class PersonaMoves(NamedTuple):
    """How many people moved from a persona to another one in a month (2026-03)."""

    month: str
    from_persona: str
    to_persona: str
    people: int


class PersonaView(NamedTuple):
    """A persona with its people, and the journeys that sent to them in 30 days, with how many
    people got a message.
    """

    persona: Segment
    people: int
    journeys: Sequence[tuple[str, int]]


def assign_personas(
    db: Database,
    personas: Sequence[Segment],
    brand: ZoneInfo,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Store the persona of every profile, and count the moves. Returns how many profiles changed.

    A chunk is a transaction. A profile that had none yet does not count as moved.
    """
    changed, after = 0, 0
    finding = _finding(tuple(personas), db.is_sqlite)
    while personas and not stopped():
        with db.transaction() as tx:
            ids = tx.conn.execute(_AFTER, {"after": after, "most": _CHUNK}).scalars().all()
            if not ids:
                break
            after = ids[-1]
            changed += _assign(tx, finding, lock_profiles(tx, ids), brand)
    return changed


def _assign(tx: Tx, finding: Select[Any], ids: Sequence[int], brand: ZoneInfo) -> int:
    given = {"profiles": ids, "buckets": buckets_of(ids), "now": tx.now}
    different = [row for row in tx.rows(finding, given) if row[1] != row[2]]
    if different:
        rows = [(one, bucket_of(one), now) for one, _, now in different]
        of_them = buckets_of([one for one, _, _ in different])
        tx.conn.execute(_STORE, {"changes": rows, "buckets": of_them})
        month = _month(tx.now, brand)
        moves = Counter((before, now) for _, before, now in different if before is not None)
        _COUNT_MOVES(tx.conn, [(month, *way, people) for way, people in sorted(moves.items())])
    return len(different)


@lru_cache(maxsize=STATEMENTS)
def _finding(personas: tuple[Segment, ...], sqlite: bool) -> Select[Any]:
    """The stored persona of profiles, and the one that fits now."""
    scope = Scope(sqlite=sqlite, profile_id=_p.id)
    fits = case(*((condition_holds(one.condition, scope), literal(one.name)) for one in personas))
    return select(_p.id, _p.persona, fits).where(any_of(_p.id, "profiles"), in_buckets(_p.bucket))


def persona_views(tx: Tx, personas: Sequence[Segment]) -> list[PersonaView]:
    """The personas in order, as of the last nightly pass."""
    sizes = dict(tx.rows(_SIZES, {}))
    spoken = sorted(tx.rows(_SPOKEN, {"since": tx.now - _SPOKEN_WITHIN}), key=lambda one: one[0])
    return [
        PersonaView(
            one,
            sizes.get(one.name, 0),
            [(journey, people) for journey, name, people in spoken if name == one.name],
        )
        for one in personas
    ]


def moves(tx: Tx) -> list[PersonaMoves]:
    """The movement between personas, the latest month first."""
    return [PersonaMoves(*row) for row in tx.rows(_MOVES, {})]


def _month(at: Instant, brand: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(at, UTC).astimezone(brand):%Y-%m}"
