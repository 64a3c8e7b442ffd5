"""What a journey did: its funnel, the outcomes of its messages, and what they brought.

Four rules say what counts:

- The period selects enrollments by their entry and messages by their hand-over (by the time at
  which they were wanted, if they were not handed over). What followed counts up to now.
- A conversion counts for the last message of its enrollment before it was counted.
- An order counts for the customer's last message before it, of whatever journey, if it came within
  the time of the goal. So the revenues of several journeys can be added.
- A no counts for the last message on its channel before it, of whatever journey, if it came within
  `NO_WITHIN` and is about the channel or the topic of the message.

docs/marketer/reports.md describes the figures.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Executable, bindparam, func, select

from channels.messages.states import CLOSED
from config.channels import channel_of
from config.clock.times import Instant, format_duration, format_instant
from config.database.engine import Tx
from config.errors import SegueError
from journeys.analytics.reports import statements
from journeys.analytics.reports.figures import (
    By,
    Delays,
    Figures,
    FunnelStep,
    JourneyReport,
    Link,
    by_channel,
)
from journeys.analytics.reports.period import ReportPeriod
from journeys.analytics.reports.statements import (
    NO_COMPLAINTS,
    NO_WITHIN,
    OTHER_MAILBOX,
    Grouping,
    ReportQuestion,
)
from journeys.analytics.revenue import LeftOut, RevenueMapping
from journeys.definition.catalog import Catalog
from journeys.definition.graph import steps_after
from journeys.definition.steps import ExperimentStep
from journeys.engine.exits import EXITED
from journeys.enrollments import enrollments
from journeys.enrollments.states import ERASED_REASON
from journeys.operations.control import STOPPED_REASON
from journeys.operations.counts import AHEAD, HANDED_OVER, RETURNED, counted_reason
from journeys.operations.merge import MERGED
from journeys.tables import launches, message_totals
from profiles.conditions.language import Condition

# Ends of enrollments that leave no passage by the step.
_WITHOUT_PASSAGE = (EXITED, MERGED, STOPPED_REASON, ERASED_REASON)

_t = message_totals.c
_REMOVED = (
    select(_t.launch_id, _t.step, _t.channel, _t.state, _t.reason, func.sum(_t.number))
    .where(_t.journey == bindparam("of_journey"))
    .group_by(_t.launch_id, _t.step, _t.channel, _t.state, _t.reason)
)
_LAUNCHES = select(launches.c.id, launches.c.audience, launches.c.started_at).where(
    launches.c.journey == bindparam("of_journey")
)
_FIRST_ENTRY = select(func.min(enrollments.c.entered_at)).where(
    enrollments.c.journey == bindparam("of_journey")
)
_Groups = dict[tuple[str, str], Figures]
# Executes a statement of a report with its parameters.
ReadRows = Callable[[Executable, dict[str, Any]], Sequence[Sequence[Any]]]


class _Removed(NamedTuple):
    """A row of `message_total`: messages that were removed when their retention ended."""

    launch_id: str
    step: str
    channel: str
    state: str
    reason: str
    number: int


def report_journey(
    tx: Tx,
    catalog: Catalog,
    journey: str,
    mapping: RevenueMapping,
    period: ReportPeriod,
    *,
    by: By = "step",
    launch: str | None = None,
    read: ReadRows | None = None,
    counted_at: Instant | None = None,
) -> JourneyReport:
    """Report on a journey, or on one launch of it.

    read: executes the statements; None: the transaction does, now. counted_at: the time up to which
    `read` counts, if it is not now.

    Raises SegueError if the journey or the launch does not exist, or if the journey has no
    experiment to report by arm.
    """
    reading = _Reading(
        tx,
        catalog=catalog,
        journey=journey,
        mapping=mapping,
        period=period,
        launch=launch,
        read=read or (lambda statement, given: tx.conn.execute(statement, given).all()),
        counted_at=tx.now if counted_at is None else counted_at,
    )
    return reading.report(by)


def parameters(
    catalog: Catalog, journey: str, period: ReportPeriod, launch: str | None = None
) -> dict[str, Any]:
    """The parameters of a report's statements, but for `now`."""
    goal = catalog.journey(journey).journey.goal
    return {
        "of_journey": journey,
        "of_launch": launch,
        "since": period.since,
        "until": period.until,
        "goal_within": 0 if goal is None else goal.within,
        **_experiments(catalog, journey),
    }


