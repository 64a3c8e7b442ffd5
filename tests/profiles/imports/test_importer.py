"""Import of files: accepted rows, refused rows with reasons, and repeated imports."""

import csv
import io
import signal
import stat
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from config.clock.times import DAY, Instant, parse_instant
from config.database.engine import Database
from config.errors import SegueError
from profiles.consent.changes import ConsentChange, change_consent
from profiles.imports.importer import ImportReport, import_file
from profiles.imports.rows import FileRow, RefusedRows, RowFile, open_rows
from profiles.tables import consents, events, identifiers, profiles
from tests.profiles.imports.conftest import Write
from tests.support.proof import cases

NOW: Instant = 1_772_409_600  # 2026-03-02T00:00:00Z
CUSTOMERS = "customer_id,country,email,phone,push_token,email_opt_in,sms_opt_in\n"
ORDERS = "invoice,customer_id,ordered_at,items,total_gbp,top_item\n"


@pytest.fixture(autouse=True)
def _at_now(db: Database) -> None:
    db.now = NOW


def counts(report: ImportReport) -> tuple[int, int, int, int, int]:
    return report.read, report.created, report.updated, report.unchanged, report.refused


def rows_of(db: Database, *columns: Any) -> list[tuple[Any, ...]]:
    with db.transaction(write=False) as tx:
        return [tuple(row) for row in tx.conn.execute(select(*columns).order_by(*columns))]


