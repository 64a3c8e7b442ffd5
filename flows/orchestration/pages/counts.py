"""Counts of what happened at each step of a journey, in any process, read from the rows.

Rows that were removed when their retention ended are counted from `passage_total` and
`message_total`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, func, or_, select, union_all

from channels.messages import messages
from config.clock.times import Instant
from config.database.arrays import insert_or_update
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.operations.counts import AHEAD, HANDED_OVER, counted_state
from journeys.tables import launches, message_totals, passage_totals, passages, steps_shown

_PUT_SHOWN = insert_or_update(steps_shown.c.journey, steps_shown.c.step, steps_shown.c.until)


@dataclass(slots=True)
class StepCounts:
    """One step: enrollments at it, enrollments that left by edge, messages by channel and fate.

    A fate is "sent", "planned" (or sending), or the reason why a message was not sent.
    """

    here: int = 0
    left: Counter[str] = field(default_factory=Counter)
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)

    def fates(self, fate: str) -> Counter[str]:
        """The messages of one fate, by channel."""
        return Counter({channel: n for (channel, what), n in self.messages.items() if what == fate})

    def reasons(self) -> Counter[str]:
        """The messages that were not sent, by reason."""
        reasons: Counter[str] = Counter()
        for (_, fate), number in self.messages.items():
            if fate not in ("sent", "planned"):
                reasons[fate] += number
        return reasons


def last_shown(tx: Tx, journey: str, step: str | None = None) -> Instant | None:
    """Up to when runs have shown a step, or the step that was shown last."""
    c = steps_shown.c
    last = select(func.max(c.until)).where(c.journey == journey)
    until: Instant | None = tx.conn.scalar(last if step is None else last.where(c.step == step))
    return until


def show_step(tx: Tx, journey: str, step: str, begun: Instant) -> StepCounts:
    """Count a step for a run that began at `begun`, including live activity since the last run.

    Concurrent runs count the same activity.
    """
    shown = last_shown(tx, journey, step)
    counts = count_step(tx, journey, step, 0 if shown is None else min(shown, begun))
    _PUT_SHOWN(tx.conn, [(journey, step, tx.now)])
    return counts


def count_step(
    tx: Tx, journey: str, step: str, since: Instant, *, entered_since: Instant | None = None
) -> StepCounts:
    """The enrollments at a step now, and the activity there from `since` on, in all versions.

    entered_since: count only enrollments from then on; None: all.
    """
    here = select(func.count()).where(
        enrollments.c.journey == journey,
        enrollments.c.step == step,
        enrollments.c.ended_at.is_(None),
        *_of_those(enrollments.c.id, journey, entered_since),
    )
    left = (
        select(passages.c.outcome, func.count())
        .where(
            passages.c.journey == journey,
            passages.c.step == step,
            passages.c.at >= since,
            *_of_those(passages.c.enrollment_id, journey, entered_since),
        )
        .group_by(passages.c.outcome)
    )
    fate = counted_state()
    wanted = (
        select(messages.c.channel, fate, messages.c.reason, func.count())
        .where(
            messages.c.journey == journey,
            messages.c.step == step,
            *_of_those(messages.c.enrollment_id, journey, entered_since),
            # requested in this period, or requested before and sent in it
            or_(
                messages.c.wanted_at >= since,
                (messages.c.send_at >= since) & fate.in_(HANDED_OVER),
            ),
        )
        .group_by(messages.c.channel, fate, messages.c.reason)
    )
    p, m = passage_totals.c, message_totals.c
    removed = select(p.outcome, p.number).where(
        p.journey == journey, p.step == step, p.since >= since
    )
    removed_messages = select(m.channel, m.state, m.reason, m.number).where(
        m.journey == journey, m.step == step, m.since >= since
    )
    counts = StepCounts(
        tx.conn.execute(here).scalar_one(),
        _by_first(tx, union_all(left, removed)),
    )
    for channel, state, reason, number in tx.conn.execute(union_all(wanted, removed_messages)):
        counts.messages[channel, _fate(state, reason)] += number
    return counts


def _of_those(
    enrollment: ColumnElement[int], journey: str, entered_since: Instant | None
) -> Sequence[ColumnElement[bool]]:
    """The condition that an enrollment entered from then on; none for None."""
    if entered_since is None:
        return ()
    e = enrollments.c
    entered = select(e.id).where(e.journey == journey, e.entered_at >= entered_since)
    return (enrollment.in_(entered),)


def _fate(state: str, reason: str | None) -> str:
    if state in HANDED_OVER:
        return "sent"
    return "planned" if state in AHEAD else (reason or state).split(":")[0]


def under_way(tx: Tx, journey: str) -> int:
    """The number of messages that a process is handing over now."""
    posting = select(func.count()).where(
        messages.c.state == "sending", messages.c.journey == journey, messages.c.not_after > tx.now
    )
    return tx.conn.execute(posting).scalar_one()


@dataclass(slots=True)
class JourneyCounts:
    """A whole journey: enrollments by step, and by the edges they took.

    first: when the first of them entered; None: nobody has. entries: by how they entered:
    ("launch", its audience), ("event", "") or ("other", "").
    """

    entered: int = 0
    first: Instant | None = None
    here: Counter[str] = field(default_factory=Counter)
    passed: Counter[tuple[str, str]] = field(default_factory=Counter)
    entries: Counter[tuple[str, str]] = field(default_factory=Counter)


def count_journey(tx: Tx, journey: str, *, entered_since: Instant | None = None) -> JourneyCounts:
    """All enrollments of a journey so far, in all its versions.

    entered_since: only those from then on.
    """
    of_journey = [
        enrollments.c.journey == journey,
        *([] if entered_since is None else [enrollments.c.entered_at >= entered_since]),
    ]
    current = (
        select(enrollments.c.step, func.count())
        .where(*of_journey, enrollments.c.ended_at.is_(None))
        .group_by(enrollments.c.step)
    )
    edges = (
        select(passages.c.step, passages.c.outcome, func.count())
        .where(
            passages.c.journey == journey,
            *_of_those(passages.c.enrollment_id, journey, entered_since),
        )
        .group_by(passages.c.step, passages.c.outcome)
    )
    t = passage_totals.c
    removed = select(t.step, t.outcome, t.number).where(t.journey == journey)
    passed: Counter[tuple[str, str]] = Counter()
    for step, outcome, number in tx.conn.execute(union_all(edges, removed)):
        passed[step, outcome] += number
    entries: Counter[tuple[str, str]] = Counter()
    by_event = enrollments.c.entry_event_id.is_not(None).label("by_event")
    ways = (
        select(launches.c.audience, by_event, func.count(), func.min(enrollments.c.entered_at))
        .join_from(enrollments, launches, launches.c.id == enrollments.c.launch_id, isouter=True)
        .where(*of_journey)
        .group_by(launches.c.audience, "by_event")
    )
    first: list[Instant] = []
    for audience, has_event, number, first_of_way in tx.conn.execute(ways):
        way = "event" if has_event else "other"
        entries[(way, "") if audience is None else ("launch", audience)] += number
        first.append(first_of_way)
    return JourneyCounts(
        entered=entries.total(),
        first=min(first, default=None),
        here=_by_first(tx, current),
        passed=passed,
        entries=entries,
    )


def _by_first(tx: Tx, counted: Select[Any] | CompoundSelect[Any]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for what, number in tx.conn.execute(counted):
        counts[what] += number
    return counts
