"""Remove messages whose retention is over, with their devices.

What provider reports and goals need of a message that was handed over stays in `past_message`.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import delete, insert, select

from channels.messages.table import message_devices, messages, past_messages
from config.database.arrays import any_of
from config.database.engine import Tx
from profiles.identity.mergers import Merger, move_rows, repoint

_c = messages.c
_KEPT = [column.name for column in past_messages.c]
_KEEP = insert(past_messages).from_select(
    _KEPT,
    # A provider can report only on messages that were claimed.
    select(*(_c[name] for name in _KEPT)).where(any_of(_c.id, "messages"), _c.attempts > 0),
    include_defaults=False,
)
_REMOVE_DEVICES = delete(message_devices).where(any_of(message_devices.c.message_id, "messages"))
_REMOVE = delete(messages).where(any_of(_c.id, "messages"))


def remove(tx: Tx, message_ids: Collection[int]) -> int:
    """Remove messages that nothing can change any more; returns how many.

    The caller has locked them, and has made sure that no cap and no current enrollment needs them.
    """
    given = {"messages": message_ids}
    for statement in (_KEEP, _REMOVE_DEVICES):
        tx.conn.execute(statement, given)
    return tx.conn.execute(_REMOVE, given).rowcount


def give_to(tx: Tx, mergers: Sequence[Merger]) -> dict[int, list[int]]:
    """Move what remains of messages to the remaining profiles. Returns ids by merged profile."""
    return repoint(tx, past_messages, mergers)


def give_back(tx: Tx, message_ids: Collection[int], from_id: int, to: int) -> None:
    """Give rows of messages to the profile that an undone join separates."""
    move_rows(tx, past_messages, "id", message_ids, from_id, to)
