"""The opt-out in a row or call that is refused for another error is still recorded."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from config.channels import ChannelName
from config.database.engine import Database
from config.policy import Policy
from profiles.attributes.traits import consent_in
from profiles.consent.changes import ConsentChange, change_consent
from profiles.identity.owners import owners_of
from profiles.identity.person import Key, Person, normalise_email
from profiles.identity.phones import Phone
from profiles.identity.upsert import upsert_people
from profiles.imports.importer import import_file
from profiles.tables import consent_records, consents, identifiers
from tests.support.http.receiving import Receiving, problem, receiving
from tests.support.shop import MONDAY, House

ANN_MAIL, BOB_MAIL = normalise_email("ann@example.com"), normalise_email("bob@example.com")
ANN_PHONE, BOB_PHONE = Phone("+447700900001", "GB"), Phone("+447700900002", "GB")
MAP = """
[columns]
user_id = "id"
email = "email"
phone = "phone"
country = "country"
seen_at = "seen"
[attributes]
born = { column = "born", type = "date" }
[consent]
"email.*" = "mail"
"sms.*" = "texts"
"email.news" = "news"
"""
HEADER = "id,email,phone,country,seen,born,mail,texts,news\n"
TRAITS = Policy.model_validate(
    {
        "consent_traits": [
            {"trait": "unsubscribed", "value": True, "channel": "email", "granted": False},
            {"trait": "newsletter", "value": "no", "channel": "email", "topic": "news"}
            | {"granted": False},
            {"trait": "newsletter", "value": "yes", "channel": "email", "topic": "news"}
            | {"granted": True},
        ]
    }
)


def known(db: Database) -> tuple[int, int]:
    """Ann and Bob, who opted in to everything a week ago."""
    db.now = MONDAY
    yes: dict[tuple[ChannelName, str], bool] = {
        ("email", "*"): True,
        ("sms", "*"): True,
        ("email", "news"): True,
    }
    people = [
        Person(
            user_id="ann", email=ANN_MAIL, phone=ANN_PHONE, consent=yes, seen_at=MONDAY - 7 * 86_400
        ),
        Person(
            user_id="bob", email=BOB_MAIL, phone=BOB_PHONE, consent=yes, seen_at=MONDAY - 7 * 86_400
        ),
    ]
    with db.transaction() as tx:
        ann, bob = upsert_people(tx, people, "test").profile_ids
    assert ann is not None
    assert bob is not None
    return ann, bob


def noes(db: Database) -> set[tuple[int, str, str]]:
    with db.transaction(write=False) as tx:
        found = tx.conn.execute(select(consents).where(consents.c.granted.is_(False)))
        return {(row.profile_id, row.channel, row.topic) for row in found}


def owner(db: Database, key: Key) -> int:
    with db.transaction(write=False) as tx:
        return owners_of(tx, [key])[key]


def imported(db: Database, tmp_path: Path, *rows: str, parquet: bool = False) -> list[str]:
    """Import the rows; the reasons why some were refused."""
    (tmp_path / "map.toml").write_text(MAP)
    path = tmp_path / "people.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    if parquet:
        with path.open(newline="") as file:
            table = pa.Table.from_pylist(list(csv.DictReader(file)))
        path = tmp_path / "people.parquet"
        pq.write_table(table, path)
    report = import_file(db, path, map_file=tmp_path / "map.toml")
    if report.refused_file is None:
        return []
    with report.refused_file.open(newline="") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    assert report.refused_noes == sum("is recorded nevertheless" in reason for reason in reasons)
    return reasons


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parquet", [False, True])
@pytest.mark.parametrize(
    "row",
    [
        "ann,,,,0000-00-00,,no,,",
        "ann,,12345,,,,no,,",
        "ann,,12345,,0000-00-00,,no,,",
        "ann,,+447700900002,,,,no,,",
        "ann,bob@example.com,,,,,no,,",
        "ann,no address,,,,,no,,",
        "ann,,,,yesterday,,no,,",
        "ann,,,,,,no,perhaps,",
        ",ann@example.com,,,,1990,no,,",
        ",,+447700900001,,0000-00-00,,no,,",
        ",,07700 900001,GB,0000-00-00,,no,,",
    ],
)
def test_a_no_in_a_refused_row_applies_to_the_named_profile(
    db: Database, tmp_path: Path, row: str, parquet: bool
) -> None:
    ann, _ = known(db)
    reasons = imported(db, tmp_path, row, parquet=parquet)
    assert noes(db) == {(ann, "email", "*")}
    taken = ("; the no to email is recorded nevertheless", "; the rest of the row was imported")
    assert all(reason.endswith(taken) for reason in reasons)


def test_nothing_else_of_a_refused_row_is_stored(db: Database, tmp_path: Path) -> None:
    known(db)
    [reason] = imported(db, tmp_path, "ann,new@example.com,,,0000-00-00,,yes,no,no")
    assert "the no to email (news), sms is recorded nevertheless" in reason
    with db.transaction(write=False) as tx:
        values = tx.conn.execute(select(identifiers.c.value)).scalars().all()
    assert "new@example.com" not in values


def test_a_no_by_a_retired_address_applies_to_its_last_profile(
    db: Database, tmp_path: Path
) -> None:
    ann, _ = known(db)
    with db.transaction() as tx:
        new = Person(user_id="ann", email=normalise_email("new@example.com"), seen_at=MONDAY)
        upsert_people(tx, [new], "test")
    imported(db, tmp_path, ",ann@example.com,,,0000-00-00,,no,,")
    assert noes(db) == {(ann, "email", "*")}
    with db.transaction(write=False) as tx:
        assert owners_of(tx, [("email", "ann@example.com")]) == {}


def test_a_no_with_addresses_of_two_profiles_applies_to_both(db: Database, tmp_path: Path) -> None:
    ann, bob = known(db)
    imported(db, tmp_path, ",ann@example.com,+447700900002,,,,no,,")
    assert noes(db) == {(ann, "email", "*"), (bob, "email", "*")}


def test_the_opt_out_of_an_unknown_customer_is_stored(db: Database, tmp_path: Path) -> None:
    ann, _ = known(db)
    rows = [
        "cyd,cyd@example.com,,,0000-00-00,,no,,",
        "dan,ann@example.com,,,,,no,,",
        ",eve@example.com,,,0000-00-00,,no,,",
        "fay,cyd@example.com,,,0000-00-00,,no,,",
    ]
    assert len(imported(db, tmp_path, *rows)) == 4
    cyd, dan = owner(db, ("user_id", "cyd")), owner(db, ("user_id", "dan"))
    eve, fay = owner(db, ("email", "eve@example.com")), owner(db, ("user_id", "fay"))
    assert noes(db) == {(one, "email", "*") for one in (cyd, dan, eve, fay)}
    assert owner(db, ("email", "cyd@example.com")) == cyd
    assert owner(db, ("email", "ann@example.com")) == ann
    # The corrected rows find the same people.
    imported(db, tmp_path, "cyd,cyd@example.com,,,,1990-01-02,,,", ",eve@example.com,,,,,,,")
    assert noes(db) == {(one, "email", "*") for one in (cyd, dan, eve, fay)}


def test_an_unticked_sms_box_creates_no_profile(db: Database, tmp_path: Path) -> None:
    known(db)
    imported(db, tmp_path, "cyd,,,,0000-00-00,,,no,")
    with db.transaction(write=False) as tx:
        assert owners_of(tx, [("user_id", "cyd")]) == {}
    imported(db, tmp_path, "cyd,,,,2026-03-01T00:00:00Z,,perhaps,no,")
    assert noes(db) == {(owner(db, ("user_id", "cyd")), "sms", "*")}


def test_an_older_no_does_not_outweigh_a_later_yes(db: Database, tmp_path: Path) -> None:
    ann, _ = known(db)
    with db.transaction() as tx:
        yes = ConsentChange(
            profile_id=ann, channel="email", topic="news", granted=True, just_now=True
        )
        change_consent(tx, [yes], "preference page")
    imported(db, tmp_path, "ann,,,,2001-01-01T00:00:00Z,,perhaps,,no")
    assert noes(db) == set()


@pytest.mark.parametrize("row", ["ann,,,,0000-00-00,,yes,yes,", ",,,,,0000-00-00,no,,", "ann,,,no"])
def test_a_refused_row_without_a_no_or_an_identifier_stores_nothing(
    db: Database, tmp_path: Path, row: str
) -> None:
    known(db)
    assert len(imported(db, tmp_path, row)) == 1
    assert noes(db) == set()


def test_the_same_file_again_changes_nothing(db: Database, tmp_path: Path) -> None:
    known(db)
    for _ in range(2):
        imported(db, tmp_path, "ann,,,,0000-00-00,,no,,", "gil,,,,,0000-00-00,no,,")
        with db.transaction(write=False) as tx:
            records = tx.conn.execute(select(consent_records).order_by(consent_records.c.id)).all()
        assert [row.source for row in records if not row.granted] == ["import people.csv"] * 2


# Calls --------------------------------------------------------------------------------------------


def identify(**said: Any) -> dict[str, Any]:
    return {"userId": "ann", "traits": {"unsubscribed": True}, **said}


@pytest.fixture
def calls(house: House) -> Any:
    house.open(policy=TRAITS)
    with receiving(house.segue) as receiver:
        yield receiver


@pytest.mark.parametrize("value", [True, "true", "Yes", 1, "1"])
def test_the_policy_maps_a_trait_to_a_no(house: House, calls: Receiving, value: object) -> None:
    ann, _ = known(house.db)
    answer = calls.post("/v1/identify", json=identify(traits={"unsubscribed": value}))
    assert answer.status_code == 200
    # A no to all e-mail outweighs the topic's own yes.
    assert noes(house.db) == {(ann, "email", "*"), (ann, "email", "news")}


@pytest.mark.parametrize(
    ("wanted", "value", "fits"),
    [
        *(("f", " F ", True), (3, "3", True), (False, "no", True)),
        *(("f", False, False), (1, True, False), ("no", "nobody", False)),
    ],
)
def test_a_value_is_compared_as_it_is_written(wanted: object, value: object, fits: object) -> None:
    rule = {"trait": "t", "value": wanted, "channel": "email", "granted": False}
    policy = Policy.model_validate({"consent_traits": [rule]})
    assert bool(consent_in({"t": value}, {}, policy.consent_traits)) is fits


def test_other_values_of_a_consent_trait_are_ignored(house: House, calls: Receiving) -> None:
    known(house.db)
    values: list[Any] = [False, "no", 0, None, "", [], "perhaps"]
    for value in values:
        calls.post("/v1/identify", json=identify(traits={"unsubscribed": value}))
    assert noes(house.db) == set()


def test_a_trait_can_be_a_yes_and_a_no_of_a_topic(house: House, calls: Receiving) -> None:
    ann, _ = known(house.db)
    for number, word in enumerate(["No", "yes", "NO"]):
        house.db.now = MONDAY + number
        calls.post("/v1/identify", json=identify(traits={"newsletter": word}))
        said = noes(house.db)
        assert said == ({(ann, "email", "news")} if word.lower() == "no" else set())


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestamp": "yesterday"},
        {"messageId": ["x"]},
        {"context": "none"},
        {"userId": ["u"], "traits": {"unsubscribed": True, "email": "ann@example.com"}},
        {"userId": None, "traits": {"unsubscribed": True, "phone": "+447700900001"}},
    ],
)
@pytest.mark.parametrize("path", ["/v1/identify", "/v1/batch"])
def test_a_no_in_a_refused_call_applies(
    house: House, calls: Receiving, path: str, wrong: dict[str, Any]
) -> None:
    ann, _ = known(house.db)
    body = identify(**wrong)
    if path == "/v1/batch":
        body = {"batch": [{"type": "identify", **body}]}
    said = problem(calls.post(path, json=body), 400, "invalid")
    assert said["message"].endswith("; the no to email is recorded nevertheless")
    assert noes(house.db) == {(ann, "email", "*"), (ann, "email", "news")}


def test_a_refused_call_without_a_no_stores_nothing(house: House, calls: Receiving) -> None:
    known(house.db)
    body = identify(timestamp="yesterday", traits={"newsletter": "yes"})
    said = problem(calls.post("/v1/identify", json=body), 400, "invalid")
    assert "taken" not in said["message"]
    assert noes(house.db) == set()


def test_a_no_applies_despite_an_ignored_identifier(house: House, calls: Receiving) -> None:
    ann, _ = known(house.db)
    calls.post("/v1/identify", json={"userId": "bob", "anonymousId": "of-bob"})
    answer = calls.post("/v1/identify", json=identify(anonymousId="of-bob"))
    assert answer.json()["warnings"]
    for phone in ("12345", "+447700900002"):
        answer = calls.post(
            "/v1/identify", json=identify(traits={"unsubscribed": True, "phone": phone})
        )
        assert answer.json()["warnings"]
    assert noes(house.db) == {(ann, "email", "*"), (ann, "email", "news")}
