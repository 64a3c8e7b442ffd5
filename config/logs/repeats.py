"""Count repeated warnings and errors instead of writing them, so that they can't fill the disk."""

import logging
from copy import copy
from dataclasses import dataclass
from typing import TextIO

from config.database.failures import reason_of

# For this many seconds after a line, the same line is only counted.
_INTERVAL = 60
# The number of different lines that are remembered.
_REMEMBERED = 1000


@dataclass(slots=True)
class _Line:
    """The last occurrence of a line, when it was written (seconds since 1970), and the number of
    repetitions since then."""

    record: logging.LogRecord
    written: float
    repeated: int = 0


class CountingHandler(logging.StreamHandler[TextIO]):
    """Write the same warning or error at most once a minute.

    Two lines are the same if only their times differ. Repetitions within the minute are written as
    one line, with their number as `repeated`, together with the next line of any kind, or at the
    end of the process.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        # By text, in the order in which they were written.
        self._lines: dict[str, _Line] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it."""
        try:
            self._write_due(record.created)
            if record.levelno < logging.WARNING:
                super().emit(record)
                return
            key = self._timeless(record)
            if key in self._lines:
                line = self._lines[key]
                line.repeated += 1
                line.record.created = record.created
                return
            if len(self._lines) >= _REMEMBERED:
                self._write_repeated(next(iter(self._lines)))
            self._lines[key] = _Line(_without_frames(record), record.created)
            super().emit(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write the counts of repeated lines."""
        self.acquire()
        try:
            for key in list(self._lines):
                self._write_repeated(key)
        finally:
            self.release()
        super().close()

    def _timeless(self, record: logging.LogRecord) -> str:
        timeless = copy(record)
        timeless.created = 0.0
        return self.format(timeless)

    def _write_due(self, now: float) -> None:
        while self._lines:
            key, line = next(iter(self._lines.items()))
            if line.written <= now < line.written + _INTERVAL:  # a clock may be set back
                return
            if self._write_repeated(key):
                self._lines[key] = _Line(line.record, now)

    def _write_repeated(self, key: str) -> bool:
        """Remove a line. If it was repeated, write it with its count and return True."""
        line = self._lines.pop(key)
        if not line.repeated:
            return False
        again = copy(line.record)
        again.repeated = line.repeated
        super().emit(again)
        return True


def _without_frames(record: logging.LogRecord) -> logging.LogRecord:
    """A copy to keep, with the text of its error instead of the error, whose traceback would keep
    the local variables of all its frames alive."""
    kept = copy(record)
    if kept.exc_info and kept.exc_info[1] is not None:
        kept.error = reason_of(kept.exc_info[1])
        kept.exc_info = None
    return kept
