"""Many rows as one value of a row, so that one statement reads a thing and what belongs to it."""

from collections.abc import Callable
from typing import Any

import orjson
from sqlalchemy import JSON, ColumnElement, Dialect, TypeDecorator
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from typing_extensions import override


def rows_as_json(*columns: ColumnElement[Any]) -> ColumnElement[Any]:
    """The aggregate of these columns: a list with one list of values for each row.

    The rows come in any order. Without rows it is None on PostgreSQL and an empty list on SQLite.
    Booleans are 0 and 1 on SQLite, which has no others.
    """
    return _RowsAsJson(*columns)


class _Decoded(TypeDecorator[Any]):
    """JSON as the driver or orjson decodes it, without the layers of SQLAlchemy's type."""

    impl = JSON
    cache_ok = True

    @override
    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], Any] | None:
        if dialect.name == "sqlite":
            return orjson.loads
        return super().result_processor(dialect, coltype)


class _RowsAsJson(FunctionElement[Any]):
    inherit_cache = True
    type = _Decoded()


@compiles(_RowsAsJson, "sqlite")
def _on_sqlite(rows: _RowsAsJson, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_group_array(json_array({compiler.process(rows.clauses, **kw)}))"


@compiles(_RowsAsJson, "postgresql")
def _on_postgresql(rows: _RowsAsJson, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_agg(json_build_array({compiler.process(rows.clauses, **kw)}))"
