"""Errors looked at from afar: is it the database that is in trouble, and what may a log say of it.

Who works a batch of rows has to know: when the database is in trouble all wait; when the error
lies in what was asked, one row of the batch is to blame and the others go on.
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

# What a database says of a statement or its values, in good health.
_OURS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
# PostgreSQL's class for what is larger than it can take, a value in an index say; the driver files
# it under trouble.
_TOO_LARGE = "54"
_FRAMES = 4


def of_the_database(error: BaseException) -> bool:
    """Whether it is over when the database is well again: lost, locked, full, a deadlock."""
    if isinstance(error, DBAPIError):
        ours = isinstance(error, _OURS) or _sqlstate(error).startswith(_TOO_LARGE)
        return error.connection_invalidated or not ours
    return isinstance(error, DatabaseUnusable | TimeoutError)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def told(error: BaseException) -> str:
    """An error for the log: what kind it is and where it came up.

    Not its own words, for they may hold a customer's data, unless they are the database's about
    itself.
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
        if "site-packages" not in frame.filename  # whose place tells nothing
    ]
    return f"{kind} at {' > '.join(places[-_FRAMES:])}" if places else kind


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
