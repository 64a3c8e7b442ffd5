"""The worker's log: one JSON object in each line, with ids and without personal data.

Our own log calls pass ids as `extra=` and name no customer. Library messages are cut to their first
line, errors to their type and place (config/database/failures.py), and text that looks like an
e-mail address or a phone number is masked (config/logs/masking.py).
"""

import logging
from datetime import UTC, datetime
from typing import Literal, TextIO

import orjson

from config.database.failures import reason_of
from config.logs.masking import mask, plain
from config.logs.repeats import CountingHandler

Level = Literal["debug", "info", "warning", "error"]

OURS = ("channels", "config", "flows", "journeys", "profiles")
_USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formats a record as a line of JSON: time, level, logger, message, ids, error."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line end."""
        ours = record.name.partition(".")[0] in OURS
        message = _message(record)
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask(message if ours else (message.strip().splitlines() or [""])[0]),
        }
        if (repeated := getattr(record, "repeated", None)) is not None:
            line["repeated"] = repeated
        if ours:
            line |= plain(
                {name: value for name, value in record.__dict__.items() if name not in _USUAL}
            )
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = mask(reason_of(record.exc_info[1]))
        return orjson.dumps(line).decode()


def _message(record: logging.LogRecord) -> str:
    """The message of a record, also if its arguments do not match its format."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg!r:.200} with arguments that do not match"


def log_to(stream: TextIO, level: Level) -> None:
    """Log to a stream: our own lines from this level on, lines of libraries from WARNING on.

    Below WARNING, libraries log requests with their content.
    """
    handler = CountingHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
