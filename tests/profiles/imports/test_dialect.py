"""Encodings and delimiters are found out, or an error says what to do."""

from pathlib import Path

import pytest

from config.errors import SegueError
from profiles.imports.dialect import WINDOWS, find_dialect
from profiles.imports.rows import open_rows

TEXT = "id;name;city\n1;Zoë;Málaga\n2;Jürgen;Köln\n"
ROWS = [["1", "Zoë", "Málaga"], ["2", "Jürgen", "Köln"]]


def cells(path: Path, **named: str) -> list[list[str]]:
    file = open_rows(path, ["id", "city"], **named)
    assert file.columns[:3] == ["id", "name", "city"]
    rows = list(file.rows())
    assert [row.fault for row in rows] == [None] * file.total
    return [row.cells[:3] for row in rows]


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("latin-1", WINDOWS),
        ("windows-1252", WINDOWS),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_encoding_and_the_delimiter_are_found(
    tmp_path: Path, encoding: str, found: str, delimiter: str, line_end: str
) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(TEXT.replace(";", delimiter).replace("\n", line_end).encode(encoding))
    dialect = find_dialect(path, ["id", "city"])
    assert (dialect.encoding, dialect.delimiter, dialect.skip) == (found, delimiter, 0)
    assert cells(path) == ROWS


def test_a_guess_is_said_with_words_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(TEXT.encode("latin-1"))
    assert find_dialect(path, ["id"]).in_words == (
        "encoding windows-1252, most likely (Zoë, Málaga, Jürgen), delimiter semicolon"
    )
    path.write_text(TEXT, encoding="utf-8-sig")
    assert find_dialect(path, ["id"]).in_words == "encoding utf-8, delimiter semicolon"


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_line_of_excel_that_names_the_delimiter(tmp_path: Path, line: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(f"{line}\r\n" + TEXT.replace(",", "."), encoding="utf-8", newline="")
    assert cells(path) == ROWS
    assert next(open_rows(path).rows()).line == 3


def test_the_header_decides_and_not_the_number_of_delimiters(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("id;note, with, many, commas;city\n1;a;b\n", encoding="utf-8")
    assert find_dialect(path, ["id", "city"]).delimiter == ";"
    path.write_text("mail\nann@example.com\n", encoding="utf-8")
    assert [row.cells for row in open_rows(path, ["mail"]).rows()] == [["ann@example.com"]]


def test_the_map_names_what_cannot_be_found_out(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes("id:name:city\n1:Мария:Москва\n".encode("windows-1251"))
    with pytest.raises(SegueError, match=r'neither .* \(line 2\).* encoding = "windows-1251"'):
        find_dialect(path, ["id"])
    assert cells(path, encoding="windows-1251", delimiter=":") == [["1", "Мария", "Москва"]]
    with pytest.raises(SegueError, match=r"is not UTF-8 \(line 2\).* correct `encoding`"):
        find_dialect(path, ["id"], encoding="utf-8")


def test_letters_after_the_first_part_of_the_file_count_too(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    head = "id;name;city\n" + "1;Ann;Leeds\n" * 20_000
    path.write_bytes(head.encode() + "2;Jürgen;Köln\n".encode("latin-1"))
    assert find_dialect(path, ["id"]).encoding == WINDOWS
    path.write_bytes(head.encode() + "2;Jürgen;Köln\n".encode())
    assert find_dialect(path, ["id"]).encoding == "utf-8"


@pytest.mark.parametrize(
    "text",
    [
        "id,name,city,,\n1,Ann,Leeds,,\n2,Bob,York,,\n",
        "id,name,city,,\n1,Ann,Leeds\n2,Bob,York,\n",
        "id,name,city\n1,Ann,Leeds,,\n2,Bob,York\n",
        " id , name,\u00a0city\n1,Ann,Leeds\n\n,,\n2,Bob,York",
        "\n\nid,name,city\n1,Ann,Leeds\n , ,\n2,Bob,York\n,,\n",
        '"id","name","city"\n"1","Ann","Leeds"\n"2","Bob","York"',
    ],
)
def test_what_spreadsheets_leave_in_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text, encoding="utf-8")
    assert cells(path) == [["1", "Ann", "Leeds"], ["2", "Bob", "York"]]


def test_a_row_without_a_named_column_or_with_more_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("id,name,city,,\n1,Ann\n1,Ann,Leeds,,,UK\n", encoding="utf-8")
    assert [row.fault for row in open_rows(path).rows()] == [
        "the row has 2 fields, the header 5",
        "the row has 6 fields, the header 5",
    ]


def test_a_column_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("id;name ; name\n", encoding="utf-8")
    with pytest.raises(SegueError, match="has the column 'name' twice"):
        open_rows(path, ["id"])
