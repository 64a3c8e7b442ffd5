"""The rate limit of each provider: messages a second over all processes.

Each device of a push counts, because FCM accepts one token in a request. The count is a row of the
database, not a concurrency limit of Prefect: sending must continue while Prefect's server is down,
and acquiring a limit there takes as long as sending a hundred messages.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from sqlalchemy import BigInteger, case, select, update
from sqlmodel import Field, SQLModel

from config.clock.times import Instant, Seconds
from config.database.engine import Tx, insert_ignoring_conflicts, table_of

# A transaction may get the lock after one that began a second later; a row at most this far in the
# future counts. A row further ahead means that the clock was set back, and is reset.
_AHEAD: Seconds = 60


class ChannelPace(SQLModel, table=True):
    """The number of messages that a provider was given in its latest second, by all processes.

    Each device of a push counts.
    """

    __tablename__: ClassVar[str] = "channel_pace"

    channel: str = Field(primary_key=True, description="the provider's name")
    second: Instant = Field(sa_type=BigInteger)
    used: int = Field(description="an excess over the rate is subtracted from the next seconds")


channel_paces = table_of(ChannelPace)


def allowance(
    tx: Tx, rates: Mapping[str, int], providers: Sequence[str], most: int
) -> dict[str, int]:
    """How many messages may be claimed now for each provider, at most `most`.

    Providers that have used up their rate are left out. Locks the rows of the providers that have a
    rate, in the order of their names.

    Parameters
    ----------
    rates: messages a second by provider; a provider without an entry has no limit.
    """
    limits = dict.fromkeys(providers, most)
    paced = sorted(provider for provider in providers if provider in rates)
    if not paced:
        return limits
    rows = [{"channel": provider, "second": 0, "used": 0} for provider in paced]
    insert_ignoring_conflicts(tx.conn, channel_paces, rows)
    found = tx.conn.execute(
        select(channel_paces)
        .where(channel_paces.c.channel.in_(paced))
        .order_by(channel_paces.c.channel)
        .with_for_update()
    )
    for row in found:
        left = rates[row.channel] - row.used
        if row.second < tx.now:
            left = min(rates[row.channel], left + rates[row.channel] * (tx.now - row.second))
        elif row.second > tx.now + _AHEAD:
            left = rates[row.channel]
        limits[row.channel] = min(most, left)
    return {provider: limit for provider, limit in limits.items() if limit > 0}


def spend(tx: Tx, rates: Mapping[str, int], claimed: Mapping[str, int]) -> None:
    """Count claimed messages, in the transaction that called `allowance`.

    An excess over the rate (one push to many devices) is subtracted from the next seconds.
    """
    for provider, number in claimed.items():
        if provider in rates:
            second, used = channel_paces.c.second, channel_paces.c.used
            this_second = second.between(tx.now, tx.now + _AHEAD)
            left_over = used - rates[provider] * (tx.now - second)
            tx.conn.execute(
                update(channel_paces)
                .where(channel_paces.c.channel == provider)
                .values(
                    used=case(
                        (this_second, used),
                        ((second < tx.now) & (left_over > 0), left_over),
                        else_=0,
                    )
                    + number,
                    second=case((this_second, second), else_=tx.now),
                )
            )
