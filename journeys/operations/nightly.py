"""What a worker computes once a day for everybody: traits as time passes, segments
by day, and personas."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from config.clock.zones import zone
from config.database.engine import Tx
from journeys.engine.advance import Engine
from journeys.operations.personas import assign_personas
from journeys.operations.segment_counts import count_segments
from profiles.computed.nightly import compute_all, is_due
from profiles.events import PROFILE_CHANGED, NewEvent, record_events

log = logging.getLogger(__name__)


class Nightly:
    """The daily work. It is done once a day of the brand, and again after a new definition."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._brand = zone(engine.planner.policy.timezone)

    def work(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Do what was not done today. It may be stopped at any time, and started again."""
        self.compute_traits(stopped)
        if stopped():
            return
        catalog, db = self._engine.catalog, self._engine.db
        if count_segments(db, list(catalog.segments.values()), self._brand):
            assign_personas(db, catalog.personas, self._brand, stopped)

    def compute_traits(
        self, stopped: Callable[[], bool] = lambda: False, *, again: bool = False
    ) -> int:
        """Compute the traits of all profiles, if it is due. Returns how many profiles changed.

        again: also if it was done today.
        """
        traits, db = self._engine.catalog.traits, self._engine.db
        if not traits:
            return 0
        with db.transaction(write=False) as tx:
            today = datetime.fromtimestamp(tx.now, UTC).astimezone(self._brand).date().isoformat()
            if not (again or is_due(tx, traits, today)):
                return 0
        awaited = self._engine.catalog.awaited_computed()

        def report(tx: Tx, changed: Sequence[tuple[int, set[str]]]) -> None:
            """Let journeys react where one of their conditions reads what has changed."""
            events = [
                NewEvent(
                    profile_id=profile_id,
                    name=PROFILE_CHANGED,
                    occurred_at=tx.now,
                    dedupe_key=f"traits {tx.now}",
                    properties={},
                )
                for profile_id, names in changed
                if names & awaited
            ]
            record_events(tx, events, worked=False)

        changed = compute_all(db, traits, today, report, stopped)
        log.info("computed the traits of all profiles; those of %d have changed", changed)
        return changed