def refused(path: Path) -> list[dict[str, str]]:
    with path.with_name(path.name + ".refused.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_customers_come_in_with_the_map_that_is_shipped(db: Database, write: Write) -> None:
    path = write(
        CUSTOMERS
        + "1,EIRE,Ann@Example.com,+447700900001,token-1,true,false\n"
        + "2,Unspecified,bob@example.com,,,false,true\n"
    )
    report = import_file(db, path)
    assert counts(report) == (2, 2, 0, 0, 0)
    assert report.unknown_countries == {"Unspecified": 1}
    assert rows_of(db, profiles.c.country.is_(None), profiles.c.country) == [
        (False, "IE"),
        (True, None),
    ]
    assert rows_of(db, identifiers.c.kind, identifiers.c.value) == [
        ("email", "ann@example.com"),
        ("email", "bob@example.com"),
        ("phone", "+447700900001"),
        ("push_token", "token-1"),
        ("user_id", "1"),
        ("user_id", "2"),
    ]
    assert rows_of(db, consents.c.channel, consents.c.topic, consents.c.granted) == [
        ("email", "*", False),
        ("email", "*", True),
        ("sms", "*", True),
    ]


def test_orders_come_in_as_history_with_the_map_that_is_shipped(db: Database, write: Write) -> None:
    path = write(ORDERS + "A1,17850,2010-12-01T08:26:00Z,40,139.12,GLASS STAR\n")
    report = import_file(db, path, as_event="order_completed")
    assert counts(report) == (1, 1, 0, 0, 0)
    assert report.profiles_created == 1
    with db.transaction(write=False) as tx:
        event = tx.conn.execute(select(events)).one()
    assert (event.name, event.dedupe_key) == ("order_completed", "A1")
    assert event.occurred_at == parse_instant("2010-12-01T08:26:00Z")
    assert (event.received_at, event.worked_at) == (NOW, NOW)
    assert event.properties == {"items": 40, "total_gbp": 139.12, "top_item": "GLASS STAR"}
    assert rows_of(db, identifiers.c.kind, identifiers.c.value) == [("user_id", "17850")]


def test_everything_a_customer_map_can_say(db: Database, write: Write) -> None:
    mapping = write(
        """
        timezone = "Europe/London"
        [columns]
        user_id = "id"
        anonymous_id = "cookie"
        push_token = "device"
        push_platform = "os"
        timezone = "zone"
        language = "speaks"
        seen_at = "as of"
        [attributes]
        first_name = "name"
        points = { column = "points", type = "integer" }
        spent = { column = "spent", type = "number" }
        vip = { column = "vip", type = "boolean" }
        birthday = { column = "born", type = "date" }
        joined = { column = "joined", type = "time" }
        [consent]
        "email.promotions" = "news"
        """,
        "map.toml",
    )
    path = write(
        "id,cookie,device,os,zone,speaks,as of,name,points,spent,vip,born,joined,news\n"
        "1,c1,d1,iOS,Europe/Paris,fr,2026-01-01 12:00,Zoë,7,9.5,yes,1990-02-28,2025-07-01 09:30,N\n"
        "2,,,,Europe/Nowhere,,,,,,,,,\n"
    )
    report = import_file(db, path, map_file=mapping)
    assert counts(report) == (2, 2, 0, 0, 0)
    assert report.invalid_zones == {"Europe/Nowhere": 1}
    first, second = rows_of(
        db, profiles.c.id, profiles.c.timezone, profiles.c.language, profiles.c.attributes
    )
    assert first[1:3] == ("Europe/Paris", "fr")
    assert first[3] == {
        "first_name": "Zoë",
        "points": 7,
        "spent": 9.5,
        "vip": True,
        "birthday": "1990-02-28",
        "joined": "2025-07-01T08:30:00Z",
    }
    # an invalid name is kept as it was given: the planner records it and takes the next source
    assert second[1:] == ("Europe/Nowhere", None, {})
    seen = parse_instant("2026-01-01T12:00:00Z")
    assert rows_of(
        db, identifiers.c.kind, identifiers.c.value, identifiers.c.platform, identifiers.c.seen_at
    ) == [
        ("anonymous_id", "c1", None, seen),
        ("push_token", "d1", "ios", seen),
        ("user_id", "1", None, seen),
        ("user_id", "2", None, NOW),
    ]
    assert rows_of(db, consents.c.topic, consents.c.granted, consents.c.changed_at) == [
        ("promotions", False, seen)
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",GB,,,,true,false", "the row identifies no customer: customer_id, email, phone, push_"),
        (",GB,ann.example.com,,,true,false", "email: 'ann.example.com' is not an e-mail address"),
        (
            "1.8E+19,GB,ann.example.com,1,,perhaps,false",
            "customer_id: '1.8E+19' may be a rounded number; write all digits without a point; "
            "email_opt_in: 'perhaps' is neither yes nor no; use true or false; "
            "email: 'ann.example.com' is not an e-mail address",
        ),
        ("9,GB,,,,perhaps,false", "email_opt_in: 'perhaps' is neither yes nor no"),
        ("9,GB,ann@example.com", "the row has 3 fields, the header 7"),
        ("9,GB,,,,true,false,extra", "the row has 8 fields, the header 7"),
        ('9,"GB" x,,,,true,false', "the row is not valid CSV"),
        ("9,G\0B,,,,true,false", "NUL"),
        ("9,GB,one@example.com,,,true,false", "belongs to the customer with user_id '1'"),
    ],
)
def test_a_bad_customer_row_is_refused_alone(
    db: Database, write: Write, row: str, reason: str
) -> None:
    path = write(
        CUSTOMERS
        + "1,GB,one@example.com,,,true,false\n"
        + row
        + "\n2,GB,two@example.com,,,true,false\n"
    )
    report = import_file(db, path)
    assert counts(report) == (3, 2, 0, 0, 1)
    assert report.refused_file == path.with_name("file.csv.refused.csv")
    (line,) = refused(path)
    assert line["reason"].startswith("line 3: ")
    assert reason in line["reason"]
    assert row.split(",")[0] in line["customer_id"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("9,GB,,123,,true,false", "phone: '123' is not a possible phone number in GB"),
        ("9,,,07700900001,,true,false", "it must start with +"),
        ("9,DE,,4915112345678,,true,false", "phone: '4915112345678' can be read as"),
        ("9,DE,,4915112345678.0,,true,false", "a number with a fraction"),
        ("9,DE,,4.91512E+12,,true,false", "a spreadsheet shortened"),
        ("9,GB,,07700900001 ext 5,,true,false", "remove 'ext 5'"),
    ],
)
def test_a_row_is_imported_without_its_unreadable_number(
    db: Database, write: Write, row: str, reason: str
) -> None:
    path = write(CUSTOMERS + row + "\n")
    report = import_file(db, path)
    assert counts(report) == (1, 1, 0, 0, 0)
    assert report.taken_in_part == 1
    assert rows_of(db, identifiers.c.value) == [("9",)]
    assert rows_of(db, consents.c.channel, consents.c.granted) == [("email", True)]
    (line,) = refused(path)
    assert reason in line["reason"]
    assert line["reason"].startswith("line 2: phone: ")
    assert line["reason"].endswith("; the rest of the row was imported")
    # the corrected row adds the number
    mended = write(path.read_text().replace(row.split(",")[3], "+447700900001"), "mended.csv")
    report = import_file(db, mended)
    assert (report.updated, report.taken_in_part, report.refused_file) == (1, 0, None)
    assert ("+447700900001",) in rows_of(db, identifiers.c.value)


