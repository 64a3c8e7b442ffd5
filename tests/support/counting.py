"""How many statements something costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from config.database.engine import Database


@contextmanager
def statements(db: Database) -> Iterator[list[str]]:
    """The SQL of every statement that the database executes, in order, from here on.

    BEGIN, COMMIT and ROLLBACK are not among them. A statement that is executed with many rows of
    parameters is one. When the block ends the list stays as it is.
    """
    executed: list[str] = []

    def note(_conn: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if not sql.startswith("BEGIN"):
            executed.append(sql)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
