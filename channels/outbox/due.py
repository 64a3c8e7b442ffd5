"""Due messages: the channels that have some, and those that a process may claim, with locks."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Select,
    bindparam,
    case,
    exists,
    literal,
    not_,
    select,
    union_all,
)

from channels.messages import messages
from channels.outbox.claims import Journeys
from channels.outbox.rows import MESSAGE_COLUMNS, MessageRow
from channels.providers.registry import Route, RouteKey
from config.channels import ChannelName
from config.database.arrays import any_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import lock_rows
from profiles.tables import profiles


def due_channels(tx: Tx, journeys: Journeys, channels: Sequence[ChannelName]) -> list[ChannelName]:
    """The channels with due messages in the transaction's buckets. Takes no locks."""
    query = _due_query(tuple(channels))
    given = {"now": tx.now, "held": journeys.held(tx), "buckets": tx.buckets}
    return [channel for (channel,) in tx.rows(query, given)]


@lru_cache
def _due_query(channels: tuple[ChannelName, ...]) -> CompoundSelect[Any]:
    """Cached: building this statement takes longer than executing it."""
    return union_all(
        *(
            select(literal(channel)).where(
                exists().where(
                    messages.c.channel == channel,
                    messages.c.state == "planned",
                    messages.c.send_at <= bindparam("now"),
                    not_(any_of(messages.c.journey, "held")),
                    in_buckets(messages.c.bucket),
                )
            )
            for channel in channels
        )
    )


_LOCK_DUE = (
    select(*MESSAGE_COLUMNS)
    .where(
        messages.c.state == "planned",
        messages.c.send_at <= bindparam("now"),
        any_of(messages.c.id, "messages"),
        in_buckets(messages.c.bucket),
    )
    .order_by(messages.c.priority.desc(), messages.c.send_at, messages.c.id)
    # Exit rules lock messages in another order; waiting for them could deadlock.
    .with_for_update(skip_locked=True)
)


def lock_due(
    tx: Tx,
    journeys: Journeys,
    *,
    routes: Mapping[ChannelName, Route],
    limits: Mapping[str, int],
    journey: str | None = None,
    only: Sequence[int] | None = None,
) -> tuple[list[MessageRow], bool]:
    """Lock due messages of the transaction's buckets, and their profiles, the earliest first.

    The parameters are those of channels/outbox/claim.py `claim`. Returns the messages by priority,
    and whether more may be due.
    """
    mine: list[int] = []
    more = False
    given = {
        "now": tx.now,
        "held": journeys.held(tx),
        "of_journey": journey,
        "only": only,
    }
    for channel, route in routes.items():
        for name in route.providers:
            if limit := limits.get(name):
                candidates = _candidates(
                    channel,
                    None if route.providers == [name] else name,
                    route.key,
                    of_journey=journey is not None,
                    only=only is not None,
                )
                found = [
                    row.id
                    for row in lock_rows(
                        tx, candidates.lock, given, most=limit, find=candidates.buckets
                    )
                ]
                more |= len(found) == limit
                mine += found
    locked = lock_rows(tx, _LOCK_DUE, {"messages": mine, "now": tx.now})
    return [MessageRow._make(row) for row in locked], more


class _Candidates(NamedTuple):
    """Statements for due messages: their ids, with locks of their profiles, and their buckets."""

    lock: Select[tuple[int]]
    buckets: Select[tuple[int]]


@lru_cache(maxsize=64)
def _candidates(
    channel: ChannelName,
    provider: str | None,
    route: RouteKey,
    *,
    of_journey: bool,
    only: bool,
) -> _Candidates:
    """Due messages of a channel that a provider sends; None: the channel's only provider."""
    c = messages.c
    asked = [
        c.channel == channel,
        c.state == "planned",
        c.send_at <= bindparam("now"),
        not_(any_of(c.journey, "held")),
        in_buckets(c.bucket),
        in_buckets(profiles.c.bucket),
    ]
    if of_journey:
        # The concatenation keeps SQLite from using the index on journeys, with which it would read
        # all planned messages of the journey for each batch.
        asked.append(c.journey.concat("") == bindparam("of_journey"))
    if only:
        asked.append(any_of(c.id, "only"))
    if provider is not None:
        default, by_kind, by_topic = route
        name: ColumnElement[Any] = literal(default)
        if by_kind:
            name = case(dict(by_kind), value=c.kind, else_=name)
        if by_topic:
            name = case(dict(by_topic), value=c.topic, else_=name)
        asked.append(name == provider)
    # Locked profiles are skipped, so a process that hangs does not block the others. Skipping never
    # waits, so the order of the locks does not matter.
    due = (
        select(c.id)
        .join(profiles, (profiles.c.id == c.profile_id) & (profiles.c.bucket == c.bucket))
        .where(*asked)
        .order_by(c.send_at)
        .limit(bindparam("most", type_=BigInteger))
    )
    return _Candidates(
        due.with_for_update(of=profiles, key_share=True, skip_locked=True),
        select(due.with_only_columns(c.bucket).subquery().c.bucket).distinct(),
    )