def test_a_row_that_only_an_unreadable_number_names_is_refused(db: Database, write: Write) -> None:
    mapping = write('[columns]\nphone = "phone"\ncountry = "land"\n', "map.toml")
    path = write("phone,land\n4915112345678,DE\n")
    report = import_file(db, path, map_file=mapping)
    assert counts(report) == (1, 0, 0, 0, 1)
    assert report.taken_in_part == 0
    assert refused(path)[0]["reason"].startswith("line 2: phone: '4915112345678' can be read as")


@pytest.mark.parametrize(
    ("cell", "country"),
    [
        ("'+447700900001", ""),
        ("00447700900001", "GB"),
        ("00447700900001", ""),
        ("7700900001", "GB"),
        ("\u00a007700\u00a0900001\u00a0", "GB"),
        ("tel:+44-7700-900001", ""),
    ],
)
def test_numbers_as_spreadsheets_write_them_are_read(
    db: Database, write: Write, cell: str, country: str
) -> None:
    assert import_file(db, write(f"{CUSTOMERS}1,{country},,{cell},,,\n")).taken_in_part == 0
    assert ("+447700900001",) in rows_of(db, identifiers.c.value)


def test_the_map_names_the_cells_that_mean_empty(db: Database, write: Write) -> None:
    mapping = write(
        """
        empty = ["NULL", "n/a", "-", " (none) "]
        [columns]
        user_id = "id"
        email = "email"
        phone = "phone"
        country = "land"
        language = "speaks"
        seen_at = "seen"
        [attributes]
        name = "name"
        points = { column = "points", type = "integer" }
        [consent]
        "email.*" = "news"
        """,
        "map.toml",
    )
    header = "id,email,phone,land,speaks,seen,name,points,news\n"
    path = write(header + "1,NULL,n/a,-,null, N/A ,(none),-,NULL\nNULL,a@example.com,,,,,,,\n")
    report = import_file(db, path, map_file=mapping)
    assert counts(report) == (2, 2, 0, 0, 0)
    assert report.unknown_countries == {}
    assert rows_of(db, profiles.c.country, profiles.c.language) == [(None, None)] * 2
    assert rows_of(db, profiles.c.attributes) == [({},)] * 2
    assert rows_of(db, consents.c.granted) == []
    # without the key they are texts like any other
    write(mapping.read_text().replace("empty =", "# empty ="), "map.toml")
    assert import_file(db, path, map_file=mapping).refused == 1
    assert "seen: 'N/A' is not a date and time" in refused(path)[0]["reason"]
    assert "points: '-' is not a whole number" in refused(path)[0]["reason"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("A2,,2010-12-01T08:26:00Z,1,1.0,X", "customer_id: the cell is empty"),
        (",7,2010-12-01T08:26:00Z,1,1.0,X", "invoice: the cell is empty"),
        ("A2,7,,1,1.0,X", "ordered_at: the cell is empty"),
        ("A2,7,1 Dec 2010 08:26,1,1.0,X", "'1 Dec 2010 08:26' is not a date and time"),
        ("A2,7,2010-02-30T08:26:00Z,1,1.0,X", "no year has this day"),
        ("A2,7,2010-12-01T08:26:00,1,1.0,X", "has no time zone"),
        (
            ",,2010,many,£5,X",
            "customer_id: the cell is empty; invoice: the cell is empty; "
            "ordered_at: '2010' is not a date and time; write it like 2026-03-02T04:30:00Z; "
            "items: 'many' is not a whole number; total_gbp: '£5' is not a number",
        ),
        (f"{'A' * 1001},7,2010-12-01T08:26:00Z,1,1.0,X", "longer than 1000 bytes"),
    ],
)
def test_a_bad_order_row_is_refused_alone(
    db: Database, write: Write, row: str, reason: str
) -> None:
    good = "A1,7,2010-12-01T08:26:00Z,1,1.0,X"
    path = write(f"{ORDERS}{good}\n{row}\n{good.replace('A1', 'A3')}\n")
    report = import_file(db, path, as_event="order_completed")
    assert counts(report) == (3, 2, 0, 0, 1)
    assert reason in refused(path)[0]["reason"]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ("many,1.0", "items: 'many' is not a whole number"),
        ("99999999999999999999,1.0", "items: 99999999999999999999 does not fit into 64 bits"),
        ("1,£5", "total_gbp: '£5' is not a number; write it like 1234.5"),
        ("1,inf", "total_gbp: 'inf' is not a finite number"),
    ],
)
def test_an_event_is_imported_without_a_property_that_cannot_be_read(
    db: Database, write: Write, cells: str, reason: str
) -> None:
    path = write(f"{ORDERS}A1,7,2010-12-01T08:26:00Z,{cells},X\n")
    report = import_file(db, path, as_event="order_completed")
    assert (report.created, report.refused, report.taken_in_part) == (1, 0, 1)
    (line,) = refused(path)
    assert line["reason"] == f"line 2: {reason}; the rest of the row was imported"
    column, _, why = reason.partition(": ")
    assert report.unreadable[column].rows == 1
    assert report.unreadable[column].examples == [f"line 2: {why}"]


