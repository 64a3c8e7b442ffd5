"""Classify database errors, and describe errors in logs without personal data.

If the database fails, a whole batch waits. If the statement or its values are wrong, one row is the
cause and the others continue.
"""

import traceback

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    TimeoutError,
)

from config.errors import DatabaseUnusable

# Errors of a statement or its values, while the database works.
_OURS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
# PostgreSQL's class 54, program_limit_exceeded: for example a value too large for an index. psycopg
# maps it to OperationalError.
_TOO_LARGE = "54"
_FRAMES = 4


def of_the_database(error: BaseException) -> bool:
    """Whether the database fails (lost, locked, disk full, deadlock), not the statement."""
    if isinstance(error, DBAPIError):
        ours = isinstance(error, _OURS) or _sqlstate(error).startswith(_TOO_LARGE)
        return error.connection_invalidated or not ours
    return isinstance(error, DatabaseUnusable | TimeoutError)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def reason_of(error: BaseException) -> str:
    """An error as text for the log: its type and the place where it was raised.

    The error's message is left out, because it may contain customer data, unless it is the
    database's about itself.
    """
    kind = type(error).__name__
    if isinstance(error, DBAPIError) and error.orig is not None:
        if of_the_database(error):
            return f"{type(error.orig).__name__}: {first_line(error.orig)}"
        kind += f" ({type(error.orig).__name__})"
    if isinstance(error, DatabaseUnusable):
        return str(error)
    places = [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename  # a place in a library does not help
    ]
    return f"{kind} at {' > '.join(places[-_FRAMES:])}" if places else kind


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
