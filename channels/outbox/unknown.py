"""Unknown messages: claims of dead processes become unknown; an operator resolves them, a provider
report does, or they are closed.

A closed message stays `unknown`: it counts against caps and is not sent again, and a late provider
report still resolves it.
"""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select

from channels.messages import messages, transitions
from channels.messages.states import CLOSED
from channels.outbox import devices
from config.clock.times import DAY, Instant, Seconds, format_duration
from config.database.engine import Tx

Verdict = Literal["sent", "failed"]

# No report is expected after this time: SendGrid retries its webhook for 24 hours.
REPORT_EXPECTED_FOR: Seconds = DAY
# After this time an unknown message is closed: operators are not asked about it any more.
CLOSED_AFTER: Seconds = 3 * DAY
_DIED = "the process died around the hand-over"


def settle_lost(tx: Tx) -> int:
    """Mark claims of dead processes `unknown`; returns the number of messages.

    They may have been handed over, so they count against caps and are not sent again. A report of
    the provider resolves them. A push that was accepted for one device stays `sent`; only the
    devices without an outcome become `unknown`.
    """
    before = tx.now - tx.timing.lost_after
    lost = transitions.lose(tx, before, _DIED)
    devices.lose(tx, before, _DIED)
    return lost


def unknown_messages(tx: Tx, message_id: int | None = None) -> Sequence[tuple[int, str, Instant]]:
    """Id, channel and hand-over time of all unknown messages, or of `message_id`."""
    found = (
        select(messages.c.id, messages.c.channel, messages.c.send_at)
        .where(messages.c.state == "unknown")
        .order_by(messages.c.send_at, messages.c.id)
    )
    if message_id is not None:
        found = found.where(messages.c.id == message_id)
    return [(row.id, row.channel, row.send_at) for row in tx.conn.execute(found)]


def resolve(tx: Tx, message_ids: Sequence[int], verdict: Verdict) -> int:
    """Resolve unknown messages; returns how many. `failed` frees their places in the caps."""
    return transitions.resolve(tx, message_ids, verdict)


def close_unsettled(tx: Tx) -> int:
    """Close unknown messages without a report; returns how many."""
    why = f"{CLOSED}: no delivery report within {format_duration(CLOSED_AFTER)}; "
    return transitions.close(tx, tx.now - CLOSED_AFTER, why)
