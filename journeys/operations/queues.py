"""The sizes of the database's queues, and how long the oldest entry has waited."""

from dataclasses import dataclass

from sqlalchemy import func, literal, select

from channels.messages import messages
from config.channels import ChannelName, by_channel
from config.clock.times import Seconds
from config.database.engine import Tx
from journeys.enrollments import enrollments
from journeys.operations.control import held
from profiles.tables import events


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
    holding = list(held(tx))
    waiting = select(func.count()).select_from(events).where(events.c.worked_at.is_(None))
    people, since = tx.conn.execute(
        select(func.count(), func.min(enrollments.c.due_at)).where(
            enrollments.c.ended_at.is_(None),
            enrollments.c.due_at <= tx.now,
            enrollments.c.journey.notin_(holding),
        )
    ).one()
    due = (
        select(messages.c.channel, func.count(), func.min(messages.c.send_at))
        .where(
            messages.c.state == "planned",
            messages.c.send_at <= tx.now,
            messages.c.journey.notin_(holding),
        )
        .group_by(messages.c.channel)
    )
    found = {channel: (number, earliest) for channel, number, earliest in tx.conn.execute(due)}
    oldest = min([since or tx.now, *(earliest for _, earliest in found.values())])
    return Queues(
        waiting_events=tx.conn.execute(waiting).scalar_one(),
        due_people=people,
        due_messages=by_channel({channel: number for channel, (number, _) in found.items()}),
        oldest_due=tx.now - oldest,
        oldest_event=oldest_event(tx),
    )


def waiting_events(tx: Tx, most: int) -> int:
    """The number of unprocessed events, counted up to `most`."""
    some = select(literal(1)).where(events.c.worked_at.is_(None)).limit(most).subquery()
    return tx.conn.execute(select(func.count()).select_from(some)).scalar_one()


def oldest_event(tx: Tx) -> Seconds:
    """Seconds since the oldest unprocessed event was received; 0: there is none."""
    waiting = select(events.c.received_at).where(events.c.worked_at.is_(None))
    received_at = tx.conn.execute(waiting.order_by(events.c.id).limit(1)).scalar()
    return 0 if received_at is None else max(0, tx.now - received_at)
