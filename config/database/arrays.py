"""Lists as single parameters, for statements that are built once at module level.

With a list in one parameter the text of a statement does not depend on the number of values, so
SQLAlchemy compiles it once and PostgreSQL prepares it once:

    _FOUND = select(profiles.c.country).where(any_of(profiles.c.id, "ids"))
    tx.rows(_FOUND, {"ids": [1, 2]})

    _PAIRS = rows_of("pairs", events.c.profile_id, events.c.dedupe_key)
    _KNOWN = select(events.c.id).where(
        tuple_(events.c.profile_id, events.c.dedupe_key).in_(select(_PAIRS))
    )
    tx.rows(_KNOWN, {"pairs": [(1, "a"), (2, "b")]})

Both databases accept empty lists, None as a member (SQL's NULL), and more members than a statement
has parameters. Text must not contain NUL characters, which PostgreSQL refuses.
"""

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Subquery,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    cast,
    func,
    insert,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeEngine, UserDefinedType
from typing_extensions import override

from config.database.execution import run, write

T = TypeVar("T")

# How many statements of one form stay built: one for each version or step of a journey, or segment.
STATEMENTS = 1_000


def any_of(
    column: ColumnElement[T], name: str, default: Collection[T] | None = None
) -> ColumnElement[bool]:
    """The condition `column IN values`; the parameter `name` takes the values, of any collection.

    It is `= ANY(:name)` with an array of the column's type on PostgreSQL, and
    `IN (SELECT value FROM json_each(:name))` on SQLite. As with IN, NULL equals nothing.

    default: the values of an execution without the parameter; None: that is an error.
    """
    return _AnyOf(
        column, bindparam(name, default, type_=_Array(column.type), required=default is None)
    )


def one_of(column: ColumnElement[T], values: Collection[T]) -> ColumnElement[bool]:
    """The condition `column IN values` for values that are part of the statement.

    With `column.in_(values)` SQLAlchemy writes the values into the text at each execution, which
    takes longer than to execute a small statement.
    """
    return column.in_([literal(value, column.type) for value in values])


def rows_of(name: str, *columns: ColumnElement[Any]) -> Subquery:
    """A table of the rows in the parameter `name`, which takes a sequence of tuples.

    It is for joins, for `IN (SELECT ...)` and for `INSERT ... SELECT`. Its rows come in the order
    of the parameter, as long as the statement does not sort or join them.

    Parameters
    ----------
    columns: columns whose names and types the table gets, one for each member of the tuples. A JSON
        column takes any JSON value; the others take numbers, texts and booleans.
    """
    array = _Elements(bindparam(name, type_=_Json())).table_valued("value", name=f"{name}_array")
    members = [
        _Member(array.c.value, place, column.type).label(str(column.key))
        for place, column in enumerate(columns)
    ]
    return select(*members).select_from(array).subquery(name)


