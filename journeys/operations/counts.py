"""Counts of a journey's enrollments and messages.

Messages that were removed when their retention ended are counted from `message_total`.
"""

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, ColumnElement, bindparam, case, func, literal, select, union_all

from channels.messages import messages
from channels.messages.states import CLOSED
from config.channels import channels
from config.clock.times import Instant
from config.database.arrays import any_of, one_of
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.tables import message_totals

# The states of sent messages: the provider accepted them, or may have.
SENT = ("sent", "delivered", "unknown")
# Messages that failed after the provider accepted them. They also count as sent.
RETURNED = "returned"
HANDED_OVER = (*SENT, RETURNED)
AHEAD = ("planned", "sending")
# The kinds of reports of providers and apps on messages that reports read. Their events are named
# `<channel>_<kind>`, and have the property `message_id`.
REACTIONS = ("opened", "machine_opened", "clicked", "complained")
RETURNS = ("bounced", "failed")
FEEDBACK_EVENTS = {f"{channel}_{kind}" for channel in channels() for kind in (*REACTIONS, *RETURNS)}


_HANDED_OVER = select(func.count(case((messages.c.state == "failed", 1))), func.count()).where(
    messages.c.journey == bindparam("of_journey"),
    any_of(messages.c.channel, "channels"),
    messages.c.send_at >= bindparam("since"),
    one_of(messages.c.state, (*SENT, "failed")),
)


# A report on so many messages takes long, so workers count it from time to time.
LARGE = 100_000
_SOME_MESSAGES = select(func.count()).select_from(
    select(literal(1))
    .select_from(messages)
    .where(messages.c.journey == bindparam("of_journey"))
    .limit(bindparam("most", type_=BigInteger))
    .subquery()
)


def is_large(tx: Tx, journey: str) -> bool:
    """Whether a journey has at least LARGE messages."""
    given = {"of_journey": journey, "most": LARGE}
    return tx.conn.execute(_SOME_MESSAGES, given).scalar_one() == LARGE


def bounces(tx: Tx, journey: str, since: Instant) -> tuple[int, int]:
    """Count the messages that a journey handed over from `since` on: the failed ones, and all.

    Only on channels with `watch_bounces`.
    """
    watched = [name for name, one in channels().items() if one.watch_bounces]
    given = {"of_journey": journey, "channels": watched, "since": since}
    failed, number = tx.conn.execute(_HANDED_OVER, given).one()
    return failed, number


@dataclass(slots=True, kw_only=True)
class Summary:
    """Counts of enrollments by status, messages by channel, and refusals by reason."""

    entered: int = 0
    active: int = 0
    ended: Counter[str] = field(default_factory=Counter)  # by reason
    converted: int = 0
    sent: Counter[str] = field(default_factory=Counter)  # by channel
    unknown: Counter[str] = field(default_factory=Counter)  # by channel; part of `sent`
    closed: int = 0  # part of `unknown`: no delivery report is expected any more
    returned: Counter[str] = field(default_factory=Counter)  # by channel; part of `sent`
    planned: Counter[str] = field(default_factory=Counter)  # by channel
    not_sent: Counter[str] = field(default_factory=Counter)  # by reason
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    # (channel, state, reason or "")


def counted_state() -> ColumnElement[str]:
    """A message's state for counting: RETURNED if it failed after a provider accepted it."""
    returned = (messages.c.state == "failed") & messages.c.provider_id.is_not(None)
    return case((returned, RETURNED), else_=messages.c.state)


def counted_reason(state: str, reason: str | None) -> str:
    """A message's reason for counting, by its counted state.

    After the hand-over it is cut at its colon, because the rest may be a provider's text, which
    differs from message to message.
    """
    if state in HANDED_OVER or state == "failed":
        return (reason or "").split(":")[0]
    return reason or ""


def summarise(tx: Tx, journey: str, launch_id: str | None = None) -> Summary:
    """Count a journey's enrollments and messages, or only those of one launch."""
    summary = Summary()
    people = select(
        enrollments.c.end_reason,
        enrollments.c.ended_at.is_(None),
        func.count(),
        func.count(enrollments.c.converted_at),
    ).where(enrollments.c.journey == journey)
    # Only failed messages need a column that is not in the index.
    wanted = [
        select(messages.c.channel, state.label("counted"), messages.c.reason, func.count()).where(
            messages.c.journey == journey, which
        )
        for state, which in (
            (messages.c.state, messages.c.state != "failed"),
            (counted_state(), messages.c.state == "failed"),
        )
    ]
    t = message_totals.c
    removed = select(t.channel, t.state, t.reason, t.number).where(t.journey == journey)
    if launch_id is not None:
        removed = removed.where(t.launch_id == launch_id)
        people = people.where(enrollments.c.launch_id == launch_id)
        wanted = [
            some.join(enrollments, enrollments.c.id == messages.c.enrollment_id).where(
                enrollments.c.launch_id == launch_id
            )
            for some in wanted
        ]
    for reason, active, number, converted in tx.conn.execute(
        people.group_by(enrollments.c.end_reason, enrollments.c.ended_at.is_(None))
    ):
        summary.entered += number
        summary.converted += converted
        if active:
            summary.active += number
        else:
            summary.ended[reason] += number
    counted = [some.group_by(messages.c.channel, "counted", messages.c.reason) for some in wanted]
    for channel, state, full_reason, number in tx.conn.execute(union_all(*counted, removed)):
        reason = counted_reason(state, full_reason)
        summary.outcomes[channel, state, reason] += number
        if state in HANDED_OVER:
            summary.sent[channel] += number
            if state == "unknown":
                summary.unknown[channel] += number
                summary.closed += number if reason.startswith(CLOSED) else 0
            if state == RETURNED:
                summary.returned[channel] += number
        elif state in AHEAD:
            summary.planned[channel] += number
        else:
            # "missing_data: event.url" counts as "missing_data"
            summary.not_sent[(reason or state).split(":")[0]] += number
    return summary
