"""Start a journey for listed user ids, at the request of another system's API call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from config.clock.times import Seconds
from config.database.arrays import any_of, rows_of
from config.database.engine import Tx
from journeys.definition.catalog import Catalog
from journeys.engine.entry import enter_each
from journeys.enrollments import enrollments
from journeys.launches.launching import record_launch
from journeys.operations.control import STOPPED, held
from journeys.tables import signed_calls
from profiles.identity.owners import held_owners_of, owners_of
from profiles.identity.person import Key

API_AUDIENCE = "named one by one"


_INSIDE = select(enrollments.c.profile_id).where(
    any_of(enrollments.c.profile_id, "profiles"),
    enrollments.c.journey == bindparam("of_journey"),
    enrollments.c.launch_id == bindparam("launch"),
)
_FORGET = delete(signed_calls).where(signed_calls.c.received_at < bindparam("before"))
_CALLS = rows_of("calls", signed_calls.c.signature, signed_calls.c.received_at)
_REMEMBER = (
    insert(signed_calls)
    .from_select(
        _CALLS.c.keys(),
        # SQLite parses ON CONFLICT after a SELECT without a WHERE as the ON of a join.
        select(_CALLS).where(_CALLS.c.signature.is_not(None)).suffix_with("ON CONFLICT DO NOTHING"),
    )
    .returning(signed_calls.c.signature)
)


class StartRefused(Exception):
    """The journey can't be started; the text has the reason and the fix."""


@dataclass(frozen=True, slots=True)
class Starter:
    """A user id for which a journey starts. Templates see `context` as `event`."""

    user_id: str
    context: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Started:
    """The result of a start.

    entered: the number of new enrollments. unknown: user ids without a profile. not_entered: user
    ids that the re-entry rule kept out.
    """

    entered: int
    unknown: Sequence[str]
    not_entered: Sequence[str]


def start(
    tx: Tx, catalog: Catalog, journey: str, launch_id: str, people: Sequence[Starter]
) -> Started:
    """Enter profiles into the version of the launch: for a new launch id, the current version.

    A repeat with the same launch id enters nobody twice. Raises SegueError if the journey does not
    exist, LaunchConflict if the id belongs to another launch, StartRefused if the journey is
    stopped.
    """
    if held(tx).get(journey) == STOPPED:
        raise StartRefused(f"the journey {journey!r} is stopped; resume it first")
    version = record_launch(
        tx, catalog, launch_id=launch_id, journey=journey, audience=API_AUDIENCE
    )
    keys: dict[str, Key] = {one.user_id: ("user_id", one.user_id) for one in people}
    owners = held_owners_of(tx, keys.values(), owners_of(tx, keys.values()))
    known = [(owners[keys[one.user_id]], one) for one in people if keys[one.user_id] in owners]
    each = [(profile_id, one.context) for profile_id, one in known]
    entered = len(enter_each(tx, version, each, launch_id))
    inside = _inside(tx, journey, launch_id, [profile_id for profile_id, _ in known])
    return Started(
        entered,
        unknown=[user_id for user_id, key in keys.items() if key not in owners],
        not_entered=list(
            dict.fromkeys(one.user_id for profile_id, one in known if profile_id not in inside)
        ),
    )


def remember(tx: Tx, signature: str, lasts: Seconds) -> bool:
    """Record a signed call; returns whether it is new.

    lasts: seconds for which a signature is valid. Older records are deleted.
    """
    tx.conn.execute(_FORGET, {"before": tx.now - lasts})
    return tx.conn.execute(_REMEMBER, {"calls": [(signature, tx.now)]}).first() is not None


def _inside(tx: Tx, journey: str, launch_id: str, profile_ids: Sequence[int]) -> set[int]:
    given = {"profiles": profile_ids, "of_journey": journey, "launch": launch_id}
    return set(tx.conn.execute(_INSIDE, given).scalars())