def test_a_customer_is_imported_without_values_that_cannot_be_read(
    db: Database, write: Write
) -> None:
    mapping = write(
        """
        [columns]
        user_id = "id"
        email = "mail"
        [attributes]
        points = { column = "points", type = "integer" }
        born = { column = "born", type = "date" }
        """,
        "map.toml",
    )
    rows = "".join(f"{n},x{n},no{n},2001-01-0{n}\n" for n in range(1, 6))
    path = write(f"id,mail,points,born\n{rows}6,six@example.com,6,31.02.2001\n")
    report = import_file(db, path, map_file=mapping)
    assert (report.created, report.refused, report.taken_in_part) == (6, 0, 6)
    assert {column: one.rows for column, one in report.unreadable.items()} == {
        "mail": 5,
        "points": 5,
        "born": 1,
    }
    assert report.unreadable["points"].examples == [
        f"line {n + 1}: 'no{n}' is not a whole number" for n in (1, 2, 3)
    ]
    assert refused(path)[0]["reason"] == (
        "line 2: mail: 'x1' is not an e-mail address: An email address must have an @-sign.; "
        "points: 'no1' is not a whole number; the rest of the row was imported"
    )
    assert ({"born": "2001-01-05"},) in rows_of(db, profiles.c.attributes)


def test_an_empty_user_id_with_an_address_is_a_person(db: Database, write: Write) -> None:
    report = import_file(db, write(CUSTOMERS + ",GB,ann@example.com,,,true,false\n"))
    assert counts(report) == (1, 1, 0, 0, 0)
    assert rows_of(db, identifiers.c.kind, identifiers.c.value) == [("email", "ann@example.com")]


