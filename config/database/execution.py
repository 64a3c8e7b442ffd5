"""Execute statements that run for each event or message, at less cost than SQLAlchemy does.

SQLAlchemy builds and compiles them. It would need three times as long as the driver to execute one:
for the key of its cache, an execution context and the metadata of the result.

Use `Tx.rows` and `Tx.write`. They do not apply Python-side defaults of columns, and have no
expanding IN.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Dialect, SelectBase, UpdateBase
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")

# The compiled statements of all databases of a process.
_COMPILED = 4_000
# psycopg keeps how it has read the names in a text of at most so many characters with at most so
# many parameters (3.2, psycopg/_queries.py). To read those of a larger text takes as long as
# PostgreSQL needs to execute it, so it gets PostgreSQL's own numbers in place of names.
_LONGEST_KEPT, _MOST_KEPT = 4096, 50

SqlStatement = SelectBase | UpdateBase
Given = Mapping[str, Any]
# Converts a value for the driver, or from it; None: it stays as it is.
_Convert = Callable[[Any], Any] | None


class CompiledForDriver:
    """A statement for one database: its text, and how its values are converted.

    is_numbered: its parameters are $1, $2 ..., which psycopg's RawCursor takes.
    """

    def __init__(self, statement: SqlStatement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self.is_numbered = dialect.name == "postgresql" and (
            len(str(compiled)) > _LONGEST_KEPT or len(compiled.binds) > _MOST_KEPT
        )
        if self.is_numbered:
            numbering: Dialect = cast(Any, type(dialect))(paramstyle="numeric_dollar")
            compiled = statement.compile(dialect=numbering)
            assert isinstance(compiled, SQLCompiler)
        assert not compiled.post_compile_params | compiled.literal_execute_params
        assert not compiled.escaped_bind_names
        self.sql = str(compiled)
        self._order = compiled.positiontup
        self._fixed: dict[str, Any] = {}
        self._binds: list[tuple[str, bool, _Convert]] = []
        for name, bind in compiled.binds.items():
            convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if not bind.required:
                value = bind.effective_value
                self._fixed[name] = value if convert is None else convert(value)
            if not bind.unique:
                self._binds.append((name, bind.required, convert))
        self._dialect = dialect
        self._types = [column.type for column in statement.exported_columns]
        # Known with the first result: the driver's types of the columns.
        self._row: Callable[[Sequence[Any]], Any] | None = None

    def values(self, given: Given) -> Any:
        """The parameters for the driver. Raises KeyError if one is missing."""
        values = self._fixed.copy()
        for name, required, convert in self._binds:
            if required or name in given:
                value = given[name]
                values[name] = value if convert is None else convert(value)
        return values if self._order is None else [values[name] for name in self._order]

    def rows(self, cursor: DBAPICursor) -> list[Any]:
        """All rows of a result, as named tuples."""
        if self._row is None:
            self._row = self._reader(cursor.description)
        return list(map(self._row, cursor.fetchall()))

    def _reader(self, description: Sequence[Sequence[Any]]) -> Callable[[Sequence[Any]], Any]:
        """Reads one row, as the driver gives it."""
        names = [name for name, *_ in description]
        named = cast(Any, namedtuple)("Row", names, rename=True)
        converts: list[tuple[int, Callable[[Any], Any]]] = []
        for place, (of, (_, code, *_)) in enumerate(zip(self._types, description, strict=True)):
            convert = of.dialect_impl(self._dialect).result_processor(self._dialect, code)
            if convert is not None:
                converts.append((place, convert))

        def read(row: Sequence[Any]) -> Any:
            values = list(row)
            for place, convert in converts:
                values[place] = convert(values[place])
            return named._make(values)

        return read if converts else cast(Callable[[Sequence[Any]], Any], named._make)


# Statements are at module level or cached, so that their identity is a key.
compiled_for = lru_cache(maxsize=_COMPILED)(CompiledForDriver)


def rows(conn: Connection, statement: SqlStatement, given: Given) -> list[Any]:
    """The rows that a statement returns, as named tuples. Other parameters are ignored.

    Raises SQLAlchemy's errors.
    """
    compiled = compiled_for(statement, conn.dialect)
    values, is_numbered = compiled.values(given), compiled.is_numbered
    return _execute(conn, compiled.sql, values, compiled.rows, is_numbered=is_numbered)


def write(conn: Connection, statement: SqlStatement, *given: Given) -> int:
    """Execute a statement once for each set of parameters; returns how many rows it has written."""
    if not given:
        return 0
    compiled = compiled_for(statement, conn.dialect)
    many = len(given) > 1
    values = [compiled.values(one) for one in given] if many else compiled.values(given[0])
    is_numbered = compiled.is_numbered
    return _execute(conn, compiled.sql, values, _number, many=many, is_numbered=is_numbered)


def run(conn: Connection, sql: str, *values: Sequence[Any]) -> int:
    """Execute SQL of the driver, once for each row of values; returns how many rows it wrote."""
    return _execute(conn, sql, values, _number, many=bool(values))


def _number(cursor: DBAPICursor) -> int:
    return cursor.rowcount


def _execute(
    conn: Connection,
    sql: str,
    values: Any,
    read: Callable[[DBAPICursor], T],
    *,
    many: bool = False,
    is_numbered: bool = False,
) -> T:
    """Execute a text, and read its result."""
    cursor = (
        conn.dialect.loaded_dbapi.RawCursor(conn.connection.dbapi_connection)
        if is_numbered
        else conn.connection.cursor()
    )
    for listener in conn.dispatch.before_cursor_execute:
        sql, values = listener(conn, cursor, sql, values, None, many)
    try:
        if many:
            cursor.executemany(sql, values)
        else:
            cursor.execute(sql, values)
        # SQLite computes rows while they are read.
        result = read(cursor)
    except conn.dialect.loaded_dbapi.Error as error:
        # Raises SQLAlchemy's error, and drops the pool's connections if the server was lost.
        conn._handle_dbapi_exception(error, sql, values, cursor, None)
    cursor.close()
    return result
