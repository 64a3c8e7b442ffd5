"""How many of a batch to take together: found from the time it takes, and from what fails."""


class Halving:
    """Isolates the member that makes a batch fail: a batch that fails is tried again in halves.

    `size` is how many to take next. It doubles after each success, so that the others do not
    suffer for long.
    """

    def __init__(self, most: int) -> None:
        self.size = most
        self._most = most

    def failed(self, number: int) -> bool:
        """Take half of the `number` that failed next; says whether the one to blame was alone."""
        self.size = max(1, number // 2)
        return number == 1

    def worked(self) -> None:
        """Take more next."""
        self.size = min(2 * self.size, self._most)


class TimedSize:
    """Sizes transactions by the time that they take; while one lasts, others wait for it.

    Parameters
    ----------
    first, smallest, largest: how many a transaction takes. aim: how long it should take, in
        seconds.
    """

    def __init__(self, aim: float, *, first: int, smallest: int, largest: int) -> None:
        self.size = first
        self._aim = aim
        self._smallest = smallest
        self._largest = largest

    def note(self, number: int, took: float) -> None:
        """A transaction of `number` took so many seconds."""
        # A few say little about many, unless even they took too long.
        if number >= self.size or (number and took > self._aim):
            fitting = int(number * self._aim / max(took, 0.001))
            # At most by a factor of two: a single transaction may have been held up by others.
            fitting = max(self.size // 2, min(fitting, self.size * 2))
            self.size = max(self._smallest, min(fitting, self._largest))