def test_a_stray_quote_affects_only_its_row(db: Database, write: Write) -> None:
    lines = [f"{n},GB,c{n}@example.com,,,true,false" for n in range(1, 200)]
    lines[99] = '100,"GB,c100@example.com,,,true,false'
    path = write(CUSTOMERS + "\n".join(lines) + "\n")
    assert counts(import_file(db, path)) == (199, 198, 0, 0, 1)
    (line,) = refused(path)
    assert line["reason"] == "line 101: a quote is not closed"


def test_a_quoted_field_may_run_over_several_lines(db: Database, write: Write) -> None:
    path = write(ORDERS + 'A1,7,2010-12-01T08:26:00Z,1,1.0,"two\nlines, ""quoted"""\n\n')
    assert counts(import_file(db, path, as_event="bought")) == (1, 1, 0, 0, 0)
    ((properties,),) = rows_of(db, events.c.properties)
    assert properties["top_item"] == 'two\nlines, "quoted"'


def test_the_refused_file_belongs_to_the_last_run(db: Database, write: Write) -> None:
    good, bad = "1,GB,,,,true,false\n", "2,GB,nonsense,,,true,false\n"
    path = write(CUSTOMERS + good + bad)
    import_file(db, path)
    import_file(db, path)
    assert [line["customer_id"] for line in refused(path)] == ["2"]
    write(CUSTOMERS + good)
    assert import_file(db, path).refused_file is None
    assert not path.with_name(path.name + ".refused.csv").exists()


def test_the_refused_file_can_be_fixed_and_imported(db: Database, write: Write) -> None:
    path = write(CUSTOMERS + ",GB,nonsense,,,true,false\n,GB,more nonsense,,,true,false\n")
    import_file(db, path)
    refusals = path.with_name(path.name + ".refused.csv")
    mended = write(refusals.read_text().replace(",nonsense", ",two@example.com"), "mended.csv")
    assert counts(import_file(db, mended)) == (2, 1, 0, 0, 1)
    assert refused(mended)[0]["refused"].startswith("line 3: email: 'more nonsense'")


def test_only_the_owner_may_read_the_refused_rows(db: Database, write: Write) -> None:
    path = write(CUSTOMERS + "2,GB,nonsense,,,true,false\n")
    refusals = path.with_name(path.name + ".refused.csv")
    refusals.write_text("of a run before")
    refusals.chmod(0o644)
    import_file(db, path)
    assert stat.S_IMODE(refusals.stat().st_mode) == 0o600


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''-1"]


