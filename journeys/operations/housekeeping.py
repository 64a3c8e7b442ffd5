"""Housekeeping: the periodic tasks of a worker, which do not depend on due work."""

import logging
from collections.abc import Callable, Iterator
from functools import partial

from channels.outbox.unknown import close_unsettled, settle_lost
from config.database.buckets import Leased, all_buckets
from config.database.schema import newer_revision
from config.settings import Settings
from journeys.engine.advance import Engine
from journeys.launches.launching import enter_all_newcomers
from journeys.operations.control import finish_stops
from journeys.operations.doctor import diagnose
from journeys.operations.heartbeat import record_heartbeat
from journeys.operations.holdout import hold_out_drawn
from journeys.operations.retention import Retention
from profiles.identity.holdout import holdout_of

log = logging.getLogger(__name__)


class Housekeeping:
    """The tasks. Each uses its own transactions, so that a failed task does not affect the others.

    Parameters
    ----------
    process: the worker's name in its heartbeat: host and process id.
    settings: have the retention.
    leased: the buckets of the rows that it looks after.
    """

    def __init__(
        self,
        engine: Engine,
        process: str,
        settings: Settings,
        leased: Leased = all_buckets,
    ) -> None:
        self._engine = engine
        self._db = engine.db
        self._process = process
        self._leased = leased
        self._retention = Retention(engine, settings)
        self._holdout = holdout_of(settings, engine.planner.policy)

    def often(self) -> Iterator[Callable[[], object]]:
        """The tasks of every round."""
        yield self._record_heartbeat
        yield self._catch_up
        yield self._settle_lost
        yield partial(finish_stops, self._db)
        for journey in self._engine.catalog.journeys():
            yield partial(self._engine.count_goals, journey, self._leased)

    def newcomers(self) -> Iterator[Callable[[], object]]:
        """Enter profiles that joined a journey's entry segment without an event."""
        for journey in list(self._engine.catalog.current):
            yield partial(enter_all_newcomers, self._engine, journey, self._leased)

    def seldom(self) -> Iterator[Callable[[], object]]:
        """The tasks that may wait for some minutes."""
        yield self._close_unsettled
        yield self._apply_retention
        yield partial(hold_out_drawn, self._db, self._holdout)
        yield self._examine

    def _record_heartbeat(self) -> None:
        with self._db.transaction() as tx:
            record_heartbeat(tx, self._process)

    def _catch_up(self) -> None:
        """Load the versions that other processes have registered; enrollments may be on them."""
        with self._db.transaction(write=False) as tx:
            self._engine.catalog.catch_up(tx)

    def _settle_lost(self) -> None:
        with self._db.transaction() as tx:
            tx.buckets = self._leased()
            lost = settle_lost(tx)
        if lost:
            log.warning("%d messages are unknown: a process died during the hand-over", lost)

    def _close_unsettled(self) -> None:
        with self._db.transaction() as tx:
            tx.buckets = self._leased()
            closed = close_unsettled(tx)
        if closed:
            log.warning("%d unknown messages are closed: no delivery report arrived", closed)

    def _apply_retention(self) -> None:
        removed = self._retention.apply()
        if any(removed):
            log.info(
                "retention: removed %d messages, %d passages, the properties of %d events and %d "
                "acts of the staff's log",
                *removed,
            )

    def _examine(self) -> None:
        with self._db.transaction(write=False) as tx:
            findings = diagnose(tx)
            newer = newer_revision(tx.conn)
        if newer:
            log.warning(
                "a newer Segue has upgraded the database (schema %s); this worker continues, but "
                "ignores what only the newer version knows: restart it with the new version",
                newer,
            )
        for one in findings:
            log.warning(
                "%s: %d (%s); %s",
                one.what,
                one.number,
                one.where,
                one.mend,
                extra={"what": one.what, "where": one.where, "number": one.number},
            )
