"""Processes new events, batch by batch: one transaction from the events to claimed messages."""

import logging
from collections.abc import Collection
from typing import NamedTuple

from channels.outbox.claims import Claim, ClaimFailed
from config.batches import Halving
from config.database.buckets import ALL_BUCKETS
from config.database.failures import reason_of
from journeys.engine.advance import ClaimPlanned, Engine, claim_nothing
from journeys.engine.events import EventsFailed, Reaction, react
from journeys.engine.move import Moved
from journeys.engine.retry import StepFailed

log = logging.getLogger(__name__)

# The most events in one transaction.
BATCH = 500


class EventRound(NamedTuple):
    """The result of one batch, committed.

    more: whether other events, enrollments or messages may be due.
    """

    reaction: Reaction
    moved: Moved
    claims: list[Claim]
    more: bool


class Reactor:
    """Processes events. A failing event does not block the others.

    It is set aside in this process until `try_again`, and stays marked as unprocessed.
    """

    def __init__(self, engine: Engine, claim: ClaimPlanned = claim_nothing) -> None:
        self._engine = engine
        self._claim = claim
        self.aside: set[int] = set()
        self._halving = Halving(BATCH)

    def work(self, buckets: Collection[int] = ALL_BUCKETS) -> EventRound:
        """Process one batch of events in these buckets.

        A reaction to 0 events means that no event is left.
        """
        move = True
        while True:
            try:
                done = self._work(buckets, move=move)
            except (StepFailed, ClaimFailed):
                # The enrollments become due; the step or message that fails gets transactions of
                # its own.
                move = False
            except EventsFailed as failure:
                if self._halving.failed(len(failure.event_ids)):
                    self._set_aside(failure)
            else:
                if done.reaction.events:
                    self._halving.worked()
                done.moved.count_decisions()
                return done

    def _work(self, buckets: Collection[int], *, move: bool) -> EventRound:
        engine = self._engine
        with engine.db.transaction() as tx:
            tx.buckets = buckets
            reaction, due = react(tx, engine.catalog, self._halving.size, self.aside)
            moved = engine.mover.move(tx, due) if move else Moved(more=bool(due))
            claims = self._claim(tx, moved.planned_now)
        claimed = {(one.enrollment_id, one.step) for one in claims}
        more = moved.more or bool(moved.planned_now.keys() - claimed)
        more = more or reaction.events >= self._halving.size
        return EventRound(reaction=reaction, moved=moved, claims=claims, more=more)

    def try_again(self) -> None:
        """Process the events that were set aside again."""
        self.aside = set()

    def _set_aside(self, failure: EventsFailed) -> None:
        [event_id] = failure.event_ids
        self.aside.add(event_id)
        log.error(
            "event %d failed and will be retried: %s",
            event_id,
            reason_of(failure.__cause__ or failure),
            extra={"event_id": event_id},
        )