def test_a_spreadsheet_finds_no_formula_in_the_refused_rows(db: Database, write: Write) -> None:
    with io.StringIO(newline="") as text:
        csv.writer(text).writerows(
            [
                ["customer_id", "email", "=cmd|' /C calc'!A0", "'+x"],
                *([formula, "nonsense", formula, formula] for formula in FORMULAS),
            ]
        )
        path = write(text.getvalue())
    mapping = write('[columns]\nuser_id = "customer_id"\nemail = "email"\n', "map.toml")
    assert import_file(db, path, map_file=mapping).taken_in_part == len(FORMULAS)
    refusals = path.with_name(path.name + ".refused.csv")
    with refusals.open(encoding="utf-8", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert len(cells) == 5 * (len(FORMULAS) + 1)
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n＝＋－＠")] == []
    # Segue itself reads what was there.
    before, after = open_rows(path), open_rows(refusals)
    assert after.columns[1:] == before.columns
    assert [row.cells[1:] for row in after.rows()] == [row.cells for row in before.rows()]


@settings(
    max_examples=cases(test=30, prove=1000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.lists(
            st.one_of(
                st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
                st.text("=+-@'\t\r\n\" ,;1", max_size=6),
            ),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_refused_rows_are_read_back_unchanged(tmp_path: Path, rows: list[list[str]]) -> None:
    source = RowFile(unit="line", columns=["a", "=b"], total=len(rows), rows=lambda: iter(()))
    written = RefusedRows(tmp_path / "file.csv", source)
    written.write([(FileRow(n, row), "it is bad") for n, row in enumerate(rows, 2)])
    back = open_rows(written.path)
    again = RefusedRows(tmp_path / "again.csv", back)
    again.write([(row, "still bad") for row in back.rows()])
    twice = open_rows(again.path)
    assert (back.columns[1:], twice.columns[2:]) == (["a", "=b"], ["a", "=b"])
    assert [row.cells[1:] for row in back.rows()] == rows
    assert [row.cells[2:] for row in twice.rows()] == rows


def test_a_place_where_nothing_can_be_written_is_an_error(db: Database, write: Write) -> None:
    path = write(CUSTOMERS)
    path.with_name(path.name + ".refused.csv").mkdir()
    with pytest.raises(SegueError, match="refused rows can't be written"):
        import_file(db, path)


def test_the_same_file_again_changes_nothing(db: Database, write: Write) -> None:
    people = write(CUSTOMERS + "1,FR,a@example.com,+447700900001,t,true,true\n2,,,,,,\n", "p.csv")
    orders = write(ORDERS + "A1,1,2010-12-01T08:26:00Z,40,139.12,STAR\n" * 2, "o.csv")
    import_file(db, people)
    assert counts(import_file(db, orders, as_event="bought")) == (2, 1, 0, 1, 0)
    tables = (profiles.c, identifiers.c, consents.c, events.c)
    before = [rows_of(db, *table) for table in tables]
    db.now = NOW + DAY
    assert counts(import_file(db, people)) == (2, 0, 0, 2, 0)
    assert counts(import_file(db, orders, as_event="bought")) == (2, 0, 0, 2, 0)
    assert [rows_of(db, *table) for table in tables] == before


def test_a_changed_row_updates_its_customer_only(db: Database, write: Write) -> None:
    path = write(CUSTOMERS + "1,FR,,,,true,false\n2,FR,,,,true,false\n")
    import_file(db, path)
    db.now = NOW + DAY
    write(CUSTOMERS + "1,FR,,,,true,false\n2,DE,,,,true,false\n")
    assert counts(import_file(db, path)) == (2, 0, 1, 1, 0)
    assert rows_of(db, profiles.c.country, profiles.c.updated_at) == [
        ("DE", NOW + DAY),
        ("FR", NOW),
    ]


def test_an_import_does_not_undo_an_unsubscribe(db: Database, write: Write) -> None:
    path = write(CUSTOMERS + "1,FR,a@example.com,,,true,false\n")
    import_file(db, path)
    ((ann,),) = rows_of(db, profiles.c.id)
    with db.transaction() as tx:
        no = ConsentChange(
            profile_id=ann, channel="email", topic="*", granted=False, occurred_at=NOW + 60
        )
        change_consent(tx, [no], "unsubscribe link")
    db.now = NOW + DAY
    report = import_file(db, path)
    assert report.consent_overruled == 1
    assert rows_of(db, consents.c.channel, consents.c.granted) == [("email", False)]


def test_an_unticked_box_for_texts_is_no_stop_but_takes_back_a_yes(
    db: Database, write: Write
) -> None:
    import_file(db, write(CUSTOMERS + "1,FR,a@example.com,,,true,false\n"))
    assert rows_of(db, consents.c.channel, consents.c.granted) == [("email", True)]
    import_file(db, write(CUSTOMERS + "1,FR,a@example.com,,,true,true\n"))
    import_file(db, write(CUSTOMERS + "1,FR,a@example.com,,,true,false\n"))
    assert rows_of(db, consents.c.channel, consents.c.granted) == [("email", True), ("sms", False)]


def test_times_without_a_zone_are_those_of_the_map(db: Database, write: Write) -> None:
    mapping = write(
        """
        timezone = "America/New_York"
        [columns]
        user_id = "who"
        occurred_at = "at"
        id = "no"
        """,
        "map.toml",
    )
    path = write("who,at,no\n1,2026-01-05 09:00:00,1\n1,2026-01-05 09:00:00+01:00,2\n")
    import_file(db, path, map_file=mapping, as_event="called")
    assert rows_of(db, events.c.dedupe_key, events.c.occurred_at) == [
        ("1", parse_instant("2026-01-05T14:00:00Z")),
        ("2", parse_instant("2026-01-05T08:00:00Z")),
    ]


def test_a_file_whose_times_name_no_zone_needs_one_in_the_map(db: Database, write: Write) -> None:
    path = write(ORDERS + "A1,1,2010-12-01 08:26,40,139.12,STAR\n")
    with pytest.raises(SegueError, match=r'has no time zone .* timezone = "Europe/London"'):
        import_file(db, path, as_event="bought")
    assert rows_of(db, profiles.c.id) == []
    assert not path.with_name(path.name + ".refused.csv").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "does not exist"),
        ("", "is empty; its first line must name the columns"),
        ("a,b\n1,2\n", "no column 'customer_id', .* its columns are: a, b"),
        (CUSTOMERS.replace("sms_opt_in", "email"), "has the column 'email' twice"),
        (
            CUSTOMERS.encode() + "1,España,,,,,\n".encode() + b"2,Espa\xf1a,,,,,\n",
            r"is not UTF-8 \(line 3\), though other lines are",
        ),
        (CUSTOMERS.encode("utf-16")[:-1], "is not UTF-16"),
        (CUSTOMERS.encode() + "1,Россия,,,,,\n".encode("windows-1251"), "neither UTF-8 nor Win"),
        ('"customer_id,country\n1,2\n', "no header that can be read"),
    ],
)
def test_a_file_that_is_broken_as_a_whole_is_an_error(
    db: Database, write: Write, tmp_path: Path, content: str | bytes | None, complaint: str
) -> None:
    path = tmp_path / "absent.csv" if content is None else write(content)
    with pytest.raises(SegueError, match=complaint) as caught:
        import_file(db, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "the column map .* does not exist"),
        ("[columns", "not valid TOML"),
        ("", "columns: it is needed"),
        ("[columns]", "no column identifies the customer"),
        ('[columns]\nemial = "email"', "columns.emial is unknown; .* email, phone"),
        ('[column]\nemail = "email"', "column is unknown; .* columns, attributes"),
        (
            '[columns]\nemail = "email"\n[attributes]\nx = { column = "c", type = "money" }',
            "attributes.x.type: it must be 'text'",
        ),
        (
            '[columns]\nemail = "email"\n[attributes]\nx = { column = "c", typ = "date" }',
            "attributes.x.typ is unknown; .* column, type",
        ),
        (
            '[columns]\nemail = "email"\n[consent]\nemail = "c"',
            "consent.email: .*<channel>.<topic>",
        ),
        ('timezone = "Mars"\n[columns]\nemail = "email"', "timezone: 'Mars' is not a time zone"),
    ],
)
def test_a_map_that_is_wrong_is_an_error(
    db: Database, write: Write, tmp_path: Path, content: str | None, complaint: str
) -> None:
    mapping = tmp_path / "map.toml" if content is None else write(content, "map.toml")
    with pytest.raises(SegueError, match=complaint) as caught:
        import_file(db, write(CUSTOMERS), map_file=mapping)
    assert str(mapping) in str(caught.value)


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_comes_in_like_csv(db: Database, tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        invoice=["A1", "A2", None],
        # pandas makes floats of whole numbers with gaps
        customer_id=pa.array([17850.0, 17850.0, 1.0]),
        ordered_at=pa.array(
            [datetime(2010, 12, 1, 8, 26, tzinfo=UTC)] * 3, pa.timestamp("ns", tz="UTC")
        ),
        items=pa.array([40, 2, 1], pa.int32()),
        total_gbp=pa.array([Decimal("139.12"), None, Decimal("1.00")]),
        top_item=["STAR", None, "X"],
    )
    report = import_file(db, path, as_event="bought")
    assert counts(report) == (3, 2, 0, 0, 1)
    assert refused(path)[0]["reason"] == "row 3: invoice: the cell is empty"
    assert rows_of(db, identifiers.c.value) == [("17850",)]
    at = parse_instant("2010-12-01T08:26:00Z")
    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(events).order_by(events.c.dedupe_key)).all()
    assert [(row.occurred_at, row.properties) for row in rows] == [
        (at, {"items": 40, "total_gbp": 139.12, "top_item": "STAR"}),
        (at, {"items": 2}),
    ]
    assert counts(import_file(db, path, as_event="bought")) == (3, 0, 0, 2, 1)


