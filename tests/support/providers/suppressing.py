"""Read and set suppressed addresses."""

from collections.abc import Mapping

from sqlalchemy import delete, select

from config.database.engine import Database
from profiles.identity.addresses import Suppressed, suppress
from profiles.tables import SuppressionState, suppressions


def suppressed(db: Database) -> Mapping[tuple[str, str], str]:
    """The state of each suppressed address, by channel and address."""
    c = suppressions.c
    with db.transaction(write=False) as tx:
        found = select(c.channel, c.address, c.state)
        return {(row.channel, row.address): row.state for row in tx.conn.execute(found)}


def becomes(db: Database, channel: str, address: str, state: SuppressionState | None) -> None:
    """Set the suppression of an address on a channel; None removes it."""
    c = suppressions.c
    with db.transaction() as tx:
        tx.conn.execute(delete(suppressions).where(c.channel == channel, c.address == address))
        if state is not None:
            suppress(tx, [Suppressed(channel, address, state)])
