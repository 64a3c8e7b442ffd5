"""Starting a journey for people who are named one by one, as another system asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select

from config.database import Tx, insert_into
from config.times import Seconds
from journeys.definition.catalog import Catalog
from journeys.engine.entry import enter_each
from journeys.engine.launches import record_launch
from journeys.enrollments import enrollments
from journeys.operations.control import STOPPED, held
from journeys.tables import signed_calls
from profiles.bulk import among
from profiles.identity.person import Key
from profiles.identity.upsert import held_owners_of, owners_of

_AUDIENCE = "named one by one"


class Unstartable(Exception):
    """The journey can't be started so; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Starter:
    """Somebody for whom a journey is to start; templates see `context` as `event`."""

    user_id: str
    context: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Started:
    """Who entered. `unknown`: user ids of nobody; `not_entered`: kept out by the re-entry rule."""

    entered: int
    unknown: Sequence[str]
    not_entered: Sequence[str]


def start(
    tx: Tx, catalog: Catalog, journey: str, launch_id: str, people: Sequence[Starter]
) -> Started:
    """Enter people into the current version of a journey, or into that which the launch has.

    The same launch again enters nobody twice. Raises SegueError for a journey that does not exist,
    LaunchConflict for the id of another launch, Unstartable for a journey that is stopped.
    """
    if held(tx).get(journey) == STOPPED:
        raise Unstartable(f"the journey {journey!r} is stopped; resume it first")
    version = record_launch(tx, catalog, launch_id=launch_id, journey=journey, audience=_AUDIENCE)
    keys: dict[str, Key] = {one.user_id: ("user_id", one.user_id) for one in people}
    owners = held_owners_of(tx, keys.values(), owners_of(tx, keys.values()))
    known = [(owners[keys[one.user_id]], one) for one in people if keys[one.user_id] in owners]
    each = [(profile_id, one.context) for profile_id, one in known]
    entered = enter_each(tx, version, each, launch_id)
    inside = _inside(tx, journey, launch_id, [profile_id for profile_id, _ in known])
    return Started(
        entered,
        unknown=[user_id for user_id, key in keys.items() if key not in owners],
        not_entered=list(
            dict.fromkeys(one.user_id for profile_id, one in known if profile_id not in inside)
        ),
    )


def remember(tx: Tx, signature: str, lasts: Seconds) -> bool:
    """Whether this signed call is new; it is not, for as long as its signature is good."""
    tx.conn.execute(delete(signed_calls).where(signed_calls.c.received_at < tx.now - lasts))
    taken = (
        insert_into(tx.conn, signed_calls)
        .values(signature=signature, received_at=tx.now)
        .on_conflict_do_nothing()
        .returning(signed_calls.c.signature)
    )
    return tx.conn.execute(taken).first() is not None


def _inside(tx: Tx, journey: str, launch_id: str, profile_ids: Sequence[int]) -> set[int]:
    rows = select(enrollments.c.profile_id).where(
        among(tx, enrollments.c.profile_id, profile_ids),
        enrollments.c.journey == journey,
        enrollments.c.launch_id == launch_id,
    )
    return set(tx.conn.execute(rows).scalars())
