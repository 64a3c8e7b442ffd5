"""Files to match: the map, the truth and the rows; each mistake has an error that names the fix."""

from pathlib import Path

import pytest

from config.errors import SegueError
from profiles.matching.columns import MatchMap, load_match_map
from profiles.matching.records import Records, Truth, read_file

MAP = '[columns]\nsurname = "Nachname"\nemail = "Mail"\n'


def test_cells_are_cleaned_and_columns_without_values_left_out(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_bytes("Nr ; Nachname ; Mail\n1; Müller ;\n2;Groß;\n".encode("windows-1252"))
    records = Records(["surname", "email"])
    columns = MatchMap(columns={"surname": ["Nachname"], "email": ["Mail"]})
    assert read_file(file, columns, records, truth=Truth(r"Nr:(\d+)")) == ["1", "2"]
    table = records.table()
    assert table.column_names == ["unique_id", "side", "surname"]
    assert table["surname"].to_pylist() == ["muller", "gross"]


def test_several_columns_are_one(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("no,road\n7,Hill Road\n8,Hill Road\n")
    map_file = tmp_path / "map.toml"
    map_file.write_text('[columns]\nstreet = ["no", "road"]\n')
    records = Records(["street"])
    read_file(file, load_match_map(map_file), records)
    assert records.table()["street"].to_pylist() == ["7 hill road", "8 hill road"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[columns", "not valid TOML"),
        ("[columns]\nsurnam = 'x'\n", "columns.surnam is unknown; allowed are given_name, surname"),
        ("[columns]\n", "names no column"),
        ("[column]\nsurname = 'x'\n", "columns: it is needed"),
        ("[columns]\nsurname = ''\n", "columns.surname: give the name of a column"),
        ("[columns]\nsurname = 3\n", "columns.surname: it must be a list"),
        ("encoding = 'x'\n[columns]\nsurname = 'x'\n", "'x' is no encoding"),
        ("country = 'x'\n[columns]\nsurname = 'x'\n", "country is unknown; allowed are columns"),
    ],
)
def test_a_bad_map(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "map.toml"
    file.write_text(text)
    with pytest.raises(SegueError) as error:
        load_match_map(file)
    assert said in str(error.value)


def test_a_map_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SegueError, match="does not exist"):
        load_match_map(tmp_path / "map.toml")


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ("id", "give a column and a pattern"),
        (":x", "give a column and a pattern"),
        ("id:(", "the pattern can't be read"),
        (r"id:\d+", "the pattern has no group"),
    ],
)
def test_a_bad_truth(truth: str, said: str) -> None:
    with pytest.raises(SegueError) as error:
        Truth(truth)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("id,Nachname,Mail\n", "has no rows"),
        ("id,Mail\n1,a\n", "has no column 'Nachname' (the column map); its columns are id, Mail"),
        ("Nachname,Mail\na,b\n", "has no column 'id' (--truth)"),
        ("id,Nachname,Mail\n1,a,b\nx,a,b\n", "line 3: the pattern of --truth does not fit 'x'"),
        ("id,Nachname,Mail\n1,a\n", "line 2: "),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "people.csv"
    file.write_text(text)
    map_file = tmp_path / "map.toml"
    map_file.write_text(MAP)
    with pytest.raises(SegueError) as error:
        read_file(
            file,
            load_match_map(map_file),
            Records(["surname", "email"]),
            truth=Truth(r"id:(\d+)"),
        )
    assert said in str(error.value)


def test_columns_that_tell_nothing() -> None:
    records = Records(["surname"])
    for _ in range(2):
        records.add(["Lee"])
    with pytest.raises(SegueError, match="no column to compare has different values: surname"):
        records.table()
