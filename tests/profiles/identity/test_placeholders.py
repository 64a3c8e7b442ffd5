"""Which values identify a profile, and which do not: placeholders, numbers, long texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from channels.explain import history_of
from config.clock.times import parse_instant
from config.database.engine import Database
from config.errors import SegueError
from config.policy import Policy
from config.text.json_input import read_json
from profiles.attributes.countries import country_code
from profiles.calls.segment_calls import CallKind, CallRefused, SegmentCall, read_call, read_item
from profiles.identity.person import Key, normalise_email, normalise_id
from profiles.identity.phones import normalise_phone
from profiles.identity.placeholders import MEANINGLESS, Meaningless
from profiles.imports.importer import import_file
from profiles.rules import InputRules
from profiles.tables import identifiers
from tests.support.http.receiving import receiving
from tests.support.shop import House

NOTHING = [
    *("undefined", "null", "NaN", "[object Object]", "", "0", "0000", "None", "nil", "(null)"),
    *("  UNDEFINED ", "[object  object]", "0.0", "00000000-0000-0000-0000-000000000000", "   "),
]
SOMETHING = ["0a", "1000", "nullable", "u-0", "annull", "o", "undefined-7"]
LISTED = Meaningless(["Guest", "test@test.com", "+44 7700 900000", "1042"])


def read(kind: CallKind, meaningless: Meaningless = MEANINGLESS, **said: Any) -> SegmentCall:
    return read_call(kind, {"event": "x", **said}, rules=InputRules(meaningless=meaningless))


def keys(call: SegmentCall) -> list[Key]:
    return call.person.keys


# Values that mean nothing -------------------------------------------------------------------------


@pytest.mark.parametrize("value", NOTHING)
def test_a_placeholder_names_no_profile(value: str) -> None:
    call = read("track", userId=value, anonymousId="a1")
    assert keys(call) == [("anonymous_id", "a1")]
    assert call.warnings == (f"userId is left out: {value!r} is a placeholder",)
    call = read("track", userId="u1", anonymousId=value)
    assert keys(call) == [("user_id", "u1")]
    with pytest.raises(CallRefused) as refused:
        read("track", userId=value, anonymousId=value)
    assert refused.value.field == "userId"
    assert "is a placeholder" in refused.value.why


@pytest.mark.parametrize("value", SOMETHING)
def test_an_id_that_resembles_a_placeholder_is_an_id(value: str) -> None:
    call = read("track", userId=value)
    assert (keys(call), call.warnings) == ([("user_id", value)], ())


def test_zero_as_a_number_is_a_placeholder() -> None:
    for zero in (0, 0.0, -0.0):
        assert keys(read("track", userId=zero, anonymousId="a1")) == [("anonymous_id", "a1")]


@pytest.mark.parametrize("value", [one for one in NOTHING if one])
@pytest.mark.parametrize("trait", ["email", "phone"])
def test_a_placeholder_address_is_ignored(trait: str, value: str) -> None:
    call = read("identify", userId="u1", traits={trait: value, "plan": "a"})
    assert keys(call) == [("user_id", "u1")]
    assert call.person.attributes == {"plan": "a"}
    assert len(call.warnings) == 1


@pytest.mark.parametrize("value", ["undefined", "null", "0"])
def test_a_placeholder_token_is_ignored(value: str) -> None:
    call = read("track", userId="u1", context={"device": {"token": value}})
    assert keys(call) == [("user_id", "u1")]
    assert call.warnings == (f"context.device.token is left out: {value!r} is a placeholder",)


def test_a_placeholder_group_is_ignored() -> None:
    call = read("group", userId="u1", groupId="undefined", traits={"plan": "team"})
    assert call.person.attributes == {"group_plan": "team"}
    assert call.company_traits == {}
    assert call.warnings == ("groupId is left out: 'undefined' is a placeholder",)


def test_an_alias_of_a_placeholder_is_refused() -> None:
    for user, previous in (("u1", "null"), ("null", "a")):
        with pytest.raises(CallRefused):
            read("alias", userId=user, previousId=previous)


def test_a_placeholder_message_id_is_ignored() -> None:
    """Else every event of a broken client would be the same event."""
    one, other = (read("track", userId="u1", messageId="undefined", event=name) for name in "ab")
    assert one.message_id is None
    assert one.dedupe_key(0) != other.dedupe_key(0)


def test_the_policy_lists_more(house: House) -> None:
    for listed in ("guest", " GUEST ", "TEST@test.com", "1042"):
        assert listed in LISTED
    call = read("identify", LISTED, userId=1042, anonymousId="a", traits={"email": "test@test.com"})
    assert keys(call) == [("anonymous_id", "a")]
    house.open(policy=Policy(meaningless=("guest",)))
    with receiving(house.segue) as receiver:
        said = {"userId": "guest", "anonymousId": "a1", "event": "x"}
        answer = receiver.post("/v1/track", json=said)
        assert answer.json()["warnings"] == ["userId is left out: 'guest' is a placeholder"]
        batch = {"batch": [{"type": "track", **said}]}
        answer = receiver.post("/v1/batch", json=batch)
        assert answer.json()["warnings"] == [
            "batch.0: userId is left out: 'guest' is a placeholder"
        ]
        answer = receiver.post("/v1/track", json={"userId": "guest", "event": "x"})
        assert (answer.status_code, answer.json()["field"]) == (400, "userId")
        for nobody in ({"userId": "guest"}, {"userId": "guest", "timestamp": "yesterday"}):
            no = {**nobody, "channel": "email", "granted": False, "source": "form"}
            assert receiver.post("/v1/consent", json=no).status_code == 400
    with house.db.transaction(write=False) as tx:
        assert tx.conn.execute(select(identifiers.c.value)).scalars().all() == ["a1"]
        for nothing in ("guest", "undefined"):
            with pytest.raises(SegueError, match="is a placeholder"):
                history_of(tx, nothing, house.segue.rules.meaningless)


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "file.csv"
        path.write_text(text)
        return path

    return write


CUSTOMERS = "customer_id,country,email,phone,push_token,email_opt_in,sms_opt_in\n"


def known(db: Database) -> list[tuple[str, str]]:
    with db.transaction(write=False) as tx:
        c = identifiers.c
        return [tuple(row) for row in tx.conn.execute(select(c.kind, c.value).order_by(c.value))]


def test_cells_with_placeholders_name_no_profile(db: Database, write: Write) -> None:
    rows = (
        "undefined,GB,ann@example.com,0000,NULL,,\n"
        "null,GB,bob@example.com,,,,\n"
        "undefined,GB,,,,,\n"
        "7,GB,guest@example.com,,,,\n"
    )
    path = write(CUSTOMERS + rows)
    report = import_file(db, path, rules=InputRules(meaningless=Meaningless(["guest@example.com"])))
    assert (report.created, report.refused) == (3, 1)
    assert known(db) == [
        ("user_id", "7"),
        ("email", "ann@example.com"),
        ("email", "bob@example.com"),
    ]
    assert report.left_out["customer_id: 'undefined' is a placeholder"] == 1
    assert report.left_out["phone: '0000' is a placeholder"] == 1
    refused = path.with_name("file.csv.refused.csv").read_text()
    assert "'undefined' is a placeholder; there is no other identifier" in refused


def test_the_opt_out_of_a_refused_row_needs_an_identifier(db: Database, write: Write) -> None:
    path = write(CUSTOMERS + "undefined,GB,,,,no,no\nundefined,GB,ann@example,null,,no,no\n")
    assert import_file(db, path).refused == 2
    assert known(db) == []


def test_an_event_without_an_identifier_is_refused(db: Database, write: Write) -> None:
    header = "invoice,customer_id,ordered_at,items,total_gbp,top_item\n"
    path = write(f"{header}A1,undefined,2010-12-01T08:26:00Z,1,1,X\n")
    report = import_file(db, path, as_event="bought")
    assert (report.created, report.refused, known(db)) == (0, 1, [])


# Numbers ------------------------------------------------------------------------------------------


def user_id(body: bytes) -> str | None:
    return read_item(read_json(body), None).person.user_id


@pytest.mark.parametrize(
    ("written", "user"),
    [
        (b"1042", "1042"),
        (b"1042.0", "1042"),
        (b'"1042"', "1042"),
        (b'"1042.0"', "1042"),
        (b'" 1042.00 "', "1042"),
        (b"1.042e3", "1042"),
        (b"-5", "-5"),
        (b"9223372036854775807", "9223372036854775807"),
        (b"9223372036854775808", "9223372036854775808"),
        (b"18446744073709551615", "18446744073709551615"),
        (b"-9223372036854775808", "-9223372036854775808"),
        (b"9007199254740991.0", "9007199254740991"),
        (b'"18446744073709551616"', "18446744073709551616"),
        (b'"007"', "007"),
        (b'"1.5"', "1.5"),
        (b"1.5", "1.5"),
        (b'"v1.0"', "v1.0"),
        (b'"12e45"', "12e45"),
    ],
)
@pytest.mark.parametrize("more", [b"", rb', "event": "x\u0000"', rb', "event": "\ud83d"'])
def test_a_numeric_id_is_read_exactly(written: bytes, user: str, more: bytes) -> None:
    """Whichever way the body is read: strictly, without NUL, without invalid surrogates."""
    assert user_id(b'{"type": "track", "event": "x", "userId": ' + written + more + b"}") == user


@pytest.mark.parametrize(
    "written",
    [
        *(b"18446744073709551616", b"18446744073709551617", b"-9223372036854775809"),
        *(b"9007199254740992.0", b"9007199254740993.0", b"1e300", b'"1.8446744073709552e+19"'),
        *(b'"1.84467E+19"', b'"9007199254740993.0"'),
    ],
)
@pytest.mark.parametrize("more", [b"", rb', "event": "x\u0000"', rb', "event": "\ud83d"'])
def test_a_number_that_is_not_exact_is_refused(written: bytes, more: bytes) -> None:
    with pytest.raises(CallRefused) as refused:
        user_id(b'{"type": "track", "event": "x", "userId": ' + written + more + b"}")
    assert refused.value.field == "userId"
    assert "write" in refused.value.why


def test_files_and_calls_name_the_same_customer(db: Database, write: Write) -> None:
    rows = "1042,GB,,,,,\n1042.0,FR,,,,,\n"
    assert import_file(db, write(CUSTOMERS + rows)).created == 1
    assert known(db) == [("user_id", "1042")]
    report = import_file(db, write(CUSTOMERS + "1.84467E+19,GB,,,,,\n"))
    assert report.refused == 1


def test_rounded_ids_of_a_parquet_file_are_refused(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    mapping = tmp_path / "map.toml"
    mapping.write_text('columns = { user_id = "id" }\n')
    pq.write_table(pa.table({"id": [1042.0, 2.0**53, 2.0**64]}), path)
    report = import_file(db, path, map_file=mapping)
    assert (report.created, report.refused) == (1, 2)
    pq.write_table(pa.table({"id": pa.array([2**64 - 1, 2**53 + 1], pa.uint64())}), path)
    import_file(db, path, map_file=mapping)
    assert known(db) == [
        ("user_id", "1042"),
        ("user_id", "18446744073709551615"),
        ("user_id", "9007199254740993"),
    ]


# context.traits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["identify", "track", "page", "screen", "group", "alias"])
def test_the_traits_of_the_context_are_read(kind: CallKind) -> None:
    shown = {"email": "ann@example.com", "firstName": "Ann", "address": {"country": "UK"}}
    ids = {"groupId": "g1", "previousId": "a1"}
    call = read_call(kind, {"userId": "u1", "event": "x", **ids, "context": {"traits": shown}})
    assert call.person.email == "ann@example.com"
    assert call.person.country == "GB"
    assert call.person.attributes["first_name"] == "Ann"
    assert call.warnings == ()


def test_traits_come_before_those_of_the_context() -> None:
    call = read(
        "identify",
        userId="u1",
        traits={"firstName": "Ann", "email": None, "address": {"country": "FR"}},
        context={
            "traits": {"first_name": "Bea", "email": "b@example.com", "country": "GB", "size": 3}
        },
    )
    assert call.person.attributes["first_name"] == "Ann"
    assert call.person.attributes["size"] == 3
    assert (call.person.email, call.person.removed) == (None, {"email"})
    assert call.person.country == "FR"


def test_faults_in_the_context_name_their_place() -> None:
    call = read("track", userId="u1", context={"traits": {"email": "nobody"}})
    assert call.warnings[0].startswith("context.traits.email is left out")
    call = read("track", userId="u1", context={"traits": ["email"]})
    assert call.warnings == ("context.traits is left out: it is not an object",)
    call = read("track", userId="u1", context={"device": {"token": "t", "removed": "yes"}})
    assert call.warnings == ("context.device is left out: `removed` must be true or false",)
    assert keys(call) == [("user_id", "u1")]


# Length first -------------------------------------------------------------------------------------

LONG = 2**20


@pytest.mark.parametrize(
    "text",
    ["a" * LONG, " " * LONG, "a@" + "b." * (LONG // 2), "+" + "9" * LONG, "0" * LONG, "ä" * LONG],
)
def test_a_long_text_is_refused_by_its_length(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No library sees it, and no message repeats it."""

    def fail(*_given: object, **_more: object) -> None:
        raise AssertionError("a long text was looked at")

    monkeypatch.setattr("profiles.identity.person.validate_email", fail)
    monkeypatch.setattr("phonenumbers.parse", fail)
    monkeypatch.setattr("profiles.attributes.countries._code", fail)
    refusals: list[Callable[[str], object]] = [
        normalise_email,
        normalise_id,
        parse_instant,
        lambda written: normalise_phone(written, "GB"),
    ]
    for refuse in refusals:
        with pytest.raises(ValueError, match=r".") as refused:
            refuse(text)
        assert len(str(refused.value)) < 250
    assert country_code(text) is None
    assert text not in LISTED
    call = read(
        "identify",
        userId="u1",
        traits=dict.fromkeys(("email", "phone", "country", "timezone", "language"), text),
        context={"timezone": text, "locale": text, "device": {"token": text}},
        messageId="m1",
    )
    assert len(call.warnings) == 8
    assert all(len(warning) < 250 for warning in call.warnings)
