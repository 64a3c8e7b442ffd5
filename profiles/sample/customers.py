"""Which customers are those of the sample shop."""

from sqlalchemy import select

from config.database.engine import Tx
from profiles.tables import events

_SAMPLE = (
    select(events.c.profile_id)
    .where(events.c.name == "signed_up", events.c.dedupe_key.startswith("sample-signup-"))
    .distinct()
    .order_by(events.c.profile_id)
)


def sample_customers(tx: Tx) -> list[int]:
    """The ids of the profiles that `load_sample_shop` created, by the keys of their first events.

    A customer who was joined with one of them is among them.
    """
    return list(tx.conn.execute(_SAMPLE).scalars())
