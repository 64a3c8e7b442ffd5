"""Records of one person are found, whatever columns there are."""

import pytest

from benchmarks.support.duplicates import COLUMNS, people
from profiles.matching.clusters import clusters
from profiles.matching.matching import match
from profiles.matching.records import Records
from profiles.matching.score import Score, score

# At least: measured, less a margin for other versions of Splink and DuckDB.
_LEAST = {
    COLUMNS: 0.995,
    ("given_name", "surname", "street", "postcode", "city"): 0.98,
    ("given_name", "birth_date", "street", "postcode"): 0.98,
    ("email", "phone"): 0.90,
}


def scored(columns: tuple[str, ...], *, across: bool = False, number: int = 800) -> Score:
    records, who, sides = Records(columns), [], []
    rows = list(people(number))
    ordered = sorted(enumerate(rows), key=lambda row: _is_second(rows, row[0])) if across else None
    for at, (person, cells) in ordered or enumerate(rows):
        side = int(across and _is_second(rows, at))
        records.add([cells[COLUMNS.index(column)] for column in columns], side)
        who.append(person)
        sides.append(side)
    with match(records.table(), across=across) as found:
        return score(clusters(found.pairs, sides, across=across), who, sides, across=across)


def _is_second(rows: list[tuple[str, list[str]]], at: int) -> bool:
    return at > 0 and rows[at][0] == rows[at - 1][0]


@pytest.mark.parametrize("columns", list(_LEAST), ids="+".join)
def test_duplicates_are_found_by_the_columns_that_there_are(columns: tuple[str, ...]) -> None:
    assert scored(columns).f1 >= _LEAST[columns]


def test_two_files_are_matched() -> None:
    assert scored(COLUMNS, across=True).f1 >= 0.995


@pytest.mark.parametrize("column", ["email", "national_id"])
def test_one_column_is_enough_for_equal_values(column: str) -> None:
    records = Records([column])
    for value in ("ann7654", "bob1234", "ann7654", "cleo0099", "dan5567"):
        records.add([value])
    with match(records.table(), across=False) as found:
        assert [pair[:2] for pair in found.pairs] == [(0, 2)]


def test_records_without_anything_in_common_do_not_match() -> None:
    records = Records(["surname", "city"])
    for cells in (["miller", "york"], ["brown", "leeds"]):
        records.add(cells)
    with match(records.table(), across=False) as found:
        assert found.pairs == []
        assert list(found.explain(found.pairs)) == []


def test_a_pair_is_explained_by_its_columns() -> None:
    records = Records(COLUMNS)
    for _, cells in people(300):
        records.add(cells)
    with match(records.table(), across=False) as found:
        pairs = found.pairs[:3]
        explained = list(found.explain(pairs))
        prior = found.prior
    assert sorted(pair[:2] for pair, _ in explained) == sorted(pair[:2] for pair in pairs)
    for (_, _, weight), bars in explained:
        assert [bar.column for bar in bars] == list(COLUMNS)
        assert prior + sum(bar.weight for bar in bars) == pytest.approx(weight)


def test_a_value_that_everybody_has_makes_no_pairs() -> None:
    records = Records(["surname", "phone"])
    for at in range(5_000):
        records.add([f"name{at // 2}", "07700900123"])
    records.add(["other", "07700900124"])
    with match(records.table(), across=False) as found:
        assert {(left // 2, right // 2) for left, right, _ in found.pairs} <= {
            (at, at) for at in range(2_500)
        }