def test_parquet_types_become_what_the_map_asks_for(
    db: Database, tmp_path: Path, write: Write
) -> None:
    mapping = write(
        """
        [columns]
        user_id = "id"
        [attributes]
        born = { column = "born", type = "date" }
        vip = { column = "vip", type = "boolean" }
        tags = "tags"
        code = "code"
        """,
        "map.toml",
    )
    path = parquet(
        tmp_path,
        id=[1],
        born=pa.array([date(1990, 2, 28)]),
        vip=[True],
        tags=[["a", "b"]],
        code=pa.array([b"x1"]),
    )
    import_file(db, path, map_file=mapping)
    ((attributes,),) = rows_of(db, profiles.c.attributes)
    assert attributes == {"born": "1990-02-28", "vip": True, "tags": '["a","b"]', "code": "x1"}


def test_a_float_too_large_to_be_exact_is_no_whole_number(db: Database, tmp_path: Path) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text(
        '[columns]\nuser_id = "id"\n[attributes]\npoints = { column = "points", type = "integer" }'
    )
    path = parquet(tmp_path, id=[1, 2], points=[9007199254740991.0, 9007199254740992.0])
    report = import_file(db, path, map_file=mapping)
    assert counts(report) == (2, 2, 0, 0, 0)
    assert report.unreadable["points"].rows == 1
    assert rows_of(db, profiles.c.id, profiles.c.attributes) == [
        (1, {"points": 9007199254740991}),
        (2, {}),
    ]


