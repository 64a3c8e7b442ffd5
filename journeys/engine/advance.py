"""Advancing: moves due enrollments, step by step and chunk by chunk.

A chunk is one transaction: it locks due enrollments of one step, runs the step's handler, writes
the transitions and commits. All state is in the database, so the process can die anywhere, and
several processes can work on the same journey.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import insert

from channels.metrics import DECISIONS
from channels.rules.planner import Planner
from config.batches import Halving
from config.clock.times import Instant
from config.database.engine import Database, Tx
from config.database.failures import of_the_database
from journeys.definition.catalog import Catalog
from journeys.definition.graph import END, Node
from journeys.definition.journey import Version
from journeys.definition.steps import (
    NEXT,
    CallStep,
    EnterStep,
    ExitStep,
    ExperimentStep,
    SendStep,
    SplitStep,
    UpdateStep,
    WaitStep,
    WaitUntilStep,
)
from journeys.engine import handlers
from journeys.engine.call_step import (
    CALLS_AT_ONCE,
    call_moves,
    lease,
    payloads_of,
    post_all,
    still_leased,
)
from journeys.engine.chunks import LARGEST, Chunk, Chunks
from journeys.engine.due import DueEnrollment, earliest_due, entered_in, lock_due, next_due
from journeys.engine.entry import audience_after, audience_size, enter_people
from journeys.engine.exits import EXITED, end, exiting, goal_reached
from journeys.engine.handlers import Cohort, Move, Moves
from journeys.engine.launches import record_launch
from journeys.engine.retry import StepFailed, raising_step_failed, retry_or_move_on
from journeys.engine.segment_entry import enter_newcomers, profiles_after
from journeys.engine.send import send
from journeys.enrollments import transitions
from journeys.enrollments.transitions import Arrival, Stay
from journeys.tables import passages
from profiles.bulk import lock_profiles


@dataclass(slots=True, kw_only=True)
class StepReport:
    """The result of a step.

    outcomes: enrollments that left, by outcome. messages: by channel and "planned" or the reason
    of a refusal. waiting: enrollments that started to wait. exited: enrollments that the exit rule
    ended. more: for a single chunk, whether more enrollments may be due at the step.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting: int = 0
    exited: int = 0
    more: bool = True

    def add(self, other: "StepReport") -> None:
        """Add the counts of another chunk."""
        self.outcomes += other.outcomes
        self.messages += other.messages
        self.waiting += other.waiting
        self.exited += other.exited


class DueSteps(NamedTuple):
    """The steps with due enrollments, in graph order. Call steps are separate, because they take as
    long as the called server.
    """

    steps: list[tuple[Version, str]]
    calls: list[tuple[Version, str]]


