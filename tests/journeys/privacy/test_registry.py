"""Each table and column says how it is erased and exported."""

from sqlmodel import SQLModel

from journeys.privacy.registry import IMPERSONAL, PERSONAL

HOW = (
    "say in journeys/privacy/registry.py how it is erased and exported, or that it has no personal "
    "data"
)


def test_each_column_says_how_it_is_erased() -> None:
    known = {name: set(one.columns) for name, one in PERSONAL.items()}
    known |= {name: set(columns) for name, columns in IMPERSONAL.items()}
    there = {name: set(table.columns.keys()) for name, table in SQLModel.metadata.tables.items()}
    assert not PERSONAL.keys() & IMPERSONAL.keys()
    assert known == there, HOW


def test_a_table_with_profiles_is_personal() -> None:
    """An impersonal table has no column that leads to a person."""
    leading = {"profile_id", "address", "value", "identifier_value", "token"}
    for name in IMPERSONAL:
        assert not leading & set(SQLModel.metadata.tables[name].columns.keys()), HOW


def test_only_rows_that_stay_keep_columns() -> None:
    for name, one in PERSONAL.items():
        assert set(one.kept) <= set(one.columns), name
        assert bool(one.kept) == (one.erasure in ("nameless", "unlinked")), name
        assert one.exported or one.why, name
