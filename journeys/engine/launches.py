"""Launches: starts of a journey for an audience. A repeat with the same id continues a launch."""

from sqlalchemy import select

from config.database.engine import Tx, insert_ignoring_conflicts
from config.errors import SegueError
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.tables import launches


class LaunchConflict(SegueError):
    """The id belongs to a launch of another journey or for another audience."""


def record_launch(
    tx: Tx,
    catalog: Catalog,
    *,
    launch_id: str,
    journey: str,
    audience: str,
    people: int | None = None,
) -> Version:
    """Record a launch, unless it is recorded already; returns the version that it started with.

    Raises SegueError if the journey does not exist, LaunchConflict if the id is taken.

    Parameters
    ----------
    people: the most profiles that may enter; None: no limit.
    """
    row = {
        "id": launch_id,
        "journey": journey,
        "version": catalog.journey(journey).digest,
        "audience": audience,
        "people": people,
        "started_at": tx.now,
    }
    insert_ignoring_conflicts(tx.conn, launches, [row])
    c = launches.c
    found = tx.conn.execute(select(c.journey, c.audience, c.version).where(c.id == launch_id)).one()
    if (found.journey, found.audience) != (journey, audience):
        raise LaunchConflict(
            f"the launch {launch_id!r} exists, of the journey {found.journey} for "
            f"{found.audience}; use another id"
        )
    # Another process may have started the launch with a version that is not loaded here.
    catalog.learn(tx, [(journey, found.version)])
    return catalog.version(journey, found.version)
