"""Capture what a worker would log."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from config.logs.setup import OURS, Level, log_to


class Log:
    """The captured log."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.text.splitlines()]


@contextmanager
def logging_at(level: Level) -> Iterator[Log]:
    """Log as a worker does, until the block ends."""
    root = logging.getLogger()
    loggers = [logging.getLogger(name) for name in OURS]
    before = root.handlers, root.level, [logger.level for logger in loggers]
    log = Log()
    log_to(log.stream, level)
    try:
        yield log
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])
        for logger, was in zip(loggers, before[2], strict=True):
            logger.setLevel(was)
