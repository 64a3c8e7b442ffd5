"""Which addresses of a profile are in use. The rule stands here alone.

Of the e-mail addresses and phone numbers that are not retired the one seen last is in use: there
is one of each, unless an older release or a join left several. Of push tokens each one that is not
retired is in use. An address in use may still be suppressed on a channel; no other takes its place.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, exists, not_, or_, select, tuple_

from config.channels import ChannelName, channels
from config.database import Tx
from profiles.bulk import among
from profiles.tables import ADDRESS_KIND, IdentifierKind, identifiers

# Those of which a profile uses one at a time; a new one replaces the one before.
ONE_AT_A_TIME: tuple[IdentifierKind, ...] = ("email", "phone")
# Those of which a profile may use several at once.
DEVICE_KINDS = [kind for kind in ADDRESS_KIND.values() if kind not in ONE_AT_A_TIME]
# The channels on which messages go to each kind.
CHANNELS_TO: Mapping[IdentifierKind, Sequence[ChannelName]] = {
    kind: [name for name, to in ADDRESS_KIND.items() if to == kind]
    for kind in ADDRESS_KIND.values()
}


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


class Address(NamedTuple):
    """Where messages to a profile on a channel go; suppressed: nothing may go there."""

    profile_id: int
    channel: ChannelName
    value: str
    suppressed: bool
    country: str | None  # of a phone number
    platform: str | None  # of a push token


def channel_addresses(
    tx: Tx, profile_ids: Collection[int], names: Iterable[ChannelName] | None = None
) -> list[Address]:
    """The addresses in use on each channel; of several push tokens the one seen last comes last.

    Parameters
    ----------
    names: of channels; None means all.
    """
    wanted = set(channels() if names is None else names)
    kinds = {ADDRESS_KIND[name] for name in wanted}
    return [
        Address(row.profile_id, name, row.value, row.state != "active", row.country, row.platform)
        for row in addresses_in_use(tx, profile_ids, kinds)
        for name in CHANNELS_TO[row.kind]
        if name in wanted
    ]


def is_usable(channel: ChannelName) -> ColumnElement[bool]:
    """The condition on a row of `identifiers`: messages on the channel may go there."""
    return and_(
        identifiers.c.kind == ADDRESS_KIND[channel], not_(is_suppressed(channel)), is_in_use()
    )


def is_suppressed(channel: ChannelName) -> ColumnElement[bool]:  # noqa: ARG001
    """The condition on a row of `identifiers`: nothing on the channel may go there any more."""
    return identifiers.c.state != "active"
