"""A whole column decides how its numbers and dates are written; otherwise the import asks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from config.database.engine import Database
from config.errors import SegueError
from profiles.imports.columns import PeopleMap
from profiles.imports.importer import import_file
from profiles.imports.rows import open_rows
from profiles.imports.styles import find_styles
from profiles.imports.values import Style
from profiles.tables import profiles
from tests.profiles.imports.conftest import Write
from tests.profiles.imports.test_importer import rows_of

Find = Callable[..., tuple[dict[str, Style], dict[str, str]]]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """Find the style of a column `x` of this type with these cells."""

    def find(
        kind: str, cells: Sequence[str], **named: str
    ) -> tuple[dict[str, Style], dict[str, str]]:
        path = tmp_path / "file.csv"
        rows = "".join(f"{n};{cell}\n" for n, cell in enumerate(cells))
        path.write_text(f"id;x\n{rows}", encoding="utf-8")
        mapping = PeopleMap.model_validate(
            {
                "columns": {"user_id": "id"},
                "attributes": {"x": {"column": "x", "type": kind}},
                **named,
            }
        )
        return find_styles(mapping, open_rows(path, ["id", "x"]), path, Path("map.toml"))

    return find


@pytest.mark.parametrize(
    ("kind", "cells", "words"),
    [
        ("number", ["1.234", "5,50"], 'decimal = ","'),
        ("number", ["1,234", "5.50"], 'decimal = "."'),
        ("number", ["1.234", "1.234.567"], 'decimal = ","'),
        ("number", ["0,125"], 'decimal = ","'),
        ("integer", ["1.234", "1.234.567"], 'decimal = ","'),
        ("date", ["03/04/2024", "25/12/2024"], 'date_order = "day-first"'),
        ("date", ["03/04/2024", "12/25/2024"], 'date_order = "month-first"'),
        ("time", ["03/04/2024 10:00Z", "25/12/2024 10:00Z"], 'date_order = "day-first"'),
    ],
)
def test_one_cell_decides_for_the_column(
    find: Find, kind: str, cells: list[str], words: str
) -> None:
    for some in (cells, cells[::-1]):
        assert find(kind, some)[1] == {"x": words}


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("number", ["1", "20", "-3e2", "nonsense", ""]),
        ("integer", ["1", "1 000 000"]),
        ("date", ["2024-04-03", "04/04/2024", "2024/04/03", "nonsense", ""]),
        ("time", ["2024-04-03T10:00:00Z"]),
        ("text", ["1.234", "03/04/2024"]),
        ("boolean", ["1.234"]),
    ],
)
def test_cells_with_one_reading_need_no_decision(find: Find, kind: str, cells: list[str]) -> None:
    assert find(kind, cells)[1] == {}


@pytest.mark.parametrize(
    ("kind", "cells", "question"),
    [
        (
            "date",
            ["04/04/2024", "03/04/2024"],
            r"x: '03/04/2024' \(line 3\) can be 2024-04-03 or 2024-03-04, and no cell of the "
            r'column decides\. Add date_order = "day-first" or date_order = "month-first" at the '
            r"top of the map map\.toml",
        ),
        ("time", ["03/04/2024 10:00Z"], r"'03/04/2024 10:00Z' \(line 2\) can be 2024-04-03 "),
        ("number", ["1", "1,234"], r"'1,234' \(line 3\) can be 1\.234 or|can be 1234\.0 or 1\.234"),
        ("number", ["1.234"], r"can be 1\.234 or 1234\.0, .* decimal = \"\.\" or decimal = \",\""),
        ("integer", ["12.000"], r"can be 12\.0 or 12000\.0"),
        (
            "date",
            ["25/12/2024", "12/25/2024"],
            r"contradict each other: '25/12/2024' \(line 2\) is date_order = \"day-first\", "
            r"'12/25/2024' \(line 3\) is date_order = \"month-first\"\. Add date_order",
        ),
        ("number", ["1.5", "1,5"], r"contradict each other: '1\.5' \(line 2\)"),
    ],
)
def test_what_no_cell_decides_is_asked(
    find: Find, kind: str, cells: list[str], question: str
) -> None:
    with pytest.raises(SegueError, match=question):
        find(kind, cells)


def test_the_map_decides(find: Find) -> None:
    styles, words = find("date", ["03/04/2024"], date_order="month-first")
    assert styles == {"x": Style(date_order="month-first")}
    assert words == {"x": 'date_order = "month-first"'}
    assert find("number", ["1.5", "1,5"], decimal=",")[0] == {"x": Style(decimal=",")}


MAP = """
timezone = "Europe/Berlin"
[columns]
user_id = "Kunde"
country = "Land"
seen_at = "Stand"
[attributes]
spent = { column = "Umsatz", type = "number" }
born = { column = "geboren", type = "date" }
"""
HEADER = "Kunde;Land;Stand;Umsatz;geboren;\n"


def test_a_file_of_a_german_spreadsheet(db: Database, write: Write) -> None:
    text = (
        f"sep=;\n{HEADER}"
        "1;Deutschland;02.03.2026 09:00;1.234,50;03.04.1980;\n"
        "2;Österreich;13.01.2026;1.000;13.04.1980;\n"
        "3;Schweiz;;-7;;"
    )
    path = write(text.encode("windows-1252"))
    report = import_file(db, path, map_file=write(MAP, "map.toml"))
    assert (report.created, report.refused, report.taken_in_part) == (3, 0, 0)
    assert report.styles == {
        "Stand": 'date_order = "day-first"',
        "Umsatz": 'decimal = ","',
        "geboren": 'date_order = "day-first"',
    }
    assert rows_of(db, profiles.c.country, profiles.c.attributes) == [
        ("AT", {"spent": 1000.0, "born": "1980-04-13"}),
        ("CH", {"spent": -7.0}),
        ("DE", {"spent": 1234.5, "born": "1980-04-03"}),
    ]


def test_a_row_that_contradicts_the_map_is_reported(db: Database, write: Write) -> None:
    path = write(HEADER + "1;DE;2026-03-02;1.5;03.04.1980;\n2;DE;25.12.2025;2,5;12/25/1980;\n")
    named = 'date_order = "day-first"\ndecimal = ","\n' + MAP
    report = import_file(db, path, map_file=write(named, "map.toml"))
    assert (report.created, report.taken_in_part) == (2, 2)
    assert report.unreadable["Umsatz"].examples == [
        "line 2: '1.5' is not a number; write it like 1234,5"
    ]
    assert report.unreadable["geboren"].examples == [
        "line 3: '12/25/1980' is not a date (day first); no year has this day"
    ]
    # The file of refused rows is written like the input, so that the same map reads it.
    mended = path.with_name(path.name + ".refused.csv")
    assert mended.read_bytes().startswith(b"reason;Kunde;")
    fixed = mended.read_text().replace("1.5", "1,5").replace("12/25/", "25/12/")
    mended.write_text(fixed)
    report = import_file(db, mended, map_file=write(named, "map.toml"))
    assert (report.updated, report.taken_in_part) == (2, 0)


def test_the_refused_rows_of_a_file_in_another_encoding_are_read_with_the_same_map(
    db: Database, write: Write
) -> None:
    path = write((HEADER + "1;Österreich;Ostern;1;\n;;2026-01-05;;\n").encode("windows-1252"))
    mapping = write('encoding = "windows-1252"\n' + MAP, "map.toml")
    assert import_file(db, path, map_file=mapping).refused == 2
    mended = path.with_name(path.name + ".refused.csv")
    assert "Österreich" in mended.read_text(encoding="utf-8-sig")
    assert import_file(db, mended, map_file=mapping).refused == 2


def test_the_country_of_the_map_is_for_numbers_without_one(db: Database, write: Write) -> None:
    mapping = write(
        'country = "Deutschland"\n[columns]\nuser_id = "id"\nphone = "tel"\ncountry = "land"\n',
        "map.toml",
    )
    path = write("id,tel,land\n1,0151 12345678,\n2,07700 900001,GB\n3,0151 12345678,Atlantis\n")
    report = import_file(db, path, map_file=mapping)
    assert (report.created, report.taken_in_part) == (3, 1)
    assert report.unreadable["tel"].examples[0].startswith("line 4: '0151 12345678' is not a poss")
    assert rows_of(db, profiles.c.country)[:1] in ([(None,)], [("GB",)])


def test_a_dry_run_shows_the_first_rows_and_writes_nothing(db: Database, write: Write) -> None:
    rows = "".join(f"{n};DE;2026-01-{n};{n},5;;\n" for n in range(10, 17))
    path = write(HEADER + rows + "x;DE;nonsense;;;\n17;DE;;many;;\n")
    report = import_file(db, path, map_file=write(MAP, "map.toml"), dry_run=True)
    assert (report.read, report.refused, report.taken_in_part, report.created) == (9, 1, 1, 0)
    assert len(report.first_rows) == 5
    assert report.first_rows[0] == (
        "line 2",
        {
            "user_id": "10",
            "country": "DE",
            "seen_at": "2026-01-09T23:00:00Z",
            "attributes.spent": 10.5,
        },
    )
    assert report.refused_examples[0].startswith("line 9: Stand: 'nonsense' is not a date")
    assert report.unreadable["Umsatz"].rows == 1
    assert report.refused_file is None
    assert list(path.parent.glob("*.refused.csv")) == []
    assert rows_of(db, profiles.c.id) == []
