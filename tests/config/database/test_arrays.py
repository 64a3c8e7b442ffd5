"""Lists as single statement parameters, on both engines."""

from collections.abc import Collection, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    MetaData,
    SmallInteger,
    String,
    Table,
    delete,
    event,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from config.database.arrays import InsertRows, any_of, insert_or_update, rows_of
from config.database.engine import Database
from profiles.tables import JSON_COLUMN

_MANY = 100_000
_TABLE = Table(
    "thing",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("name", String),
    Column("small", SmallInteger),
    Column("share", Float),
    Column("on", Boolean),
    Column("about", JSON_COLUMN),
)
_C = _TABLE.c
_QUOTED = """O'Brien "the %s" \\ :x ? {} $1 é \N{PILE OF POO}"""

_BY_ID = select(_C.id).where(any_of(_C.id, "ids")).order_by(_C.id)
_BY_NAME = select(_C.id).where(any_of(_C.name, "names")).order_by(_C.id)
_NOT_BY_NAME = select(_C.id).where(~any_of(_C.name, "names")).order_by(_C.id)
_BY_SMALL = select(_C.id).where(any_of(_C.small, "smalls")).order_by(_C.id)
_PAIRS = rows_of("pairs", _C.id, _C.name)
_BY_PAIR = select(_C.id).where(tuple_(_C.id, _C.name).in_(select(_PAIRS))).order_by(_C.id)
_INSERT = InsertRows(*_C)
_INSERT_NEW = InsertRows(_C.id, _C.name, on_conflict="DO NOTHING")
_UPSERT = insert_or_update(_C.id, _C.name)


def _row(place: int, name: str | None, **more: Any) -> dict[str, Any]:
    return {**dict.fromkeys(_C.keys()), "id": place, "name": name, **more}


@pytest.fixture
def things(db: Database) -> Iterator[Database]:
    """The database with a table of three rows."""
    with db.transaction() as tx:
        _TABLE.create(tx.conn)
        rows = [_row(1, "a", small=7), _row(2, _QUOTED), _row(2**62, None)]
        tx.conn.execute(insert(_TABLE), rows)
    yield db
    with db.transaction() as tx:
        _TABLE.drop(tx.conn)


def _ids(db: Database, statement: Any, **given: Collection[Any]) -> list[Any]:
    with db.transaction(write=False) as tx:
        return list(tx.conn.execute(statement, given).scalars())


def test_integers(things: Database) -> None:
    assert _ids(things, _BY_ID, ids=[2**62, 2, 3, 2]) == [2, 2**62]
    assert _ids(things, _BY_ID, ids={1}) == [1]
    assert _ids(things, _BY_SMALL, smalls=[7, 8]) == [1]


def test_texts(things: Database) -> None:
    assert _ids(things, _BY_NAME, names=["a", "A", "b"]) == [1]
    assert _ids(things, _BY_NAME, names=[_QUOTED]) == [2]
    assert _ids(things, _BY_NAME, names={"1": None}.keys()) == []


def test_pairs_match_as_a_whole(things: Database) -> None:
    assert _ids(things, _BY_PAIR, pairs=[(1, "a"), (2, _QUOTED), (1, "b")]) == [1, 2]
    assert _ids(things, _BY_PAIR, pairs=[(2, "a")]) == []


@pytest.mark.parametrize(
    ("statement", "name"), [(_BY_ID, "ids"), (_BY_NAME, "names"), (_BY_PAIR, "pairs")]
)
def test_an_empty_list_finds_nothing(things: Database, statement: Any, name: str) -> None:
    assert _ids(things, statement, **{name: []}) == []


def test_null_equals_nothing(things: Database) -> None:
    assert _ids(things, _BY_NAME, names=[None, "a"]) == [1]
    assert _ids(things, _BY_ID, ids=[None]) == []
    assert _ids(things, _BY_PAIR, pairs=[(2**62, None), (1, "a")]) == [1]


def test_the_opposite(things: Database) -> None:
    assert _ids(things, _NOT_BY_NAME, names=["a"]) == [2]
    assert _ids(things, _NOT_BY_NAME, names=["a", None]) == []
    assert _ids(things, _NOT_BY_NAME, names=[]) == [1, 2, 2**62]


def test_many_members(things: Database) -> None:
    assert _ids(things, _BY_ID, ids=range(2, _MANY)) == [2]
    assert _ids(things, _BY_NAME, names=[*(f"n{one}" for one in range(_MANY)), "a"]) == [1]
    assert _ids(things, _BY_PAIR, pairs=[(one, "a") for one in range(_MANY)]) == [1]