def test_what_is_named_parquet_and_is_not_is_an_error(db: Database, write: Write) -> None:
    with pytest.raises(SegueError, match="is not a Parquet file"):
        import_file(db, write(CUSTOMERS, "file.parquet"))


def many_customers(number: int) -> str:
    return CUSTOMERS + "".join(f"{n},FR,c{n}@example.com,,,true,false\n" for n in range(number))


def test_progress_is_reported_for_each_chunk_up_to_the_last_row(db: Database, write: Write) -> None:
    seen: list[tuple[int, int]] = []
    import_file(db, write(many_customers(1200)), progress=lambda *done: seen.append(done))
    assert seen == [(500, 1200), (1000, 1200), (1200, 1200)]


def test_an_import_killed_and_run_again_gives_the_same_rows(db: Database, write: Write) -> None:
    path = write(many_customers(1200))
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from config.database.engine import Database\n"
            "from profiles.imports.importer import import_file\n"
            "def die(done, total):\n"
            "    if done == 1000: os.kill(os.getpid(), signal.SIGKILL)\n"
            "import_file(Database(sys.argv[1]), Path(sys.argv[2]), progress=die)\n",
            db.url,
            str(path),
        ],
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(rows_of(db, profiles.c.id)) == 1000
    assert counts(import_file(db, path)) == (1200, 200, 0, 1000, 0)
    assert len(rows_of(db, consents.c.profile_id)) == 1200
