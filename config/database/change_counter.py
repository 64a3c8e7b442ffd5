"""The counter of changes to what processes cache.

A transaction that changes such data increases the counter. Every transaction reads the counter
together with the clock, so a process knows whether what it has cached is current.
"""

from typing import ClassVar

from sqlalchemy import insert, update
from sqlmodel import Field, SQLModel

from config.database.engine import Tx, table_of


class ChangeCounter(SQLModel, table=True):
    """The only row has the id 1."""

    __tablename__: ClassVar[str] = "change_counter"

    id: int = Field(primary_key=True)
    changes: int


_counters = table_of(ChangeCounter)
_COUNT = update(_counters).where(_counters.c.id == 1).values(changes=_counters.c.changes + 1)


def count_change(tx: Tx) -> None:
    """Make every process read again what it has cached, once this transaction is committed."""
    tx.cache.clear()
    if tx.conn.execute(_COUNT).rowcount == 0:
        tx.conn.execute(insert(_counters), {"id": 1, "changes": 1})
