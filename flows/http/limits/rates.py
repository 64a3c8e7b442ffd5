"""Rates: how many calls a second a process accepts from one sender (token buckets)."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from config.clock.times import Seconds

# A sender that was idle may send this many seconds' worth at once.
BURST: Seconds = 10
# The longest Retry-After that Segment's browser library honours.
_LONGEST: Seconds = 300
# The senders that are remembered; the one that was idle longest is forgotten first.
_REMEMBERED = 10_000


class Rates:
    """A bucket for each sender. It fills with `rate` calls a second, and each call takes one.

    A request may take more calls than there are; the sender then waits until the bucket is
    filled again. So a batch of any size is accepted, and none is refused forever.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # calls, when

    def wait(self, sender: str) -> Seconds:
        """The seconds after which the sender may send; 0: now."""
        left = self._left(sender)
        return 0 if left > 0 else min(_LONGEST, math.floor(-left / self._rate) + 1)

    def take(self, sender: str, calls: int) -> None:
        """Count calls of the sender."""
        self._buckets[sender] = self._left(sender) - calls, self._clock()
        self._buckets.move_to_end(sender)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)

    def _left(self, sender: str) -> float:
        most = self._rate * BURST
        left, at = self._buckets.get(sender, (most, 0.0))
        return min(most, left + (self._clock() - at) * self._rate)
