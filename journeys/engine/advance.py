"""Advancing: moves due enrollments, step by step and chunk by chunk.

A chunk is one transaction: it locks due enrollments of one step, moves them through every step at
which they are due at once (move.py), and commits. All state is in the database, so the process can
die anywhere, and several processes can work on the same journey.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select

from channels.outbox.claims import Claim, ClaimFailed, PlannedNow
from channels.rules.planner import Planner
from config.batches import Halving
from config.clock.times import DAY, Instant
from config.database.arrays import any_of
from config.database.buckets import Leased, all_buckets, in_buckets
from config.database.engine import Database, Tx
from config.database.failures import of_the_database
from journeys.definition.catalog import Catalog
from journeys.definition.graph import Node
from journeys.definition.journey import Version
from journeys.definition.steps import CallStep
from journeys.engine.call_step import (
    CALLS_AT_ONCE,
    call_moves,
    lease,
    payloads_of,
    post_all,
    still_leased,
)
from journeys.engine.chunks import LARGEST, Chunks
from journeys.engine.due import earliest_due, lock_due, next_due
from journeys.engine.exits import goal_reached
from journeys.engine.move import Moved, Mover, StepOfVersion, StepReport, apply, exit_by_rule
from journeys.engine.retry import StepFailed, raising_step_failed, retry_or_move_on
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles
from profiles.events import PROFILE_CHANGED
from profiles.tables import events

# Posts the payloads of a Call step, as call_step.post_all does.
PostCalls = Callable[[CallStep, dict[int, dict[str, Any]], Instant, float], dict[int, str]]
# Claims, in the transaction that planned them, the messages that are due now.
ClaimPlanned = Callable[[Tx, PlannedNow], list[Claim]]


def claim_nothing(*_: object) -> list[Claim]:
    """Leave planned messages to a later transaction."""
    return []


class DueSteps(NamedTuple):
    """The steps with due enrollments, in graph order. Call steps are separate, because they take as
    long as the called server.
    """

    steps: list[tuple[Version, str]]
    calls: list[tuple[Version, str]]


class Round(NamedTuple):
    """The result of a round. moves: by journey; 0 if enrollments were due and all stay."""

    moves: Counter[str]
    claims: list[Claim]


class MovedChunk(NamedTuple):
    """The result of one transaction, committed. more: whether others may be due at the step."""

    moved: Moved
    claims: list[Claim]
    more: bool


class _GoalsSeen(NamedTuple):
    """Up to where a process has counted a goal: the last event, in which buckets, and when for all
    enrollments.
    """

    event_id: int
    buckets: frozenset[int]
    all_at: Instant


# Events are committed later than others with greater ids. So the last ones are read again.
_LATER_COMMITS = 10_000
_LAST_EVENT = select(func.max(events.c.id))
_WITH_EVENTS = (
    select(events.c.profile_id)
    .where(
        events.c.id > bindparam("after"),
        any_of(events.c.name, "names"),
        in_buckets(events.c.bucket),
    )
    .distinct()
)


class Engine:
    """Moves the enrollments of a catalog's journeys.

    post_calls: posts the requests of Call steps; None: over HTTP.
    """

    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        planner: Planner,
        post_calls: PostCalls | None = None,
    ) -> None:
        self.db = db
        self._post_calls = post_calls
        self.catalog = catalog
        self.planner = planner
        self.mover = Mover(catalog, planner)
        self.chunks = Chunks(db)
        self._goals_seen: dict[str, _GoalsSeen] = {}  # by the version's digest

    def advance(self, version: Version, step: str, leased: Leased = all_buckets) -> StepReport:
        """Move all due enrollments of one step of one version, through this step only.

        Enrollments for which the step fails stay at it and are retried later.

        leased: the buckets to look in.
        """
        report = StepReport()
        for chunk in self._chunks(version, step, claim_nothing, leased, through=False):
            for one in chunk.moved.steps.values():
                report.add(one)
        return report

    def advance_round(
        self,
        steps: Iterable[tuple[Version, str]],
        claim: ClaimPlanned = claim_nothing,
        *,
        leased: Leased = all_buckets,
        through: bool = True,
    ) -> Round:
        """Move one chunk at each of these steps.

        One chunk per step keeps the round short, however many are due. An error of one step is
        raised only if no other step had due enrollments; a failing database is raised at once.

        Parameters
        ----------
        leased: the buckets to look in.
        through: False moves each enrollment through one step only.
        """
        moves: Counter[str] = Counter()
        claims: list[Claim] = []
        failed = None
        for version, step in steps:
            try:
                chunk = next(self._chunks(version, step, claim, leased, through=through), None)
            except Exception as error:
                if of_the_database(error):
                    raise
                failed = error
            else:
                if chunk is not None:
                    moves.update(chunk.moved.by_journey)
                    claims += chunk.claims
        # If other steps made moves, go on: the failing step runs again in a later round.
        if failed is not None and not moves:
            raise failed
        return Round(moves, claims)

    def due_steps(self, journey: str | None = None, step: str | None = None) -> DueSteps:
        """The steps with enrollments due now: all, those of one journey, or one step of it."""
        with self.db.transaction(write=False) as tx:
            return self.steps_due(tx, journey, step)

    def steps_due(self, tx: Tx, journey: str | None = None, step: str | None = None) -> DueSteps:
        """As `due_steps`, in a transaction of the caller."""
        found = DueSteps([], [])
        for version, place, due_at in earliest_due(tx, self.catalog):
            if (
                due_at <= tx.now
                and journey in (None, version.journey.name)
                and step in (None, place)
            ):
                calls = isinstance(version.journey.graph[place].step, CallStep)
                (found.calls if calls else found.steps).append((version, place))
        return found

    def next_due(self) -> Instant | None:
        """When the next enrollment or planned message is due; None: there is none."""
        with self.db.transaction(write=False) as tx:
            return next_due(tx, self.catalog)

    def count_goals(self, journey: str, leased: Leased = all_buckets) -> int:
        """Mark the enrollments of a journey that reached its goal; returns how many are new.

        The first call in a process, and one every day, examines all enrollments. The others examine
        those of profiles with an event since the call before.

        leased: the buckets to look in.
        """
        found = 0
        for version in self.catalog.versions(journey):
            if version.journey.goal is not None:
                with self.db.transaction() as tx:
                    tx.buckets = leased()
                    number, seen = self._count_goal(tx, version)
                found += number
                self._goals_seen[version.digest] = seen
        return found

    def _count_goal(self, tx: Tx, version: Version) -> tuple[int, "_GoalsSeen"]:
        goal = version.journey.goal
        assert goal is not None
        buckets = frozenset(tx.buckets)
        last = tx.conn.execute(_LAST_EVENT).scalar() or 0
        seen = self._goals_seen.get(version.digest)
        if seen is None or not buckets <= seen.buckets or not 0 <= tx.now - seen.all_at < DAY:
            return goal_reached(tx, version), _GoalsSeen(last, buckets, tx.now)
        given = {
            "after": seen.event_id - _LATER_COMMITS,
            # after a merge a profile has other events
            "names": [goal.did.event, PROFILE_CHANGED],
            "buckets": buckets,
        }
        people = tx.conn.execute(_WITH_EVENTS, given).scalars().all()
        number = goal_reached(tx, version, people) if people else 0
        return number, _GoalsSeen(last, buckets, seen.all_at)

    def _chunks(
        self, version: Version, step: str, claim: ClaimPlanned, leased: Leased, *, through: bool
    ) -> Iterator[MovedChunk]:
        """Move the due enrollments of a step, chunk by chunk, until none is due."""
        node = version.journey.graph[step]
        halving = Halving(LARGEST)
        while True:
            try:
                chunk = self._chunk(version, node, halving.size, claim, leased(), through=through)
            except ClaimFailed:
                # The messages stay planned; the dispatcher finds the one that fails.
                claim = claim_nothing
                continue
            except StepFailed as failure:
                if failure.step.name != node.step.name:
                    # Stop before the step that fails: it gets chunks of its own.
                    through = False
                    continue
                if not halving.failed(len(failure.people)):
                    continue
                chunk = self._retry_later(version, node, failure)
            if chunk is None:
                return
            halving.worked()
            chunk.moved.count_decisions()
            yield chunk
            if not chunk.more:
                return

    def _chunk(
        self,
        version: Version,
        node: Node,
        most: int,
        claim: ClaimPlanned,
        buckets: Collection[int],
        *,
        through: bool,
    ) -> MovedChunk | None:
        """Move a chunk of at most `most`; None: none is due. Raises StepFailed, ClaimFailed."""
        if isinstance(node.step, CallStep):
            return self._call(version, node, node.step, min(CALLS_AT_ONCE, most), buckets)
        with self.chunks.transaction(f"{version.journey.name} / {node.step.name}", most) as chunk:
            chunk.tx.buckets = buckets
            people = lock_due(chunk.tx, version, node.step.name, chunk.size)
            chunk.people = len(people)
            if not people:
                return None
            ids = {one.profile_id for one in people}
            chunk.tx.buckets = buckets_of(ids)
            lock_profiles(chunk.tx, ids)
            moved = self.mover.move(chunk.tx, people, through=through)
            claims = claim(chunk.tx, moved.planned_now)
            more = moved.more or len(people) == chunk.size
        return MovedChunk(moved, claims, more)

    def _retry_later(self, version: Version, node: Node, failure: StepFailed) -> MovedChunk:
        moved, report = Moved(), StepReport()
        with self.db.transaction() as tx:
            moves = retry_or_move_on(tx, version, failure)
            people = failure.people if moves else []
            apply(tx, version, node, people, moves, report)
        moved.add(StepOfVersion(version.journey.name, version.digest, node.step.name), report)
        return MovedChunk(moved, [], more=True)

    def _call(
        self, version: Version, node: Node, step: CallStep, most: int, buckets: Collection[int]
    ) -> MovedChunk | None:
        """Lease enrollments in one transaction, post without one, write the moves in another."""
        moved, report = Moved(), StepReport()
        with self.db.transaction() as tx:
            tx.buckets = buckets
            due = lock_due(tx, version, step.name, most)
            if not due:
                return None
            tx.buckets = buckets_of(one.profile_id for one in due)
            with raising_step_failed(step, due):
                people = exit_by_rule(tx, version, due, report)
                lease(tx, people)
                payloads = payloads_of(tx, version.journey.name, step.name, people)
            signed_at = tx.now
        post = self._post_calls or post_all
        failed = post(step, payloads, signed_at, self.db.timing.call_within)
        with self.db.transaction() as tx:
            tx.buckets = buckets_of(one.profile_id for one in people)
            people = still_leased(tx, version, step, people)
            moves = call_moves(tx, step, people, failed)
            apply(tx, version, node, people, moves, report)
        moved.add(StepOfVersion(version.journey.name, version.digest, step.name), report)
        return MovedChunk(moved, [], more=True)
