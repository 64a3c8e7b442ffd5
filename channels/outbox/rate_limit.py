"""Rate limits: how many messages a second may go by a provider, all processes together.

Of a push each device counts, because FCM accepts one in a request. A process leases a number of
messages for the current second, in a transaction of its own that holds no other locks, and claims
at most that many.

The leases are in rows of the database and not in Prefect's concurrency limits: messages must go on
while Prefect's server is down, and an acquire there costs as much as a hundred messages here.
"""

import threading
from collections.abc import Mapping
from typing import ClassVar

from sqlalchemy import BigInteger, bindparam, case, select, update
from sqlmodel import Field, SQLModel

from config.clock.times import Instant, Seconds
from config.database.arrays import InsertRows
from config.database.engine import Database, Tx, table_of

# A transaction may get the lock after one that began a second later; a row at most this far in the
# future counts. A row further ahead means that the clock was set back, and is reset.
_AHEAD: Seconds = 60
# The share of a rate that a process leases for messages that are not planned yet. What it does not
# use is lost to the others for this second.
_LEASED_AHEAD = 0.05


class ChannelPace(SQLModel, table=True):
    """How much all processes together leased of a provider's rate in its latest second.

    Each device of a push counts.
    """

    __tablename__: ClassVar[str] = "channel_pace"

    channel: str = Field(primary_key=True, description="the provider's name")
    second: Instant = Field(sa_type=BigInteger)
    used: int = Field(description="an excess over the rate is subtracted from the next seconds")


channel_paces = table_of(ChannelPace)
_c = channel_paces.c
_INSERT = InsertRows(_c.channel, _c.second, _c.used, on_conflict="DO NOTHING")
_LOCKED = select(channel_paces).where(_c.channel == bindparam("provider")).with_for_update()
_now = bindparam("now", type_=BigInteger)
_this_second = _c.second.between(_now, _now + _AHEAD)
_left_over = _c.used - bindparam("rate", type_=BigInteger) * (_now - _c.second)
_USE = (
    update(channel_paces)
    .where(_c.channel == bindparam("provider"))
    .values(
        used=case(
            (_this_second, _c.used),
            ((_c.second < _now) & (_left_over > 0), _left_over),
            else_=0,
        )
        + bindparam("number", type_=BigInteger),
        second=case((_this_second, _c.second), else_=_now),
    )
)


class RateLimits:
    """The leases of this process. Several threads use it.

    Parameters
    ----------
    rates: messages a second by provider; a provider without one has no limit.
    """

    def __init__(self, db: Database, rates: Mapping[str, int]) -> None:
        self._db = db
        # A simulated clock stands still, and so would a rate.
        self._rates = {} if db.now is not None else dict(rates)
        self._lock = threading.Lock()
        self._leased: dict[str, tuple[Instant, int]] = {}

    @property
    def any(self) -> bool:
        """Whether any provider has a limit."""
        return bool(self._rates)

    def settle(self) -> None:
        """Record what was claimed beyond the leases."""
        with self._lock:
            owing = [provider for provider, (_, left) in self._leased.items() if left < 0]
        self.lease(dict.fromkeys(owing, 0))

    def lease_ahead(self) -> None:
        """Lease a small share of each rate for what the next transaction plans."""
        ahead = {one: int(rate * _LEASED_AHEAD) for one, rate in self._rates.items()}
        if any(ahead.values()):
            self.lease(ahead)

    def lease(self, wanted: Mapping[str, int]) -> None:
        """Lease up to so many messages by provider, less what is left of a lease of this second.

        What was claimed beyond a lease (one push to many devices) is recorded in any case, and
        taken off the seconds that follow.
        """
        for provider in sorted(self._rates.keys() & wanted):
            with self._db.transaction() as tx:
                left = self.left(provider, tx.now) or 0
                owed = max(0, -left)
                number = owed + max(0, wanted[provider] - max(0, left))
                leased = _lease(tx, provider, self._rates[provider], number, owed=owed)
                now = tx.now
            with self._lock:
                self._leased[provider] = now, self._left(provider, now) + leased

    def left(self, provider: str, now: Instant) -> int | None:
        """How many messages may still be claimed in this second; None: there is no limit.

        Negative: so many were claimed beyond the leases.
        """
        if provider not in self._rates:
            return None
        with self._lock:
            return self._left(provider, now)

    def _left(self, provider: str, now: Instant) -> int:
        second, number = self._leased.get(provider, (0, 0))
        return number if second == now else min(number, 0)

    def spend(self, provider: str, number: int, now: Instant) -> None:
        """Take claimed messages off the lease."""
        if provider in self._rates:
            with self._lock:
                self._leased[provider] = now, self._left(provider, now) - number


def _lease(tx: Tx, provider: str, rate: int, wanted: int, *, owed: int) -> int:
    """Lease at most `wanted` messages of this second, and at least `owed`; returns how many."""
    if wanted == 0:
        return 0
    found = tx.rows(_LOCKED, {"provider": provider})
    if not found:
        _INSERT(tx.conn, [(provider, 0, 0)])
        found = tx.rows(_LOCKED, {"provider": provider})
    [row] = found
    left: int = rate - row.used
    if row.second < tx.now:
        left = min(rate, left + rate * (tx.now - row.second))
    elif row.second > tx.now + _AHEAD:
        left = rate
    number = max(owed, min(wanted, left))
    if number > 0:
        given = {"provider": provider, "rate": rate, "number": number, "now": tx.now}
        tx.write(_USE, given)
    return max(number, 0)