class _Reading:
    """The reading of one report."""

    def __init__(
        self,
        tx: Tx,
        *,
        catalog: Catalog,
        journey: str,
        mapping: RevenueMapping,
        period: ReportPeriod,
        launch: str | None,
        read: ReadRows,
        counted_at: Instant,
    ) -> None:
        self._version = catalog.journey(journey)
        catalog.catch_up(tx)
        self._tx = tx
        self._catalog = catalog
        self._journey = journey
        self._mapping = mapping
        self._period = period
        self._launch = launch
        self._read = read
        self._counted_at = counted_at
        self._goal = self._version.journey.goal
        self._left = LeftOut()
        self._mails: dict[str, Figures] = {}
        self._outcomes: Counter[tuple[str, str, str]] = Counter()
        self._given = {**parameters(catalog, journey, period, launch), "now": counted_at}
        self._launches = {row.id: row for row in tx.conn.execute(_LAUNCHES, self._given)}
        if launch is not None and launch not in self._launches:
            raise SegueError(f"the journey {journey!r} has no launch {launch!r}")
        removed = [
            row
            for row in map(_Removed._make, self._rows(_REMOVED))
            if launch in (None, row.launch_id)
        ]
        for row in removed:
            self._outcomes[row.channel, row.state, row.reason] += int(row.number)
        self._removed = [row for row in removed if row.state not in HANDED_OVER]
        [[self._first_entry]] = self._rows(_FIRST_ENTRY)
        self._removed_sent = sum(int(row.number) for row in removed if row.state in HANDED_OVER)

    def report(self, by: By) -> JourneyReport:
        if by == "arm" and not self._given["experiments"]:
            raise SegueError(f"the journey {self._journey!r} has no experiment, and so no arms")
        steps = self._groups("step")
        # The other groupings read the same orders and mails again.
        left, mails = self._left, self._mails
        self._left, self._mails = LeftOut(), {}
        on_channels = by_channel(steps)
        if by == "step":
            groups = steps
        elif by == "channel":
            groups = on_channels
        elif by == "segment":
            groups = self._by_segment()
        else:
            groups = self._groups(by)
        total = self._groups("all", messages=False)[0:1] or [
            Figures(key="", entered=0, active=0, goals=0)
        ]
        for one in steps:
            total[0].add(one)
        funnel, ended = self._funnel()
        return JourneyReport(
            journey=self._journey,
            by=by,
            period=self._period,
            launch=self._launch,
            counted_at=self._counted_at,
            first_entry=self._first_entry,
            currency=self._mapping.currency,
            goal=self._goal,
            total=total[0],
            groups=groups,
            channels=on_channels,
            steps=funnel,
            ended=ended,
            links=self._links(),
            mailboxes=sorted(
                (one for one in mails.values() if one.counts),
                key=lambda one: (one.key == OTHER_MAILBOX, one.key),
            ),
            delays=self._delays(),
            outcomes=self._outcomes,
            method=list(self._method()),
            notes=[*left.said(), *self._notes(by)],
            empty=self._why_empty(total[0]),
        )

    # Groups ---------------------------------------------------------------------------------------

    def _groups(
        self, grouping: Grouping, within: Condition | None = None, *, messages: bool = True
    ) -> list[Figures]:
        question = self._question(grouping, within)
        found: _Groups = {}
        if messages:
            self._states(question, found)
            self._reactions(question, found)
        if grouping != "step":
            for key, part, active, number, goals in self._rows(statements.entries(question)):
                one = self._group(found, grouping, key, part)
                one.entered = (one.entered or 0) + number
                one.active = (one.active or 0) + (number if active else 0)
                one.goals = (one.goals or 0) + goals
            for one in found.values():
                one.entered, one.active, one.goals = (
                    one.entered or 0,
                    one.active or 0,
                    one.goals or 0,
                )
        return sorted(found.values(), key=self._place(grouping))

    def _by_segment(self) -> list[Figures]:
        groups = []
        for name, segment in self._catalog.segments.items():
            for one in self._groups("all", segment.condition):
                one.key = name
                groups.append(one)
        return groups

    def _group(self, found: _Groups, grouping: Grouping, key: Any, part: str) -> Figures:
        if grouping == "week":
            key = self._period.week_of(int(key))
        if (key, part) not in found:
            found[key, part] = Figures(key=key, part=part)
        return found[key, part]

    def _place(self, grouping: Grouping) -> Callable[[Figures], tuple[Any, ...]]:
        """The sort key of the groups: the order in which people read them."""
        graph = {name: place for place, name in enumerate(self._version.journey.graph)}

        def place(one: Figures) -> tuple[Any, ...]:
            match grouping:
                case "step":
                    known = graph.get(one.key, len(graph))
                    return known, one.key, channel_of(one.part).order
                case "arm":
                    return graph.get(one.key, len(graph)), one.key, one.part
                case "launch":
                    row = self._launches.get(one.key)
                    return row is None, 0 if row is None else row.started_at, one.key
                case _:
                    return (one.key,)

        return place

    def _states(self, question: ReportQuestion, found: _Groups) -> None:
        rows = self._rows(statements.message_states(question))
        for key, part, channel, mailbox, past, state, reason, number in rows:
            if question.grouping == "step" and not past:
                self._outcomes[channel, state, counted_reason(state, reason)] += number
            for one in self._counted(question, found, key, part, channel, mailbox):
                _add_state(one, channel, state, reason, number)
                if mailbox == NO_COMPLAINTS and state in HANDED_OVER:
                    one.unreported += number if channel_of(channel).watch_bounces else 0
        if self._period.is_limited or question.within is not None:
            return
        for launch, step, channel, state, reason, number in self._removed:
            if question.grouping == "step":
                key, part = step, channel
            elif question.grouping == "launch":
                key, part = launch, ""
            else:
                continue
            one = self._group(found, question.grouping, key, part)
            _add_state(one, channel, state, reason, int(number))

    def _reactions(self, question: ReportQuestion, found: _Groups) -> None:
        """What followed the messages."""
        for *place, kind, number in self._rows(statements.feedback(question)):
            for one in self._counted(question, found, *place):
                one.counts[kind, place[2]] += number
        for measure, statement in (
            ("converted", statements.conversions),
            ("unsubscribed", statements.noes),
        ):
            for *place, number in self._rows(statement(question)):
                for one in self._counted(question, found, *place):
                    one.counts[measure, place[2]] += number
        if self._goal is None:
            return
        rows = self._rows(statements.orders(question, self._mapping))
        for *place, amount, currency, number in rows:
            whole = self._left.amount_of(self._mapping, amount, currency, number)
            if whole is not None:
                for one in self._counted(question, found, *place):
                    one.revenue += whole * number
                    one.counts["orders", place[2]] += number if whole >= 0 else 0

    def _counted(
        self,
        question: ReportQuestion,
        found: _Groups,
        key: Any,
        part: str,
        channel: str,
        mailbox: str,
    ) -> Iterator[Figures]:
        """The figures in which messages count: of their group, and of e-mails by mailbox."""
        yield self._group(found, question.grouping, key, part)
        if channel_of(channel).watch_bounces:
            yield self._mails.setdefault(mailbox, Figures(key=mailbox))

    # The whole journey ----------------------------------------------------------------------------

    def _question(self, grouping: Grouping, within: Condition | None = None) -> ReportQuestion:
        return ReportQuestion(
            grouping,
            self._tx.is_sqlite,
            dated=self._period.is_limited,
            launched=self._launch is not None,
            within=within,
        )

    def _whole(self) -> ReportQuestion:
        return self._question("all")

    def _funnel(self) -> tuple[list[FunnelStep], Counter[str]]:
        """The steps in the order of the graph, then those of older versions; the ends by reason."""
        here: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        stayed: dict[str, Counter[str]] = {}
        left: dict[str, Counter[str]] = {}
        for step, reason, number in self._rows(statements.positions(self._whole())):
            if reason is None:
                here[step] += number
            else:
                ended[reason] += number
                if reason in _WITHOUT_PASSAGE:
                    stayed.setdefault(step, Counter())[reason] += number
        moved = list(self._rows(statements.moves(self._whole())))
        if self._is_whole:
            moved += self._rows(statements.REMOVED_MOVES)
        for step, outcome, number in moved:
            left.setdefault(step, Counter())[outcome] += int(number)
        known = list(self._version.journey.graph)
        older = sorted({*here, *stayed, *left} - set(known))
        steps = []
        for step in (*known, *older):
            gone, over = left.get(step, Counter()), stayed.get(step, Counter())
            steps.append(
                FunnelStep(
                    step=step,
                    reached=gone.total() + over.total() + here[step],
                    here=here[step],
                    left=gone,
                    ended=over,
                    current=step in known,
                )
            )
        return steps, ended

    def _links(self) -> list[Link]:
        """The clicked links; the most clicked first."""
        found: Counter[tuple[str, str, str]] = Counter()
        for step, channel, url, number in self._rows(statements.clicked_links(self._whole())):
            found[step, channel, (url or "").partition("#")[0].partition("?")[0]] += number
        links = [Link(*place, number) for place, number in found.items()]
        return sorted(links, key=lambda one: (-one.clicked, one))

    def _delays(self) -> list[Delays]:
        minutes: dict[str, Counter[int]] = {}
        waiting: Counter[str] = Counter()
        for channel, late, gone, number in self._rows(statements.delays(self._whole())):
            minutes.setdefault(channel, Counter())[int(late)] += number
            waiting[channel] += 0 if gone else number
        return [Delays(one, minutes[one], waiting[one]) for one in sorted(minutes)]

    # Statements for people ------------------------------------------------------------------------

    def _method(self) -> Iterator[str]:
        of = f"the launch {self._launch}" if self._launch else "all entries"
        yield (
            f"Counted: {of}, {self._period.text}, up to "
            f"{format_instant(self._counted_at)}. A period "
            "selects enrollments by their entry and messages by their hand-over; what followed "
            "counts up to now."
        )
        if self._goal is None:
            yield "The journey has no goal, so nothing converts and no revenue is attributed to it."
        else:
            within = format_duration(self._goal.within)
            yield (
                f"Revenue in {self._mapping.currency}: an order ({self._mapping.event}) counts for "
                f"the customer's last message before it, of whatever journey, if it came within "
                f"{within}, the time of this journey's goal. Refunds are subtracted. A conversion "
                "counts for the last message of its enrollment."
            )
        yield (
            "Unsubscribed: a no to the channel or the topic counts for the last message on the "
            f"channel before it, within {format_duration(NO_WITHIN)}."
        )
        yield (
            f"Complaints: {NO_COMPLAINTS} does not report them, so its mails are in no share; its "
            "Postmaster Tools have the rate. Company domains there look like any other."
        )

    def _notes(self, by: By) -> Iterator[str]:
        """What the figures do not contain."""
        removed = sum(int(row.number) for row in self._removed)
        if removed and self._period.is_limited:
            yield (
                f"{removed:,} messages that were not sent are older than the retention. Only the "
                "report without --from and --to counts them."
            )
        elif removed and by in ("arm", "segment", "week"):
            yield (
                f"{removed:,} messages that were not sent are older than the retention. They are "
                f"in the totals, and cannot be split by {by}."
            )
        moved = sum(int(number) for _, _, number in self._rows(statements.REMOVED_MOVES))
        if moved and not self._is_whole:
            yield (
                f"{moved:,} moves between steps are older than the retention. Only the report on "
                "the whole journey counts them; here steps can show too few enrollments."
            )
        if self._removed_sent:
            yield (
                f"{self._removed_sent:,} sent messages are older than the retention. All figures "
                "count them, except those of delays by windows and caps."
            )
        if by == "segment":
            yield "Segments are as they are now. A person can be in several, or in none."
        if by == "arm":
            yield (
                "The arm of a person is the first one drawn. Only messages after the experiment "
                "are in an arm. segue experiment compares the arms."
            )

    def _why_empty(self, total: Figures) -> str:
        if total.entered or total.counts or total.planned or total.not_sent:
            return ""
        if self._is_whole:
            return (
                f"Nobody has entered {self._journey} yet. It is entered by "
                f"{self._version.journey.entry.described}."
            )
        if self._launch is not None:
            return f"Nobody entered by the launch {self._launch} {self._period.text}."
        first = self._first_entry
        if first is None:
            return f"Nobody has entered {self._journey} yet."
        return (
            f"No entry and no message {self._period.text}. The first entry was at "
            f"{format_instant(first)}."
        )

    # Rows -----------------------------------------------------------------------------------------

    @property
    def _is_whole(self) -> bool:
        """Whether everything that the journey ever did counts."""
        return not self._period.is_limited and self._launch is None

    def _rows(self, statement: Executable) -> Sequence[Sequence[Any]]:
        return self._read(statement, self._given)


def _experiments(catalog: Catalog, journey: str) -> dict[str, Any]:
    """The experiments of all versions, and the pairs of each with the steps after it."""
    names: set[str] = set()
    following: set[tuple[str, str]] = set()
    for version in catalog.versions(journey):
        graph = version.journey.graph
        for name, node in graph.items():
            if isinstance(node.step, ExperimentStep):
                names.add(name)
                following |= {(name, step) for step in steps_after(graph, name)}
    return {"experiments": sorted(names), "following": sorted(following)}


def _add_state(one: Figures, channel: str, state: str, reason: str | None, number: int) -> None:
    """Count messages by their counted state."""
    if state in HANDED_OVER:
        one.counts["sent", channel] += number
        if state in ("delivered", RETURNED):
            one.counts[state, channel] += number
        elif state == "unknown":
            one.counts["unknown", channel] += number
            if reason is None or reason.startswith(CLOSED):
                one.counts["closed", channel] += number
    elif state in AHEAD:
        one.planned[channel] += number
    else:
        # "missing_data: event.url" counts as "missing_data"
        one.not_sent[(counted_reason(state, reason) or state).split(":")[0]] += number
