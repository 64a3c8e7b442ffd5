"""Sizes of batches, adapted to errors and to durations."""


class Halving:
    """Isolates the member that makes a batch fail: a failed batch is retried in halves.

    size: the size of the next batch; it doubles after each success.
    """

    def __init__(self, most: int) -> None:
        self.size = most
        self._most = most

    def failed(self, number: int) -> bool:
        """Halve the size after a batch of `number` failed. Returns whether it had one member."""
        self.size = max(1, number // 2)
        return number == 1

    def worked(self) -> None:
        """Double the size after a success."""
        self.size = min(2 * self.size, self._most)


class TimedSize:
    """Adapts the size of transactions to their duration, because others wait for their locks.

    Parameters
    ----------
    first, smallest, largest: numbers of rows. aim: the wanted duration in seconds.
    """

    def __init__(self, aim: float, *, first: int, smallest: int, largest: int) -> None:
        self.size = first
        self._aim = aim
        self._smallest = smallest
        self._largest = largest

    def note(self, number: int, took: float) -> None:
        """Adapt the size: a transaction of `number` rows took `took` seconds."""
        # A smaller transaction does not predict a full one, unless it took too long.
        if number >= self.size or (number and took > self._aim):
            fitting = int(number * self._aim / max(took, 0.001))
            # Change by at most a factor of two: a single transaction may have waited for locks.
            fitting = max(self.size // 2, min(fitting, self.size * 2))
            self.size = max(self._smallest, min(fitting, self._largest))