def test_rows_are_inserted_as_they_are(things: Database) -> None:
    about = {"nested": [1, 2.5, None, {"é": _QUOTED}], "empty": {}}
    rows: list[tuple[Any, ...]] = [
        (10, _QUOTED, -3, 0.1, True, about),
        (11, "", None, None, False, []),
        (12, None, 0, 1e300, None, None),
        (13, "123", 1, 2.0, None, "a text"),
    ]
    with things.transaction() as tx:
        assert _INSERT(tx.conn, rows) == len(rows)
        assert _INSERT(tx.conn, []) == 0
        found = tx.conn.execute(select(_TABLE).where(_C.id.between(10, 13)).order_by(_C.id)).all()
        null = select(_C.id).where(_C.about.is_(None)).order_by(_C.id)
        assert tx.conn.execute(null).scalars().all() == [1, 2, 12, 2**62]
    assert [tuple(row) for row in found] == rows


def test_rows_in_conflict(things: Database) -> None:
    with things.transaction() as tx:
        assert _INSERT_NEW(tx.conn, [(1, "x"), (20, "x"), (20, "y")]) == 1
        assert _UPSERT(tx.conn, [(20, "z"), (21, "z")]) == 2
        names = tx.conn.execute(select(_C.id, _C.name).where(_C.id < 100).order_by(_C.id)).all()
    assert [tuple(row) for row in names] == [(1, "a"), (2, _QUOTED), (20, "z"), (21, "z")]
    with pytest.raises(IntegrityError), things.transaction() as tx:
        _INSERT(tx.conn, [(1, *[None] * 5)])


def test_rows_update_and_delete(things: Database) -> None:
    changing = update(_TABLE).where(_C.id == _PAIRS.c.id).values(name=_PAIRS.c.name)
    deleting = delete(_TABLE).where(tuple_(_C.id, _C.name).in_(select(_PAIRS)))
    with things.transaction() as tx:
        tx.conn.execute(changing, {"pairs": [(1, "new"), (2, None), (3, "nobody")]})
        tx.conn.execute(deleting, {"pairs": [(1, "new"), (2, "another")]})
        found = tx.conn.execute(select(_C.id, _C.name).order_by(_C.id)).all()
    assert [tuple(row) for row in found] == [(2, None), (2**62, None)]


def test_rows_come_in_their_order(things: Database) -> None:
    pairs = [(number * 7919 % 1000, "") for number in range(1000)]
    assert _ids(things, select(_PAIRS.c.id), pairs=pairs) == [number for number, _ in pairs]


def test_rows_join(things: Database) -> None:
    joined = select(_PAIRS.c.name).join(_TABLE, _C.id == _PAIRS.c.id).order_by(_C.id)
    assert _ids(things, joined, pairs=[(2, "x"), (5, "y"), (1, "z")]) == ["z", "x"]


def test_the_types_of_the_columns_are_part_of_the_statement(things: Database) -> None:
    """Tables of the same shape with other types are not taken from each other's cache."""
    assert _ids(things, select(rows_of("r", _C.id).c.id), r=[(1,)]) == [1]
    assert _ids(things, select(rows_of("r", _C.name.label("id")).c.id), r=[("a",)]) == ["a"]


def test_a_statement_is_the_same_for_any_number(things: Database) -> None:
    seen = set()

    def note(_conn: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        seen.add(statement)

    with things.transaction(write=False) as tx:
        event.listen(things.engine, "before_cursor_execute", note)
        for number in (0, 1, 1000):
            tx.conn.execute(_BY_ID, {"ids": range(number)})
            tx.conn.execute(_BY_PAIR, {"pairs": [(one, "") for one in range(number)]})
        event.remove(things.engine, "before_cursor_execute", note)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("statement", "given"),
    [(_BY_ID, {"ids": [1, 2]}), (_BY_PAIR, {"pairs": [(1, "a"), (2, "b")]})],
)
def test_the_index_is_used(things: Database, statement: Any, given: dict[str, Any]) -> None:
    explain = "EXPLAIN QUERY PLAN " if things.is_sqlite else "EXPLAIN "

    def explained(_conn: Any, _cursor: Any, sql: str, params: Any, *_more: Any) -> Any:
        return explain + sql, params

    with things.transaction() as tx:
        _INSERT(tx.conn, [(n, *[None] * 5) for n in range(100, _MANY)])
        if not things.is_sqlite:
            tx.conn.exec_driver_sql("ANALYZE thing")
        event.listen(things.engine, "before_cursor_execute", explained, retval=True)
        plan = str(tx.conn.execute(statement, given).fetchall())
        event.remove(things.engine, "before_cursor_execute", explained)
    assert "thing" in plan
    assert "Seq Scan on thing" not in plan
    assert "SCAN thing" not in plan
