"""Many rows as one value of a row, so that one statement reads a thing and what belongs to it."""

from typing import Any

from sqlalchemy import JSON, ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


def rows_as_json(*columns: ColumnElement[Any]) -> ColumnElement[Any]:
    """The aggregate of these columns: a list with one list of values for each row.

    The rows come in any order. Without rows it is None on PostgreSQL and an empty list on SQLite.
    Booleans are 0 and 1 on SQLite, which has no others.
    """
    return _RowsAsJson(*columns)


class _RowsAsJson(FunctionElement[Any]):
    inherit_cache = True
    type = JSON()


@compiles(_RowsAsJson, "sqlite")
def _on_sqlite(rows: _RowsAsJson, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_group_array(json_array({compiler.process(rows.clauses, **kw)}))"


@compiles(_RowsAsJson, "postgresql")
def _on_postgresql(rows: _RowsAsJson, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_agg(json_build_array({compiler.process(rows.clauses, **kw)}))"
