"""Move enrollments in one transaction, through every step at which they are due at once."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from channels.metrics import DECISIONS
from channels.rules.planner import Planner
from channels.rules.recipient import Recipient
from config.clock.times import Instant
from config.database.arrays import InsertRows
from config.database.engine import Tx
from journeys.definition.catalog import Catalog
from journeys.definition.graph import END, Node
from journeys.definition.journey import Version
from journeys.definition.steps import (
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
from journeys.engine.due import DueEnrollment
from journeys.engine.exits import EXITED, end, exiting
from journeys.engine.handlers import Cohort, Move, Moves
from journeys.engine.retry import raising_step_failed
from journeys.engine.send import send
from journeys.enrollments import transitions
from journeys.enrollments.transitions import Arrival, Stay
from journeys.operations.control import held
from journeys.tables import passages
from profiles.bucketing import bucket_of

_PASSAGE = ("profile_id", "enrollment_id", "journey", "version", "step", "outcome", "at", "bucket")
_WRITE_PASSAGES = InsertRows(*(passages.c[name] for name in _PASSAGE))


@dataclass(slots=True)
class StepReport:
    """The result of a step.

    outcomes: enrollments that left, by outcome. messages: by channel and "planned" or the reason
    of a refusal. waiting: enrollments that began to wait. exited: enrollments that the exit rule
    ended. again: whether an enrollment stays and is due again at once.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting: int = 0
    exited: int = 0
    again: bool = field(default=False, compare=False)

    def add(self, other: "StepReport") -> None:
        """Add the counts of other enrollments."""
        self.outcomes += other.outcomes
        self.messages += other.messages
        self.waiting += other.waiting
        self.exited += other.exited
        self.again |= other.again

    @property
    def moves(self) -> int:
        """How many enrollments left the step, began to wait at it, or ended."""
        return self.outcomes.total() + self.waiting + self.exited


class StepOfVersion(NamedTuple):
    """A step of a version of a journey."""

    journey: str
    version: str
    step: str


@dataclass(slots=True)
class Moved:
    """The result of a transaction.

    steps: the report of each step. more: whether an enrollment may still be due, at a step that
    was left to another transaction.
    """

    steps: dict[StepOfVersion, StepReport] = field(default_factory=dict)
    planned_now: dict[tuple[int, str], Recipient] = field(default_factory=dict)
    more: bool = False

    def add(self, place: StepOfVersion, report: StepReport) -> None:
        """Add the report of one step."""
        self.steps.setdefault(place, StepReport()).add(report)

    def count_decisions(self) -> None:
        """Add the decisions to the metrics, once the transaction is committed."""
        for report in self.steps.values():
            for (channel, decision), number in report.messages.items():
                DECISIONS.labels(channel, decision).inc(number)

    @property
    def by_journey(self) -> Counter[str]:
        """The moves by journey; 0 if enrollments were due and all stay."""
        moves: Counter[str] = Counter()
        for place, report in self.steps.items():
            moves[place.journey] += report.moves
        return moves


class Mover:
    """Moves enrollments of a catalog's journeys within transactions of its callers."""

    def __init__(self, catalog: Catalog, planner: Planner) -> None:
        self.catalog = catalog
        self.planner = planner

    def move(self, tx: Tx, people: Sequence[DueEnrollment], *, through: bool = True) -> Moved:
        """Move due enrollments, and write their messages. The caller holds them and their profiles.

        Call steps take as long as the called server, so enrollments stay due there. Enrollments of
        paused and stopped journeys do not move.

        Parameters
        ----------
        through: False moves each enrollment through one step only.

        Raises StepFailed.
        """
        holding = held(tx)
        waiting: dict[StepOfVersion, list[DueEnrollment]] = defaultdict(list)
        _add(waiting, people, holding)
        moved = Moved()
        if not waiting:
            return moved
        self.catalog.learn(tx, [(place.journey, place.version) for place in waiting])
        staying: set[int] = set()
        while waiting:
            # In graph order, so that those who take different ways to a step pass it together.
            place = min(waiting, key=self._position)
            some = waiting.pop(place)
            version = self.catalog.version(place.journey, place.version)
            node = version.journey.graph[place.step]
            if isinstance(node.step, CallStep):
                moved.more = True
                continue
            report, arrived = self._step(tx, version, node, some, moved.planned_now, staying)
            moved.add(place, report)
            moved.more |= report.again or (bool(arrived) and not through)
            if isinstance(node.step, UpdateStep):
                # Changed attributes are events, which wake waits of all journeys.
                moved.more = True
                staying.clear()
            if through:
                _add(waiting, [one for one in arrived if one.due_at <= tx.now], holding)
        return moved

    def _position(self, place: StepOfVersion) -> tuple[str, str, int]:
        graph = self.catalog.version(place.journey, place.version).journey.graph
        return place.journey, place.version, list(graph).index(place.step)

    def _step(
        self,
        tx: Tx,
        version: Version,
        node: Node,
        people: Sequence[DueEnrollment],
        planned_now: dict[tuple[int, str], Recipient],
        staying: set[int],
    ) -> tuple[StepReport, list[DueEnrollment]]:
        """Run one step; returns its report, and who arrived at other steps or entered.

        staying: enrollments whose exit rule did not hold in this transaction. Only an Update step
        could change that.
        """
        report = StepReport()
        with raising_step_failed(node.step, people):
            people = exit_by_rule(tx, version, people, report, staying)
            if not people:
                return report, []
            staying.update(person.enrollment_id for person in people)
            cohort = Cohort(
                tx=tx,
                version=version,
                step=node.step,
                people=people,
                planner=self.planner,
                catalog=self.catalog,
            )
            moves = _handle(cohort)
            report.messages = cohort.messages
            arrived = apply(tx, version, node, people, moves, report)
            planned_now.update(cohort.planned_now)
        return report, [*arrived, *cohort.entered]


