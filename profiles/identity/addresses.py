"""Which addresses of a profile are in use. The rule stands here alone.

Of the e-mail addresses and phone numbers that are not retired the one seen last is in use: there
is one of each, unless an older release or a join left several. Of push tokens each one that is not
retired is in use. An address in use may still be suppressed (`state`); no other takes its place.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, or_, select, tuple_

from config.database import Tx
from profiles.bulk import among
from profiles.tables import ADDRESS_KIND, IdentifierKind, identifiers

# Those of which a profile uses one at a time; a new one replaces the one before.
ONE_AT_A_TIME: tuple[IdentifierKind, ...] = ("email", "phone")


def is_in_use() -> ColumnElement[bool]:
    """The condition on a row of `identifiers` of a kind in ADDRESS_KIND."""
    one, newer = identifiers.c, identifiers.alias("newer")
    replaced = (
        exists()
        .where(
            newer.c.profile_id == one.profile_id,
            newer.c.kind == one.kind,
            newer.c.retired_at.is_(None),
            tuple_(newer.c.seen_at, newer.c.value) > tuple_(one.seen_at, one.value),
        )
        .correlate(identifiers)
    )
    return and_(one.retired_at.is_(None), or_(one.kind.notin_(ONE_AT_A_TIME), ~replaced))


def addresses_in_use(
    tx: Tx, profile_ids: Collection[int], kinds: Collection[IdentifierKind] | None = None
) -> Sequence[Row[Any]]:
    """The rows (profile_id, kind, value, state, country, platform) of the addresses in use.

    They are in use whatever their state. Of several push tokens of a profile the one seen last
    comes last.

    Parameters
    ----------
    kinds: None means all kinds of addresses.
    """
    c = identifiers.c
    wanted = tuple(ADDRESS_KIND.values() if kinds is None else kinds)
    found = select(c.profile_id, c.kind, c.value, c.state, c.country, c.platform).where(
        among(tx, c.profile_id, profile_ids), c.kind.in_(wanted), is_in_use()
    )
    return tx.conn.execute(found.order_by(c.seen_at, c.value)).all()
