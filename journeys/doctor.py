"""What is not as it should be: people past due, messages left behind, claims without an owner."""

from dataclasses import dataclass

from sqlalchemy import func, select

from channels.claiming import LOST_AFTER
from channels.tables import messages
from config.database import Tx
from config.times import DAY, MINUTE, Seconds
from journeys.control import held
from journeys.tables import enrollments

# Due for longer than this means that nobody works, or that something is in the way.
LATE: Seconds = 2 * MINUTE
# A provider's word that has not come by then does not come: SendGrid tries for a day.
UNSETTLED: Seconds = 3 * DAY


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong: how many rows, since when (seconds), and what to do."""

    what: str
    where: str
    number: int
    for_seconds: Seconds
    mend: str


def examine(tx: Tx) -> list[Complaint]:
    """Everything that is wrong now, the oldest first; empty when all is well."""
    holding = list(held(tx))
    found: list[Complaint] = []
    late_people = (
        select(enrollments.c.journey, func.count(), func.min(enrollments.c.due_at))
        .where(enrollments.c.due_at < tx.now - LATE, enrollments.c.journey.notin_(holding))
        .group_by(enrollments.c.journey)
    )
    for journey, number, since in tx.conn.execute(late_people):
        found.append(
            Complaint(
                "people past due", journey, number, tx.now - since, "start a worker: segue work"
            )
        )
    late_messages = (
        select(messages.c.channel, func.count(), func.min(messages.c.send_at))
        .where(
            messages.c.state == "planned",
            messages.c.send_at < tx.now - LATE,
            messages.c.journey.notin_(holding),
        )
        .group_by(messages.c.channel)
    )
    for channel, number, since in tx.conn.execute(late_messages):
        mend = "start a worker, or see its log: the channel may be stopped"
        found.append(
            Complaint("messages planned in the past", channel, number, tx.now - since, mend)
        )
    ownerless = select(messages.c.channel, func.count(), func.min(messages.c.not_after)).where(
        messages.c.state == "sending", messages.c.not_after < tx.now - LOST_AFTER
    )
    for channel, number, since in tx.conn.execute(ownerless.group_by(messages.c.channel)):
        mend = "segue doctor --mend marks them as unknown, as a worker would"
        found.append(Complaint("claims without an owner", channel, number, tx.now - since, mend))
    unsettled = select(messages.c.channel, func.count(), func.min(messages.c.send_at)).where(
        messages.c.state == "unknown", messages.c.send_at < tx.now - UNSETTLED
    )
    for channel, number, since in tx.conn.execute(unsettled.group_by(messages.c.channel)):
        mend = "no call-back came: decide with segue resolve"
        found.append(Complaint("fate unknown", channel, number, tx.now - since, mend))
    return sorted(found, key=lambda complaint: -complaint.for_seconds)
