"""Replace the messages of an erased person by rows that name nobody.

Reports count these rows. They have new ids, because providers know the old ones.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Table, delete, select

from channels.messages.table import message_devices, messages, past_messages
from config.database.arrays import InsertRows, any_of
from config.database.engine import Tx
from profiles.bulk import new_row_ids

_TABLES: tuple[Table, ...] = (messages, past_messages)
_LOCK = (
    select(messages)
    .where(any_of(messages.c.profile_id, "profiles"))
    .order_by(messages.c.id)
    .with_for_update()
)
_PAST = (
    select(past_messages)
    .where(any_of(past_messages.c.profile_id, "profiles"))
    .order_by(past_messages.c.id)
)
_INSERT = {table.name: InsertRows(*table.c) for table in _TABLES}
_REMOVE = [
    delete(table).where(any_of(table.c.profile_id, "profiles"))
    for table in (message_devices, *_TABLES)
]


def lock_messages(tx: Tx, profile_ids: Collection[int]) -> list[dict[str, Any]]:
    """The messages of these profiles, locked in the order of their ids."""
    return [dict(row) for row in tx.conn.execute(_LOCK, {"profiles": profile_ids}).mappings()]


def past_messages_of(tx: Tx, profile_ids: Collection[int]) -> list[dict[str, Any]]:
    """What retention has left of the messages of these profiles, in the order of their ids."""
    return [dict(row) for row in tx.conn.execute(_PAST, {"profiles": profile_ids}).mappings()]


def new_ids(tx: Tx, number: int) -> Sequence[int]:
    """Ids for messages that the caller inserts, in ascending order."""
    return new_row_ids(tx, messages, number)


def insert_nameless(
    tx: Tx, rows: Sequence[Mapping[str, Any]], past: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows with all columns: messages, and past messages."""
    for table, some in zip(_TABLES, (rows, past), strict=True):
        _INSERT[table.name](
            tx.conn, [tuple(row[column.name] for column in table.c) for row in some]
        )


def remove_messages(tx: Tx, profile_ids: Collection[int]) -> None:
    """Remove all messages of these profiles, with their devices and what retention has left."""
    for statement in _REMOVE:
        tx.conn.execute(statement, {"profiles": profile_ids})
