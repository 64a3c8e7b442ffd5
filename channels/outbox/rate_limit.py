"""How fast messages may go, all processes together: a number a second for each provider. Of a push
each device counts, because FCM accepts one in a request.

Kept in a row of the database and not in Prefect's concurrency limits: messages must go on while
Prefect's server is down, and an acquire there costs as much as a hundred messages here.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from sqlalchemy import BigInteger, case, select, update
from sqlmodel import Field, SQLModel

from config.clock.times import Instant, Seconds
from config.database.engine import Tx, insert_ignoring_conflicts, table_of

# A transaction that began in the second before may come to its locks after one of the next: what
# that used counts. One that is further ahead shows that the clock was set back.
_AHEAD: Seconds = 60


class ChannelPace(SQLModel, table=True):
    """How much all processes together handed over by a provider in its latest second.

    Counted are messages, of a push each device.
    """

    __tablename__: ClassVar[str] = "channel_pace"

    channel: str = Field(primary_key=True, description="the provider's name")
    second: Instant = Field(sa_type=BigInteger)
    used: int = Field(description="more than the rate: it is taken off the seconds that follow")


channel_paces = table_of(ChannelPace)


def allowance(
    tx: Tx, rates: Mapping[str, int], providers: Sequence[str], most: int
) -> dict[str, int]:
    """How many messages may be claimed now for each provider, at most `most`. A provider that has
    used up its rate is left out.

    Locks the rows of the providers that have a rate, in the order of their names.

    Parameters
    ----------
    rates: messages a second; a provider without one has no limit.
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
    """Record what was claimed, in the transaction that asked for the allowance.

    An excess over the rate (one push to many devices) is taken off the seconds that follow.
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
