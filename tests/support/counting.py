"""Count the statements that something executes."""

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


@contextmanager
def transactions(db: Database) -> Iterator[list[list[str]]]:
    """The statements of every transaction that writes and ends from here on, in order."""
    ended: list[list[str]] = []
    under_way: dict[int, list[str]] = {}

    def note(conn: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if not sql.startswith("BEGIN"):
            under_way.setdefault(id(conn.connection.dbapi_connection), []).append(sql)

    def end(conn: Any) -> None:
        done = under_way.pop(id(conn.connection.dbapi_connection), [])
        if any("INSERT" in sql or "UPDATE " in sql for sql in done):
            ended.append(done)

    event.listen(db.engine, "before_cursor_execute", note)
    event.listen(db.engine, "commit", end)
    event.listen(db.engine, "rollback", end)
    try:
        yield ended
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
        event.remove(db.engine, "commit", end)
        event.remove(db.engine, "rollback", end)
