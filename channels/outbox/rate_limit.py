"""How fast messages may go, all processes together: so many a second on each channel. Of a push
each device counts, for FCM takes one in a request.

Kept in a row of the database and not in Prefect's concurrency limits: messages must go on while
Prefect's server is down, and an acquire there costs as much as a hundred messages here.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from sqlalchemy import BigInteger, case, select, update
from sqlmodel import Field, SQLModel

from config.database import Tx, insert_ignoring_conflicts, table_of
from config.policy import Channel
from config.times import Instant, Seconds

# A transaction that began in the second before may come to its locks after one of the next: what
# that used counts. One that is further ahead shows that the clock was set back.
_AHEAD: Seconds = 60


class ChannelPace(SQLModel, table=True):
    """How much all processes together handed over on a channel in its latest second.

    Counted are messages, of a push each device.
    """

    __tablename__: ClassVar[str] = "channel_pace"

    channel: str = Field(primary_key=True)
    second: Instant = Field(sa_type=BigInteger)
    used: int = Field(description="more than the rate: it is taken off the seconds that follow")


channel_paces = table_of(ChannelPace)


def allowance(
    tx: Tx, rates: Mapping[Channel, int], channels: Sequence[Channel], most: int
) -> dict[Channel, int]:
    """How many messages may be claimed now on each channel, at most `most`; none is left out.

    Locks the rows of the channels that have a rate, in the order of their names.

    Parameters
    ----------
    rates: messages a second; a channel without one may go as fast as it can.
    """
    limits = dict.fromkeys(channels, most)
    paced = sorted(channel for channel in channels if channel in rates)
    if not paced:
        return limits
    rows = [{"channel": channel, "second": 0, "used": 0} for channel in paced]
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
    return {channel: limit for channel, limit in limits.items() if limit > 0}


def spend(tx: Tx, rates: Mapping[Channel, int], claimed: Mapping[Channel, int]) -> None:
    """Write down what was claimed, in the transaction that asked for the allowance.

    What is more than the rate (one push to many devices) is taken off the seconds that follow.
    """
    for channel, number in claimed.items():
        if channel in rates:
            second, used = channel_paces.c.second, channel_paces.c.used
            this_second = second.between(tx.now, tx.now + _AHEAD)
            left_over = used - rates[channel] * (tx.now - second)
            tx.conn.execute(
                update(channel_paces)
                .where(channel_paces.c.channel == channel)
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
