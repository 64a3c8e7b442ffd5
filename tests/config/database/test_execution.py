"""Statements that go to the driver directly give what SQLAlchemy gives, on both engines."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from config.database.arrays import any_of
from config.database.engine import Database
from config.database.failures import of_the_database
from profiles.tables import JSON_COLUMN
from tests.support.counting import statements

_TABLE = Table(
    "thing",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("name", String),
    Column("on", Boolean),
    Column("about", JSON_COLUMN),
)
_C = _TABLE.c
_ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": "100 % é", "on": True, "about": {"a": [1, None, "é"]}},
    {"id": 2, "name": None, "on": False, "about": None},
    {"id": 3, "name": ":x %s ?", "on": None, "about": ["%(name)s"]},
]
_ALL = select(_TABLE).order_by(_C.id)
_BY_NAME = select(_C.id).where(_C.name == bindparam("named"), _C.name != "100 %")
_SOME = select(_C.id, _C.id, func.coalesce(_C.name, "none")).where(
    any_of(_C.id, "ids", [1, 2]), _C.name.is_not_distinct_from(bindparam("named", None))
)
_RENAME = update(_TABLE).where(_C.id == bindparam("row")).values(name=bindparam("to"))
_ADD = insert(_TABLE).values(
    id=bindparam("row"), name=None, on=True, about=bindparam("told", type_=JSON_COLUMN)
)
_TURN_ON = update(_TABLE).where(_C.id > bindparam("after")).values(on=True).returning(_C.about)
# Longer than what psycopg keeps, in characters and in parameters.
_LONG = select(
    _C.id,
    (_C.id % 2).label("odd"),
    *((_C.name == f"{number} % %% $1 {'x' * 50}").label(f"n{number}") for number in range(60)),
).where(any_of(_C.id, "ids", [1, 2]), _C.name.is_not_distinct_from(bindparam("named", None)))
_RENAME_LONG = (
    update(_TABLE)
    .where(_C.id == bindparam("row"), *(_C.name != f"{number}" for number in range(60)))
    .values(name=bindparam("to"))
)
_ABSOLUTE = select(func.abs(_C.id)).order_by(_C.id.desc())


@pytest.fixture
def things(db: Database) -> Iterator[Database]:
    with db.transaction() as tx:
        _TABLE.create(tx.conn)
        tx.conn.execute(insert(_TABLE), _ROWS)
    yield db
    with db.transaction() as tx:
        _TABLE.drop(tx.conn)


def test_rows_have_the_columns_names_and_types(things: Database) -> None:
    for _ in range(2):  # a statement is compiled at the first time
        with things.transaction(write=False) as tx:
            found = tx.rows(_ALL, {})
            assert [tuple(row) for row in found] == [tuple(row) for row in tx.conn.execute(_ALL)]
            assert [row._asdict() for row in found] == _ROWS


def test_a_long_statement(things: Database) -> None:
    with things.transaction() as tx:
        names = [False] * 60
        assert tx.rows(_LONG, {"named": "100 % é"}) == [(1, 1, *names)]
        given = {"ids": {1, 3}, "named": ":x %s ?"}
        assert tx.rows(_LONG, given) == [(3, 1, *names)]
        assert [tuple(one) for one in tx.conn.execute(_LONG, given)] == [(3, 1, *names)]
        sixtieth = f"59 % %% $1 {'x' * 50}"
        changes = [{"row": 1, "to": sixtieth}, {"row": 3, "to": "%s $1"}]
        assert tx.write(_RENAME_LONG, *changes) == 2
        assert tx.rows(_LONG, {"named": sixtieth}) == [(1, 1, *names[1:], True)]
        assert tx.write(_RENAME_LONG, {"row": 3, "to": None}) == 1
        assert tx.rows(_LONG, {"ids": [3]}) == [(3, 1, *[None] * 60)]
        with pytest.raises(KeyError, match="row"):
            tx.write(_RENAME_LONG, {"to": None})


def test_parameters(things: Database) -> None:
    with things.transaction(write=False) as tx:
        assert tx.rows(_BY_NAME, {"named": ":x %s ?", "another": 1}) == [(3,)]
        assert tx.rows(_SOME, {}) == [(2, 2, "none")]
        assert tx.rows(_SOME, {"ids": {1, 3}, "named": "100 % é"}) == [(1, 1, "100 % é")]
        with pytest.raises(KeyError, match="named"):
            tx.rows(_BY_NAME, {})


def test_writes(things: Database) -> None:
    with things.transaction() as tx:
        assert tx.write(_RENAME) == 0
        assert tx.write(_RENAME, {"row": 1, "to": "one"}) == 1
        assert tx.write(_RENAME, {"row": 2, "to": None}, {"row": 3, "to": "three"}) == 2
        assert tx.write(_RENAME, {"row": 9, "to": "nobody"}) == 0
        assert tx.write(_ADD, {"row": 4, "told": {"b": 1}}) == 1
        assert [about for (about,) in tx.rows(_TURN_ON, {"after": 2})] == [["%(name)s"], {"b": 1}]
        assert [row.name for row in tx.rows(_ALL, {})] == ["one", None, "three", None]


def test_listeners_see_the_statements(things: Database) -> None:
    with statements(things) as seen, things.transaction() as tx:
        tx.rows(_BY_NAME, {"named": "a"})
        tx.write(_RENAME, {"row": 1, "to": "a"}, {"row": 2, "to": "b"})
    assert [sql.split()[0] for sql in seen] == ["SELECT", "UPDATE"]


def test_errors_are_those_of_sqlalchemy(things: Database) -> None:
    with pytest.raises(IntegrityError) as failed, things.transaction() as tx:
        tx.write(_ADD, {"row": 1, "told": {"secret": 1}})
    assert not of_the_database(failed.value)
    assert "secret" not in str(failed.value)
    with things.transaction() as tx:
        tx.write(_ADD, {"row": -(2**63), "told": None})
    with pytest.raises(DBAPIError), things.transaction(write=False) as tx:
        tx.rows(_ABSOLUTE, {})  # SQLite fails while the rows are read


def test_a_restarted_server_fails_one_statement(postgresql_url: str) -> None:
    """The other connections of the pool are replaced before they are used."""
    database = Database(postgresql_url)
    one = select(func.pg_backend_pid())
    with (
        database.transaction(write=False) as first,
        database.transaction(write=False) as second,
        database.transaction(write=False) as third,
    ):
        before = {tx.rows(one, {})[0][0] for tx in (first, second, third)}
    # A server that restarts ends its connections in the same way.
    other = Database(postgresql_url)
    with other.transaction(write=False) as tx:
        for process in before:
            tx.conn.execute(
                text("SELECT pg_terminate_backend(:process, 10000)"), {"process": process}
            )
    other.close()
    with pytest.raises(DBAPIError) as lost, database.transaction(write=False) as tx:
        tx.rows(one, {})
    assert of_the_database(lost.value)
    for _ in range(3):
        with database.transaction(write=False) as tx:
            assert tx.rows(one, {})[0][0] not in before
    database.close()
