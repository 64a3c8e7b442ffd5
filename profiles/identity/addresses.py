"""The addresses of a profile that are in use. No other module defines this.

Of the e-mail addresses and phone numbers that are not retired, the one seen last is in use. There
is one of each, unless an older release or a merge left several. Every push token that is not
retired is in use. An address in use can be suppressed on a channel; no other address replaces it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
)

from config.channels import ChannelName
from config.clock.times import Instant
from config.database.aggregates import rows_as_json
from config.database.arrays import InsertRows, any_of, one_of, rows_of
from config.database.engine import Tx
from profiles.bucketing import identifier_bucket
from profiles.tables import (
    ADDRESS_KIND,
    ERASED,
    IdentifierKind,
    SuppressionState,
    identifiers,
    profiles,
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
    several = not_(one_of(identifiers.c.kind, ONE_AT_A_TIME))
    return and_(not_(is_retired()), or_(several, _is_newest()))


def _is_newest() -> ColumnElement[bool]:
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
    return ~replaced


def is_retired() -> ColumnElement[bool]:
    """The SQL condition on a row of `identifiers` that it is retired."""
    return _is_retired(identifiers)


def _is_retired(table: FromClause) -> ColumnElement[bool]:
    return table.c.retired_at.is_not(None)


def is_retired_row(row: Mapping[str, Any]) -> bool:
    """`is_retired` of a row of `identifiers` in memory, by column name."""
    return row["retired_at"] is not None


def address_rows() -> dict[Table, ColumnElement[bool]]:
    """The rows that decide which addresses are in use and where they are suppressed, by table."""
    kinds = one_of(identifiers.c.kind, sorted(CHANNELS_TO))
    return {identifiers: and_(kinds, not_(is_retired())), suppressions: true()}


def suppressed_since(tx: Tx, since: Instant) -> dict[tuple[str, str], SuppressionState]:
    """Why providers suppressed addresses from `since` on, by address and channel."""
    found = tx.conn.execute(_SUPPRESSED_SINCE, {"since": since})
    return {(address, channel): state for address, channel, state in found}


def forget_suppressions(tx: Tx, since: Instant) -> None:
    """Remove the suppressions from `since` on, in the copy of a simulation of a past period."""
    tx.conn.execute(_FORGET_SUPPRESSIONS, {"since": since})


_FORGET_SUPPRESSIONS = delete(suppressions).where(suppressions.c.since >= bindparam("since"))
_SUPPRESSED_SINCE = select(
    suppressions.c.address, suppressions.c.channel, suppressions.c.state
).where(suppressions.c.since >= bindparam("since"), suppressions.c.state != ERASED)


# kind, value, country, platform, seen_at, a channel on which it is suppressed
InUse = tuple[IdentifierKind, str, str | None, str | None, Instant, ChannelName | None]


class Address(NamedTuple):
    """An address that messages to a profile on a channel go to. suppressed: nothing is sent to
    it."""

    profile_id: int
    channel: ChannelName
    value: str
    suppressed: bool
    country: str | None  # of a phone number; ISO alpha-2
    platform: str | None  # of a push token


def channel_addresses(tx: Tx, profile_ids: Collection[int]) -> list[Address]:
    """The addresses in use of these profiles on each channel, those of one profile together and
    the one seen last first. One statement.
    """
    found: Iterable[tuple[int, Sequence[InUse] | None]]
    if tx.distributed:
        found = addresses_in_use(tx, profile_ids).items()
    else:
        found = tx.conn.execute(_CHANNEL_ADDRESSES, {"profile_ids": profile_ids}).tuples()
    return [
        address for profile_id, in_use in found for address in addresses_from(profile_id, in_use)
    ]


def addresses_in_use(tx: Tx, profile_ids: Collection[int]) -> dict[int, list[InUse]]:
    """The value of ADDRESSES_IN_USE of each profile that has addresses, for distributed tables.

    One statement, which joins no tables in different buckets.
    """
    rows = [
        (profile_id, (kind, value, country, platform, seen_at, suppressed_on))
        for profile_id, kind, value, country, platform, seen_at, suppressed_on in tx.conn.execute(
            _ADDRESSES_APART, {"profile_ids": profile_ids}
        ).tuples()
    ]
    latest: dict[tuple[int, IdentifierKind], tuple[Instant, str]] = {}
    for profile_id, (kind, value, _, _, seen_at, _) in rows:
        latest[profile_id, kind] = max((seen_at, value), latest.get((profile_id, kind), (0, "")))
    found: dict[int, list[InUse]] = defaultdict(list)
    for profile_id, one in rows:
        kind, value, _, _, seen_at, _ = one
        if kind not in ONE_AT_A_TIME or latest[profile_id, kind] == (seen_at, value):
            found[profile_id].append(one)
    return found


def addresses_from(profile_id: int, in_use: Sequence[InUse] | None) -> list[Address]:
    """The addresses in a value of ADDRESSES_IN_USE on each channel, the one seen last first."""
    return [
        Address(
            profile_id=profile_id,
            channel=name,
            value=one.value,
            suppressed=name in one.suppressed_on,
            country=one.country,
            platform=one.platform,
        )
        for one in identifiers_from(in_use)
        for name in CHANNELS_TO[one.kind]
    ]


class IdentifierInUse(NamedTuple):
    """An address in use, once for all the channels that send to it."""

    kind: IdentifierKind
    value: str
    country: str | None
    platform: str | None
    suppressed_on: list[ChannelName]


def identifiers_from(in_use: Sequence[InUse] | None) -> list[IdentifierInUse]:
    """The addresses in a value of ADDRESSES_IN_USE, the one seen last first."""
    found: dict[tuple[Instant, str, IdentifierKind], IdentifierInUse] = {}
    for kind, value, country, platform, seen_at, suppressed_on in in_use or ():
        # An address has one row for each channel on which it is suppressed, or else one row.
        key = (-seen_at, value, kind)
        if key not in found:
            found[key] = IdentifierInUse(
                kind=kind, value=value, country=country, platform=platform, suppressed_on=[]
            )
        if suppressed_on is not None:
            found[key].suppressed_on.append(suppressed_on)
    return [found[key] for key in sorted(found)] if len(found) > 1 else list(found.values())


def is_usable(channel: ChannelName) -> ColumnElement[bool]:
    """The SQL condition on a row of `identifiers` that the channel can send to it."""
    kind = ADDRESS_KIND[channel]
    # Without the OR of `is_in_use`, which PostgreSQL would test for each row by itself.
    newest = [_is_newest()] if kind in ONE_AT_A_TIME else []
    return and_(
        identifiers.c.kind == kind, not_(is_suppressed(channel)), not_(is_retired()), *newest
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
# The addresses in use of a profile, for a statement on `profiles`: one column with an `InUse` for
# each row, which `addresses_from` reads.
ADDRESSES_IN_USE = (
    select(
        rows_as_json(
            *(identifiers.c[name] for name in ("kind", "value", "country", "platform", "seen_at")),
            suppressions.c.channel,
        )
    )
    .join_from(identifiers, suppressions, _of_address, isouter=True)
    .where(
        identifiers.c.profile_id == profiles.c.id,
        one_of(identifiers.c.kind, CHANNELS_TO),
        is_in_use(),
    )
    .correlate(profiles)
    .scalar_subquery()
)
_ADDRESSES_APART = (
    select(
        identifiers.c.profile_id,
        *(identifiers.c[name] for name in ("kind", "value", "country", "platform", "seen_at")),
        suppressions.c.channel,
    )
    .join_from(identifiers, suppressions, _of_address, isouter=True)
    .where(
        any_of(identifiers.c.profile_id, "profile_ids"),
        one_of(identifiers.c.kind, CHANNELS_TO),
        not_(is_retired()),
    )
)
_CHANNEL_ADDRESSES = select(profiles.c.id, ADDRESSES_IN_USE).where(
    any_of(profiles.c.id, "profile_ids")
)

_s = suppressions.c
# The profile and the time of each device that the provider does not know any more.
UNINSTALLED = (
    select(identifiers.c.profile_id, suppressions.c.since)
    .join_from(identifiers, suppressions, _of_address)
    .where(
        suppressions.c.state == "unregistered",
        identifiers.c.kind == "push_token",
        suppressions.c.since.is_not(None),
    )
)
_SUPPRESS = InsertRows(
    *(_s.address, _s.channel, _s.bucket, _s.state, _s.since),
    on_conflict=f"({', '.join(column.name for column in suppressions.primary_key)}) DO UPDATE "
    "SET state = excluded.state WHERE suppression.state <> 'complained'",
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
    _SUPPRESS(
        tx.conn,
        [
            (
                *(one.address, one.channel),
                identifier_bucket(ADDRESS_KIND[one.channel], one.address),
                *(one.state, tx.now),
            )
            for one in sorted(found)
        ],
    )


class ErasedOwner(NamedTuple):
    """An address on a channel whose owner was erased at `since`."""

    channel: ChannelName
    kind: IdentifierKind
    address: str
    since: Instant


class OptIn(NamedTuple):
    """A yes of a profile to a channel or a topic on it. at: its time."""

    profile_id: int
    channel: ChannelName
    at: Instant


_SUPPRESS_ERASED = InsertRows(
    *(_s.address, _s.channel, _s.bucket, _s.state, _s.since), on_conflict="DO NOTHING"
)
_OPT_INS = rows_of("opt_ins", identifiers.c.profile_id, identifiers.c.kind, _s.channel, _s.since)
_blocked = suppressions.alias("blocked")
_LIFT = delete(suppressions).where(
    tuple_(_s.address, _s.channel).in_(
        select(_blocked.c.address, _blocked.c.channel)
        .join(identifiers, identifiers.c.value == _blocked.c.address)
        .join(
            _OPT_INS,
            (_OPT_INS.c.profile_id == identifiers.c.profile_id)
            & (_OPT_INS.c.kind == identifiers.c.kind)
            & (_OPT_INS.c.channel == _blocked.c.channel),
        )
        .where(_blocked.c.state == ERASED, _blocked.c.since < _OPT_INS.c.since)
    )
)


def suppress_owners_erased(tx: Tx, found: Collection[ErasedOwner]) -> None:
    """Suppress addresses of erased people. A suppression for another reason stays."""
    _SUPPRESS_ERASED(
        tx.conn,
        [
            (
                *(one.address, one.channel, identifier_bucket(one.kind, one.address)),
                *(ERASED, one.since),
            )
            for one in sorted(found)
        ],
    )


def lift_erased(tx: Tx, opt_ins: Collection[OptIn]) -> None:
    """Send to addresses of erased people again whose owners have opted in since."""
    if opt_ins:
        rows = [
            (one.profile_id, ADDRESS_KIND[one.channel], one.channel, one.at)
            for one in sorted(opt_ins)
        ]
        tx.conn.execute(_LIFT, {"opt_ins": rows})
