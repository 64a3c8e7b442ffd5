"""Which addresses of a profile are in use. The rule stands here alone.

Of the e-mail addresses and phone numbers that are not retired the one seen last is in use: there
is one of each, unless an older release or a join left several. Of push tokens each one that is not
retired is in use. An address in use may still be suppressed on a channel; no other takes its place.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, literal, not_, or_, select, tuple_

from config.channels import ChannelName, channels
from config.database import Tx, insert_into
from profiles.bucketing import identifier_bucket
from profiles.bulk import among
from profiles.tables import (
    ADDRESS_KIND,
    IdentifierKind,
    SuppressionState,
    identifiers,
    suppressions,
)

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
    c = identifiers.c
    found = (
        select(
            c.profile_id, c.kind, c.value, c.country, c.platform, suppressions.c.channel.label("on")
        )
        .join_from(identifiers, suppressions, _of_address, isouter=True)
        .where(among(tx, c.profile_id, profile_ids), c.kind.in_(kinds), is_in_use())
        .order_by(c.seen_at, c.value)
    )
    # An address has a row for each channel on which it is suppressed, and one if there is none.
    rows = tx.conn.execute(found).all()
    suppressed = {(row.kind, row.value, row.on) for row in rows}
    return [
        Address(
            row.profile_id,
            name,
            row.value,
            (row.kind, row.value, name) in suppressed,
            row.country,
            row.platform,
        )
        for row in {(row.kind, row.value): row for row in rows}.values()
        for name in CHANNELS_TO[row.kind]
        if name in wanted
    ]


def is_usable(channel: ChannelName) -> ColumnElement[bool]:
    """The condition on a row of `identifiers`: messages on the channel may go there."""
    return and_(
        identifiers.c.kind == ADDRESS_KIND[channel], not_(is_suppressed(channel)), is_in_use()
    )


def is_suppressed(channel: ChannelName) -> ColumnElement[bool]:
    """The condition on a row of `identifiers`: nothing on the channel may go there any more."""
    return _suppression().where(suppressions.c.channel == channel).exists()


def is_suppressed_anywhere() -> ColumnElement[bool]:
    """The condition on a row of `identifiers`: nothing on some channel may go there any more."""
    return _suppression().exists()


def _suppression() -> Select[tuple[int]]:
    return select(literal(1)).where(_of_address).correlate(identifiers)


_of_address = and_(
    suppressions.c.address == identifiers.c.value, suppressions.c.bucket == identifiers.c.bucket
)


class Suppressed(NamedTuple):
    """An address to which nothing on a channel may be sent any more."""

    channel: ChannelName
    address: str
    state: SuppressionState


def suppress(tx: Tx, found: Collection[Suppressed]) -> None:
    """Send nothing to these addresses any more, whoever has or gets them.

    A complaint is the last word. The caller holds the profiles that have them, so that nobody
    claims a message to one of them meanwhile.
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
