"""The addresses of a profile that are in use. No other module defines this.

Of the e-mail addresses and phone numbers that are not retired, the one seen last is in use. There
is one of each, unless an older release or a merge left several. Every push token that is not
retired is in use. An address in use can be suppressed on a channel; no other address replaces it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    exists,
    literal,
    not_,
    or_,
    select,
    tuple_,
)

from config.channels import ChannelName, channels
from config.database.arrays import one_of
from config.database.engine import Tx, insert_into
from profiles.bucketing import identifier_bucket
from profiles.bulk import among
from profiles.tables import (
    ADDRESS_KIND,
    IdentifierKind,
    SuppressionState,
    identifiers,
    suppressions,
)

# Kinds of which a profile uses one at a time; a new one replaces the previous one.
ONE_AT_A_TIME: tuple[IdentifierKind, ...] = ("email", "phone")
# Kinds of which a profile can use several at once.
DEVICE_KINDS = [kind for kind in ADDRESS_KIND.values() if kind not in ONE_AT_A_TIME]
# The channels that send to each kind.
CHANNELS_TO: Mapping[IdentifierKind, Sequence[ChannelName]] = {
    kind: [name for name, to in ADDRESS_KIND.items() if to == kind]
    for kind in ADDRESS_KIND.values()
}


def is_in_use() -> ColumnElement[bool]:
    """The SQL condition on a row of `identifiers`, of a kind in ADDRESS_KIND, that it is in use."""
    one, newer = identifiers.c, identifiers.alias("newer")
    replaced = (
        exists()
        .where(
            newer.c.profile_id == one.profile_id,
            newer.c.kind == one.kind,
            not_(_is_retired(newer)),
            tuple_(newer.c.seen_at, newer.c.value) > tuple_(one.seen_at, one.value),
        )
        .correlate(identifiers)
    )
    return and_(not_(is_retired()), or_(not_(one_of(one.kind, ONE_AT_A_TIME)), ~replaced))


def is_retired() -> ColumnElement[bool]:
    """The SQL condition on a row of `identifiers` that it is retired."""
    return _is_retired(identifiers)


def _is_retired(table: FromClause) -> ColumnElement[bool]:
    return table.c.retired_at.is_not(None)


def is_retired_row(row: Mapping[str, Any]) -> bool:
    """`is_retired` of a row of `identifiers` in memory, by column name."""
    return row["retired_at"] is not None


class Address(NamedTuple):
    """An address that messages to a profile on a channel go to. suppressed: nothing is sent to
    it."""

    profile_id: int
    channel: ChannelName
    value: str
    suppressed: bool
    country: str | None  # of a phone number; ISO alpha-2
    platform: str | None  # of a push token


def channel_addresses(
    tx: Tx, profile_ids: Collection[int], names: Iterable[ChannelName] | None = None
) -> list[Address]:
    """The addresses in use on each channel. Push tokens are in order of `seen_at`, the latest last.

    Parameters
    ----------
    names: the channels; None means all.
    """
    wanted = set(channels() if names is None else names)
    kinds = {ADDRESS_KIND[name] for name in wanted}
    c = identifiers.c
    found = (
        select(
            c.profile_id, c.kind, c.value, c.country, c.platform, suppressions.c.channel.label("on")
        )
        .join_from(identifiers, suppressions, _of_address, isouter=True)
        .where(among(tx, c.profile_id, profile_ids), c.kind.in_(kinds), is_in_use())
        .order_by(c.seen_at, c.value)
    )
    # The outer join gives one row per channel on which an address is suppressed, or else one row.
    rows = tx.conn.execute(found).all()
    suppressed = {(row.kind, row.value, row.on) for row in rows}
    return [
        Address(
            profile_id=row.profile_id,
            channel=name,
            value=row.value,
            suppressed=(row.kind, row.value, name) in suppressed,
            country=row.country,
            platform=row.platform,
        )
        for row in {(row.kind, row.value): row for row in rows}.values()
        for name in CHANNELS_TO[row.kind]
        if name in wanted
    ]


def is_usable(channel: ChannelName) -> ColumnElement[bool]:
    """The SQL condition on a row of `identifiers` that the channel can send to it."""
    return and_(
        identifiers.c.kind == ADDRESS_KIND[channel], not_(is_suppressed(channel)), is_in_use()
    )


def is_suppressed(channel: ChannelName) -> ColumnElement[bool]:
    """The SQL condition on a row of `identifiers` that it is suppressed on the channel."""
    return _suppression().where(suppressions.c.channel == channel).exists()


def suppresses(
    channel: ColumnElement[ChannelName], address: ColumnElement[str]
) -> ColumnElement[bool]:
    """The SQL condition on columns of another table that the address is suppressed."""
    c = suppressions.c
    return exists().where(c.channel == channel, c.address == address)


def is_suppressed_anywhere() -> ColumnElement[bool]:
    """The SQL condition on a row of `identifiers` that it is suppressed on at least one channel."""
    return _suppression().exists()


def _suppression() -> Select[tuple[int]]:
    return select(literal(1)).where(_of_address).correlate(identifiers)


_of_address = and_(
    suppressions.c.address == identifiers.c.value, suppressions.c.bucket == identifiers.c.bucket
)


class Suppressed(NamedTuple):
    """An address to suppress on a channel."""

    channel: ChannelName
    address: str
    state: SuppressionState


def suppress(tx: Tx, found: Collection[Suppressed]) -> None:
    """Suppress addresses, whichever profile has or gets them.

    The state `complained` is final; other states are replaced. The caller must hold locks on the
    profiles that have the addresses, so that no process claims a message to them meanwhile.
    """
    if not found:
        return
    c = suppressions.c
    adding = insert_into(tx.conn, suppressions)
    tx.conn.execute(
        adding.on_conflict_do_update(
            index_elements=list(suppressions.primary_key),
            set_={"state": adding.excluded.state},
            where=c.state != "complained",
        ),
        [
            {
                "address": one.address,
                "channel": one.channel,
                "bucket": identifier_bucket(ADDRESS_KIND[one.channel], one.address),
                "state": one.state,
                "since": tx.now,
            }
            for one in sorted(found)
        ],
    )
