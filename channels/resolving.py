"""An operator's word on messages of unknown fate, where no provider's word came."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select, update

from channels.tables import messages
from config.database import Tx
from config.times import Instant
from profiles.bulk import among

Verdict = Literal["sent", "failed"]


def unknown_messages(tx: Tx, message_id: int | None = None) -> Sequence[tuple[int, str, Instant]]:
    """Id, channel and hand-over time of the messages of unknown fate, or of the one named."""
    found = (
        select(messages.c.id, messages.c.channel, messages.c.send_at)
        .where(messages.c.state == "unknown")
        .order_by(messages.c.send_at)
    )
    if message_id is not None:
        found = found.where(messages.c.id == message_id)
    return [(row.id, row.channel, row.send_at) for row in tx.conn.execute(found)]


def resolve(tx: Tx, message_ids: Sequence[int], verdict: Verdict) -> int:
    """Settle messages of unknown fate; says how many. `failed` gives their place in caps back."""
    settled = (
        update(messages)
        .where(among(tx, messages.c.id, message_ids), messages.c.state == "unknown")
        .values(state=verdict, reason="settled by an operator")
    )
    return tx.conn.execute(settled).rowcount