class InsertRows:
    """INSERT of any number of rows by one statement, built once.

    SQLAlchemy compiles a dialect's own INSERT with ON CONFLICT at each execution (2.0.58:
    `inherit_cache = False`), and executes one statement a row on PostgreSQL.

    Parameters
    ----------
    columns: the columns of a table that get values; no default of a column applies.
    on_conflict: what follows ON CONFLICT, such as `DO NOTHING`; empty: a conflict is an error.
    """

    def __init__(self, *columns: Column[Any], on_conflict: str = "") -> None:
        names = [column.name for column in columns]
        ending = f"ON CONFLICT {on_conflict}" if on_conflict else ""
        # Without WHERE, SQLite would read ON CONFLICT as the condition of a join.
        rows = select(rows_of("rows", *columns)).where(true())
        self._insert = insert(columns[0].table).from_select(
            names, rows.suffix_with(ending) if ending else rows, include_defaults=False
        )
        self._on_sqlite = (
            f"INSERT INTO {columns[0].table.name} ({', '.join(map(_quoted, names))}) "  # noqa: S608  our own names
            f"VALUES ({', '.join('?' * len(columns))}) {ending}"
        )
        self._json = [place for place, one in enumerate(columns) if isinstance(one.type, JSON)]

    def __call__(
        self, conn: Connection, rows: Sequence[tuple[Any, ...]], *, encoded: bool = False
    ) -> int:
        """Insert the rows, tuples in the order of the columns. Returns how many were written.

        encoded: the JSON values come from `encode_json`, which saves work where rows share them.
        """
        if not rows:
            return 0
        if conn.dialect.name == "sqlite":
            if self._json and not encoded:
                rows = [self._packed(row) for row in rows]
            # The driver's loop over rows costs half of what SQLite's JSON functions do.
            return run(conn, self._on_sqlite, *rows)
        return write(conn, self._insert, {"rows": rows})

    def _packed(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row with JSON as text."""
        values = list(row)
        for place in self._json:
            if values[place] is not None:
                values[place] = orjson.dumps(values[place]).decode()
        return tuple(values)


def encode_json(conn: Connection, value: Any) -> str | orjson.Fragment:
    """A JSON value for rows of `InsertRows`, in the form that the database's driver takes."""
    encoded = orjson.dumps(value)
    return encoded.decode() if conn.dialect.name == "sqlite" else orjson.Fragment(encoded)


def insert_or_update(*columns: Column[Any]) -> InsertRows:
    """`InsertRows` that updates a row with the same primary key, which is among the columns."""
    key = [_quoted(column.name) for column in columns[0].table.primary_key]
    names = [_quoted(column.name) for column in columns]
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
    return InsertRows(*columns, on_conflict=f"({', '.join(key)}) DO UPDATE SET {updates}")


def _quoted(name: str) -> str:
    return f'"{name}"'


class _ArrayText(UserDefinedType[str]):
    """A PostgreSQL array as text, `{1,2}`: psycopg needs far longer to write one of a list.

    sql: the name of the type, such as `BIGINT[]`, which PostgreSQL reads the text as.
    """

    render_bind_cast = True
    cache_ok = True

    def __init__(self, sql: str) -> None:
        self.sql = sql

    def get_col_spec(self, **_kw: Any) -> str:
        return self.sql


class _Array(TypeDecorator[Collection[Any]]):
    """A collection of values: an array on PostgreSQL, a JSON text on SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, member: TypeEngine[Any]) -> None:
        super().__init__()
        self.member = member

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return Text()
        return _ArrayText(dialect.type_compiler_instance.process(ARRAY(self.member)))

    def process_bind_param(self, value: Collection[Any] | None, dialect: Dialect) -> str:
        if dialect.name == "sqlite":
            return orjson.dumps(list(value or ())).decode()
        return f"{{{','.join(map(_element, value or ()))}}}"


def _element(value: float | str | None) -> str:
    """The text of a member of a PostgreSQL array."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return "NULL" if value is None else str(value)


class _AnyOf(FunctionElement[bool]):
    # It has no Boolean type: SQLAlchemy would write `= 1` behind it, and SQLite use no index.
    inherit_cache = True


@compiles(_AnyOf, "sqlite")
def _any_on_sqlite(any_of: _AnyOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = any_of.clauses
    each = func.json_each(values).table_valued("value")
    return compiler.process(column.in_(select(each.c.value)), **kw)


@compiles(_AnyOf, "postgresql")
def _any_on_postgresql(any_of: _AnyOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = any_of.clauses
    return compiler.process(column == any_(values), **kw)


class _Json(TypeDecorator[Sequence[Sequence[Any]]]):
    """Rows as a JSON text."""

    impl = Text
    cache_ok = True

    @override
    def process_bind_param(self, value: Sequence[Sequence[Any]] | None, dialect: Dialect) -> str:
        return orjson.dumps(value or ()).decode()


class _Elements(FunctionElement[Any]):
    """The members of a JSON array, in the column `value`."""

    inherit_cache = True


@compiles(_Elements, "sqlite")
def _elements_on_sqlite(elements: _Elements, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(func.json_each(*elements.clauses), **kw)


@compiles(_Elements, "postgresql")
def _elements_on_postgresql(elements: _Elements, compiler: SQLCompiler, **kw: Any) -> str:
    [rows] = elements.clauses
    return compiler.process(func.jsonb_array_elements(cast(rows, JSONB)), **kw)


class _Member(ColumnElement[Any]):
    """The member at `place` of a JSON array, as a value of `type`."""

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012  the base class declares no ClassVar
        ("array", InternalTraversal.dp_clauseelement),
        ("place", InternalTraversal.dp_plain_obj),
        ("type", InternalTraversal.dp_type),
    ]

    def __init__(self, array: ColumnElement[Any], place: int, type_: TypeEngine[Any]) -> None:
        self.array = array
        self.place = place
        self.type = type_


@compiles(_Member, "sqlite")
def _member_on_sqlite(member: _Member, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(member.array, **kw)
    if isinstance(member.type, JSON):
        # JSON's null is a value of its own; the columns have SQL's NULL instead
        return f"NULLIF({array} -> '$[{member.place}]', 'null')"
    return f"json_extract({array}, '$[{member.place}]')"


@compiles(_Member, "postgresql")
def _member_on_postgresql(member: _Member, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(member.array, **kw)
    if isinstance(member.type, JSON):
        return f"NULLIF({array} -> {member.place}, 'null')"
    name = compiler.dialect.type_compiler_instance.process(member.type)
    return f"CAST({array} ->> {member.place} AS {name})"
