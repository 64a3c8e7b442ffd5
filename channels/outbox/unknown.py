"""Messages of unknown fate of which no provider's word came: an operator's word, or none at all.

Closed or not they stay `unknown`: they count against caps and are never sent again on their own,
and a provider's word that comes after all still settles them.
"""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select

from channels.messages import messages, transitions
from channels.messages.states import CLOSED
from config.clock.times import DAY, Instant, Seconds, format_duration
from config.database.engine import Tx

Verdict = Literal["sent", "failed"]

# A provider's word that has not come by then does not come: SendGrid tries for a day.
UNSETTLED: Seconds = DAY
# Nobody is asked about them any more.
CLOSED_AFTER: Seconds = 3 * DAY


def unknown_messages(tx: Tx, message_id: int | None = None) -> Sequence[tuple[int, str, Instant]]:
    """Id, channel and hand-over time of the messages of unknown fate, or of the one named."""
    found = (
        select(messages.c.id, messages.c.channel, messages.c.send_at)
        .where(messages.c.state == "unknown")
        .order_by(messages.c.send_at, messages.c.id)
    )
    if message_id is not None:
        found = found.where(messages.c.id == message_id)
    return [(row.id, row.channel, row.send_at) for row in tx.conn.execute(found)]


def resolve(tx: Tx, message_ids: Sequence[int], verdict: Verdict) -> int:
    """Settle messages of unknown fate; says how many. `failed` gives their place in caps back."""
    return transitions.resolve(tx, message_ids, verdict)


def close_unsettled(tx: Tx) -> int:
    """Close the messages of unknown fate of which nobody has said a word; says how many."""
    why = f"{CLOSED}, for no word came within {format_duration(CLOSED_AFTER)}: "
    return transitions.close(tx, tx.now - CLOSED_AFTER, why)
