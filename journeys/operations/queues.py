"""The sizes of the database's queues, and how long the oldest entry has waited."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, bindparam, func, literal, not_, select

from channels.messages import messages
from config.channels import ChannelName, by_channel
from config.clock.times import Seconds
from config.database.arrays import any_of
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.operations.control import held
from profiles.tables import events

_NOW = bindparam("now", type_=BigInteger)
_DUE_PEOPLE = select(func.count(), func.min(enrollments.c.due_at)).where(
    enrollments.c.ended_at.is_(None),
    enrollments.c.due_at <= _NOW,
    not_(any_of(enrollments.c.journey, "held")),
)
_DUE_MESSAGES = (
    select(messages.c.channel, func.count(), func.min(messages.c.send_at))
    .where(
        messages.c.state == "planned",
        messages.c.send_at <= _NOW,
        not_(any_of(messages.c.journey, "held")),
    )
    .group_by(messages.c.channel)
)
_waiting = events.c.worked_at.is_(None)
_WAITING_EVENTS = select(func.count()).select_from(events).where(_waiting)
_SOME_EVENTS = select(func.count()).select_from(
    select(literal(1)).where(_waiting).limit(bindparam("most", type_=BigInteger)).subquery()
)
_OLDEST_EVENT = select(events.c.received_at).where(_waiting).order_by(events.c.id).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """Due work now, without paused and stopped journeys.

    waiting_events: unprocessed events. oldest_due: seconds since the earliest due time of an
    enrollment or message. oldest_event: seconds since the oldest unprocessed event was received.
    """

    waiting_events: int
    due_people: int
    due_messages: dict[ChannelName, int]
    oldest_due: Seconds
    oldest_event: Seconds


def queues(tx: Tx) -> Queues:
    """Read the queues of the whole database."""
    given = {"held": held(tx), "now": tx.now}
    people, since = tx.conn.execute(_DUE_PEOPLE, given).one()
    due = tx.conn.execute(_DUE_MESSAGES, given)
    found = {channel: (number, earliest) for channel, number, earliest in due}
    oldest = min([since or tx.now, *(earliest for _, earliest in found.values())])
    return Queues(
        waiting_events=tx.conn.execute(_WAITING_EVENTS).scalar_one(),
        due_people=people,
        due_messages=by_channel({channel: number for channel, (number, _) in found.items()}),
        oldest_due=tx.now - oldest,
        oldest_event=oldest_event(tx),
    )


def waiting_events(tx: Tx, most: int) -> int:
    """The number of unprocessed events, counted up to `most`."""
    return tx.conn.execute(_SOME_EVENTS, {"most": most}).scalar_one()


def oldest_event(tx: Tx) -> Seconds:
    """Seconds since the oldest unprocessed event was received; 0: there is none."""
    received_at = tx.conn.execute(_OLDEST_EVENT).scalar()
    return 0 if received_at is None else max(0, tx.now - received_at)