def _add(
    waiting: dict[StepOfVersion, list[DueEnrollment]],
    people: Sequence[DueEnrollment],
    holding: Collection[str],
) -> None:
    """Add the enrollments to those at their steps, unless their journey does not move."""
    for place, some in groupby(people, attrgetter(*StepOfVersion._fields)):
        at = StepOfVersion._make(place)
        if at.journey not in holding:
            waiting[at] += some


def exit_by_rule(
    tx: Tx,
    version: Version,
    people: Sequence[DueEnrollment],
    report: StepReport,
    staying: Collection[int] = (),
) -> list[DueEnrollment]:
    """End the enrollments whose exit rule holds, except `staying`; returns the others."""
    ids = [one.enrollment_id for one in people if one.enrollment_id not in staying]
    leaving = exiting(tx, version, ids)
    if leaving:
        end(tx, leaving, EXITED)
    report.exited += len(leaving)
    return [person for person in people if person.enrollment_id not in leaving]


def apply(
    tx: Tx,
    version: Version,
    node: Node,
    people: Sequence[DueEnrollment],
    moves: Mapping[int, Move],
    report: StepReport,
) -> list[DueEnrollment]:
    """Write moves, and a passage for each enrollment that leaves; returns who arrived elsewhere."""
    waiting: dict[Move, list[DueEnrollment]] = defaultdict(list)
    arriving: dict[Arrival, list[int]] = defaultdict(list)
    ending: dict[str, list[int]] = defaultdict(list)
    passing: list[tuple[Any, ...]] = []
    arrived: list[DueEnrollment] = []
    for person in people:
        move = moves[person.enrollment_id]
        if move.outcome is None:
            waiting[move].append(person)
            continue
        # An outcome that the step does not have is the reason of an exit.
        target = node.leads(move.outcome)
        if target is None or target == END:
            reason = move.outcome if target is None else "completed"
            ending[reason].append(person.enrollment_id)
        else:
            arrival = Arrival(target, arrived_at=_ended_at(tx, person, move), due_at=tx.now)
            arriving[arrival].append(person.enrollment_id)
            arrived.append(
                person._replace(
                    step=target,
                    arrived_at=arrival.arrived_at,
                    phase=0,
                    attempts=0,
                    due_at=tx.now,
                )
            )
        report.outcomes[move.outcome] += 1
        passing.append(
            (
                *(person.profile_id, person.enrollment_id),
                *(version.journey.name, version.digest, node.step.name),
                *(move.outcome, tx.now, bucket_of(person.profile_id)),
            )
        )
    staying: dict[Stay, list[int]] = defaultdict(list)
    for move, some in waiting.items():
        assert move.due_at is not None  # every waiting enrollment has a due time
        staying[Stay(move.due_at, move.phase)] += [person.enrollment_id for person in some]
        report.waiting += sum(person.phase == 0 for person in some)
        report.again |= move.due_at <= tx.now
    transitions.stay(tx, staying)
    transitions.arrive(tx, arriving)
    for reason, ids in ending.items():
        end(tx, ids, reason)
    _WRITE_PASSAGES(tx.conn, passing)
    return arrived


def _ended_at(tx: Tx, person: DueEnrollment, move: Move) -> Instant:
    """When a step ended for an enrollment: not before its arrival, and not in the future."""
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
        case SplitStep():
            return handlers.split(cohort)
        case ExperimentStep() as step:
            return handlers.experiment(cohort, step)
        case UpdateStep() as step:
            return handlers.update_profile(cohort, step)
        case EnterStep() as step:
            return handlers.enter_other(cohort, step)
        case ExitStep() as step:
            return handlers.leave(cohort, step)
        case CallStep():
            raise AssertionError("a Call step has transactions of its own: advance.py")