class Engine:
    """Enters profiles into the journeys of a catalog and moves their enrollments."""

    def __init__(self, db: Database, catalog: Catalog, planner: Planner) -> None:
        self.db = db
        self.catalog = catalog
        self.planner = planner
        self.chunks = Chunks(db)

    # Entering -----------------------------------------------------------------------------------

    def start_launch(
        self, launch_id: str, journey: str, audience: str, people: int | None = None
    ) -> Version:
        """Record a launch; returns its version. A launch on record continues with its version.

        Raises SegueError if the journey or the audience does not exist, or if the id belongs to
        another launch.
        """
        self.catalog.segment(audience)  # raises for a segment that does not exist
        with self.db.transaction() as tx:
            return record_launch(
                tx,
                self.catalog,
                launch_id=launch_id,
                journey=journey,
                audience=audience,
                people=people,
            )

    def enter(
        self, version: Version, audience: str, launch_id: str | None, people: int | None = None
    ) -> Iterator[int]:
        """Enter a segment chunk by chunk; yields how many entered in each chunk.

        people: the most profiles that the launch may enter, over all its repeats; None: no limit.
        """
        condition = self.catalog.segment(audience).condition
        after = 0
        while True:
            with self.chunks.transaction("enter") as chunk:
                size = chunk.size
                if people is not None:
                    size = min(size, people - entered_in(chunk.tx, version, launch_id))
                ids = audience_after(chunk.tx, condition, after, size) if size > 0 else []
                if not ids:
                    return
                entered = len(enter_people(chunk.tx, version, ids, launch_id))
                chunk.people = len(ids)
            after = ids[-1]
            yield entered

    def enter_newcomers(self, journey: str) -> int:
        """Examine all profiles, chunk by chunk, and enter those that joined the entry's segment.

        Returns how many entered; 0 for other entry types.
        """
        entered = after = 0
        version = self.catalog.current.get(journey)
        condition = None if version is None else self.catalog.entry_segment(version)
        while version is not None and condition is not None:
            with self.chunks.transaction("segment entry") as chunk:
                ids = profiles_after(chunk.tx, after, chunk.size)
                if not ids:
                    break
                entered += len(enter_newcomers(chunk.tx, version, condition, ids))
                chunk.people = len(ids)
            after = ids[-1]
        return entered

    # Moving -------------------------------------------------------------------------------------

    def advance(self, version: Version, step: str) -> StepReport:
        """Move all due enrollments of one step of one version.

        Enrollments for which the step fails stay at it and are retried later.
        """
        report = StepReport()
        for chunk in self._chunks(version, step):
            report.add(chunk)
        return report

    def advance_round(self, steps: Iterable[tuple[Version, str]]) -> Counter[str]:
        """Move one chunk at each of these steps; returns the moves by journey.

        One chunk per step keeps the round short, however many are due. An empty result means that
        no enrollment was due; 0 for a journey means that all its due enrollments stay. Raises the
        error of a step only if no other step had due enrollments, and a database error at once.
        """
        moved: Counter[str] = Counter()
        failed = None
        for version, step in steps:
            try:
                chunk = next(self._chunks(version, step), None)
            except Exception as error:
                if of_the_database(error):
                    raise
                failed = error
            else:
                if chunk is not None:
                    moves = chunk.outcomes.total() + chunk.waiting + chunk.exited
                    moved[version.journey.name] += moves
        # If other steps moved enrollments, the failing step runs again in a later round.
        if failed is not None and not moved:
            raise failed
        return moved

    def due_steps(self, journey: str | None = None, step: str | None = None) -> DueSteps:
        """The steps with enrollments due now: all, those of one journey, or one step of it."""
        found = DueSteps([], [])
        with self.db.transaction(write=False) as tx:
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

    def _chunks(self, version: Version, step: str) -> Iterator[StepReport]:
        """Move the due enrollments of a step, chunk by chunk, until none is due."""
        node = version.journey.graph[step]
        halving = Halving(LARGEST)
        while True:
            try:
                chunk = self._advance_some(version, node, halving.size)
            except StepFailed as failure:
                if not halving.failed(len(failure.people)):
                    continue
                chunk = self._retry_or_move_on(version, node, failure)
            if chunk is None:
                return
            halving.worked()
            for (channel, decision), number in chunk.messages.items():
                DECISIONS.labels(channel, decision).inc(number)
            yield chunk
            if not chunk.more:
                return

    def _advance_some(self, version: Version, node: Node, most: int) -> StepReport | None:
        """Move at most `most` enrollments; None: none is due. Raises StepFailed."""
        if isinstance(node.step, CallStep):
            return self._advance_calls(version, node, min(CALLS_AT_ONCE, most))
        with self.chunks.transaction(f"{version.journey.name} / {node.step.name}", most) as chunk:
            return self._advance_chunk(chunk, version, node)

    def _retry_or_move_on(self, version: Version, node: Node, failure: StepFailed) -> StepReport:
        report = StepReport()
        with self.db.transaction() as tx:
            moves = retry_or_move_on(tx, version, failure)
            people = failure.people if moves else []
            self._apply(tx, version, node, people, moves, report)
        return report

    def _advance_chunk(
        self, chunk: Chunk, version: Version, node: Node, launch_id: str | None = None
    ) -> StepReport | None:
        """Move one chunk; None: none is due. Raises StepFailed."""
        tx = chunk.tx
        people = lock_due(tx, version, node.step.name, chunk.size, launch_id)
        chunk.people = len(people)
        if not people:
            return None
        lock_profiles(tx, {person.profile_id for person in people})
        report = StepReport()
        with raising_step_failed(node.step, people):
            people = self._staying(tx, version, people, report)
            cohort = Cohort(
                tx=tx,
                version=version,
                step=node.step,
                people=people,
                planner=self.planner,
                catalog=self.catalog,
            )
            moves = _handle(cohort) if people else {}
            report.messages = cohort.messages
            self._apply(tx, version, node, people, moves, report)
        due = any(move.due_at is not None and move.due_at <= tx.now for move in moves.values())
        report.more = due or chunk.people == chunk.size
        return report

    def _staying(
        self, tx: Tx, version: Version, people: Sequence[DueEnrollment], report: StepReport
    ) -> list[DueEnrollment]:
        """End the enrollments for which the exit rule holds; returns the others."""
        leaving = exiting(tx, version, [person.enrollment_id for person in people])
        if leaving:
            end(tx, leaving, EXITED)
        report.exited += len(leaving)
        return [person for person in people if person.enrollment_id not in leaving]

    def _apply(
        self,
        tx: Tx,
        version: Version,
        node: Node,
        people: Sequence[DueEnrollment],
        moves: Moves,
        report: StepReport,
    ) -> None:
        """Write the moves, and a passage for each enrollment that leaves the step."""
        staying: dict[Stay, list[int]] = defaultdict(list)
        arriving: dict[Arrival, list[int]] = defaultdict(list)
        ending: dict[str, list[int]] = defaultdict(list)
        passing: list[dict[str, Any]] = []
        for person in people:
            move = moves[person.enrollment_id]
            if move.outcome is None:
                assert move.due_at is not None  # every waiting enrollment has a due time
                staying[Stay(move.due_at, move.phase)].append(person.enrollment_id)
                report.waiting += person.phase == 0
                continue
            # An outcome without an edge ends the enrollment, and is the reason.
            target = node.leads(move.outcome)
            if target is None or target == END:
                reason = move.outcome if target is None else "completed"
                ending[reason].append(person.enrollment_id)
            else:
                arrival = Arrival(target, arrived_at=_ended_at(tx, person, move), due_at=tx.now)
                arriving[arrival].append(person.enrollment_id)
            report.outcomes[move.outcome] += 1
            passing.append(
                {
                    "profile_id": person.profile_id,
                    "enrollment_id": person.enrollment_id,
                    "journey": version.journey.name,
                    "version": version.digest,
                    "step": node.step.name,
                    "outcome": move.outcome,
                    "at": tx.now,
                }
            )
        transitions.stay(tx, staying)
        transitions.arrive(tx, arriving)
        for reason, ids in ending.items():
            end(tx, ids, reason)
        if passing:
            tx.conn.execute(insert(passages), passing)

    def _advance_calls(self, version: Version, node: Node, most: int) -> StepReport | None:
        """Lease enrollments in one transaction, post outside it, write the moves in another."""
        assert isinstance(node.step, CallStep)
        report = StepReport()
        with self.db.transaction() as tx:
            due = lock_due(tx, version, node.step.name, most)
            if not due:
                return None
            with raising_step_failed(node.step, due):
                people = self._staying(tx, version, due, report)
                lease(tx, people)
                payloads = payloads_of(tx, version.journey.name, node.step.name, people)
            signed_at = tx.now
        failed = post_all(node.step, payloads, signed_at, self.db.timing.call_within)
        with self.db.transaction() as tx:
            people = still_leased(tx, version, node.step, people)
            moves = call_moves(tx, node.step, people, failed)
            self._apply(tx, version, node, people, moves, report)
        return report

    # Dry run ------------------------------------------------------------------------------------

    def dry_run(
        self, version: Version, audience: str, people: int | None, launch_id: str
    ) -> dict[str, StepReport]:
        """Report what a launch would do now, by step in graph order; nothing is sent or stored.

        Runs chunk by chunk, and rolls each transaction back. Does not call URLs.
        """
        condition = self.catalog.segment(audience).condition
        reports = {step: StepReport() for step in version.journey.graph}
        after = entered = 0
        while True:
            with self.chunks.transaction("dry run", keep=False) as chunk:
                size = chunk.size if people is None else min(chunk.size, people - entered)
                ids = audience_after(chunk.tx, condition, after, size) if size > 0 else []
                if not ids:
                    return reports
                entered += len(enter_people(chunk.tx, version, ids, launch_id))
                for step, node in version.journey.graph.items():
                    while report := self._dry_run_chunk(chunk, version, node, launch_id):
                        reports[step].add(report)
                chunk.people = len(ids)
            after = ids[-1]

    def _dry_run_chunk(
        self, chunk: Chunk, version: Version, node: Node, launch_id: str
    ) -> StepReport | None:
        if not isinstance(node.step, CallStep):
            return self._advance_chunk(chunk, version, node, launch_id)
        people = lock_due(chunk.tx, version, node.step.name, chunk.size, launch_id)
        if not people:
            return None
        report = StepReport()
        called = {person.enrollment_id: Move(NEXT) for person in people}
        self._apply(chunk.tx, version, node, people, called, report)
        return report

    # Counting -----------------------------------------------------------------------------------

    def audience_size(self, audience: str) -> int:
        """The number of profiles in a segment now."""
        with self.db.transaction(write=False) as tx:
            return audience_size(tx, self.catalog.segment(audience).condition)

    def count_goals(self, journey: str) -> int:
        """Mark the enrollments of a journey that reached its goal; returns how many are new."""
        found = 0
        for version in self.catalog.versions(journey):
            if version.journey.goal is not None:
                with self.db.transaction() as tx:
                    found += goal_reached(tx, version)
        return found


def _ended_at(tx: Tx, person: DueEnrollment, move: Move) -> Instant:
    """When the step ended for an enrollment: between its arrival and now."""
    ended_at = tx.now if move.ended_at is None else move.ended_at
    return min(max(ended_at, person.arrived_at), tx.now)


def _handle(cohort: Cohort) -> Moves:
    """Run the handler of the cohort's step."""
    match cohort.step:
        case SendStep() as step:
            return send(cohort, step)
        case WaitStep() as step:
            return handlers.wait(cohort, step)
        case WaitUntilStep() as step:
            return handlers.wait_until(cohort, step)
        case SplitStep() as step:
            return handlers.split(cohort, step)
        case ExperimentStep() as step:
            return handlers.experiment(cohort, step)
        case UpdateStep() as step:
            return handlers.update_profile(cohort, step)
        case EnterStep() as step:
            return handlers.enter_other(cohort, step)
        case ExitStep() as step:
            return handlers.leave(cohort, step)
        case CallStep():
            raise AssertionError("Call steps run outside a transaction: see _advance_calls")
