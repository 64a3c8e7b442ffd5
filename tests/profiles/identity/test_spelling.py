"""All spellings of a mailbox or phone number are one identifier, from every source."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from channels.explain import history_of
from channels.feedback.replies import stop_words_of
from channels.providers.twilio import read_inbound
from channels.rules.recipient import zones_for
from config.clock.zones import zone_name
from config.database.engine import Database
from config.errors import SegueError
from config.policy import Policy
from config.text.invisible_characters import trimmed, visible
from profiles.attributes.countries import country_code
from profiles.calls.segment_calls import read_call
from profiles.identity.person import normalise_email, possible_keys
from profiles.identity.phones import Phone
from profiles.imports.importer import import_file
from profiles.rules import InputRules
from profiles.tables import identifiers, profiles
from tests.support.http.receiving import receiving
from tests.support.providers.callback_samples import FromProviders, mail_event
from tests.support.providers.feedback_shop import NEWS, TEXTS, AnnsShop
from tests.support.providers.suppressing import suppressed
from tests.support.shop import House


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("Ann@Example.COM", "ann@example.com"),
        ("  ann+news@example.com ", "ann+news@example.com"),
        ("jürgen@bücher.example.com", "jürgen@xn--bcher-kva.example.com"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
        ("ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ("Ann@BÜCHER.Example", "ann@xn--bcher-kva.example"),
        ("ann@bu\u0308cher.example", "ann@xn--bcher-kva.example"),
        ("ju\u0308rgen@example.com", "jürgen@example.com"),
        ("ann@faß.example", "ann@xn--fa-hia.example"),
        ("ann@пример.рф", "ann@xn--e1afmkfd.xn--p1ai"),
        ("ann@example.com.", "ann@example.com"),
        ("ann@example。com", "ann@example.com"),
        ("ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ann@example.com"),
        ("\u00a0ann@example.com\u3000", "ann@example.com"),
        ("\ufeffann@exam\u00adple.com\u200b", "ann@example.com"),
        ("\u202aann@example.com\u202c", "ann@example.com"),
        ("mailto:ann@example.com", "ann@example.com"),
        ("MAILTO:Ann@example.com", "ann@example.com"),
        ("İ@example.com", "i̇@example.com"),
    ],
)
def test_every_spelling_of_a_mailbox_gives_one_address(written: str, stored: str) -> None:
    assert normalise_email(written) == stored
    assert normalise_email(stored) == stored


@pytest.mark.parametrize(
    "written",
    [
        *("", "ann", "ann@", "ann@@example.com", "a b@example.com", "@x", "ann@example.com.."),
        *("a..b@docomo.ne.jp", "a.@docomo.ne.jp", ".a@docomo.ne.jp", f"{'a' * 65}@example.com"),
        *("mailto:ann@example.com?subject=hi", "ann@xn--a.example"),
    ],
)
def test_an_invalid_address_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is not an e-mail address"):
        normalise_email(written)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("a..b@docomo.ne.jp", "a..b@docomo.ne.jp"),
        ("A.@docomo.ne.jp", "a.@docomo.ne.jp"),
        (".a@docomo.ne.jp", ".a@docomo.ne.jp"),
        ("ann@example.com", "ann@example.com"),
    ],
)
def test_lenient_dots_accepts_dots_at_the_ends_or_in_a_row(written: str, stored: str) -> None:
    assert normalise_email(written, lenient_dots=True) == stored


@pytest.mark.parametrize(
    "written",
    [
        *("..@docomo.ne.jp", "a..b@docomo..jp", "a..b@docomo.ne.jp..", "a..b @docomo.ne.jp"),
        *("a..b\r\nBcc: eve@x.example@docomo.ne.jp", "a..<b>@docomo.ne.jp", 'a.."b@docomo.ne.jp'),
        *("a..b,c@docomo.ne.jp", "a..b;c@docomo.ne.jp", "a..\x01b@docomo.ne.jp"),
        f"{'a.' * 40}@docomo.ne.jp",
    ],
)
def test_lenient_dots_accepts_no_other_invalid_address(written: str) -> None:
    with pytest.raises(ValueError, match="is not an e-mail address"):
        normalise_email(written, lenient_dots=True)


@given(st.emails(), st.booleans())
def test_a_normalised_address_stays_as_it_is(written: str, lenient_dots: bool) -> None:
    try:
        stored = normalise_email(written, lenient_dots=lenient_dots)
    except ValueError:
        return
    assert normalise_email(stored, lenient_dots=lenient_dots) == stored
    assert normalise_email(f" mailto:{stored}. ", lenient_dots=lenient_dots) == stored


def test_an_address_of_a_megabyte_is_refused_unread() -> None:
    with (
        patch("profiles.identity.person.validate_email", side_effect=AssertionError),
        pytest.raises(ValueError, match="longer than 400 characters"),
    ):
        normalise_email("ann@example.com" + " " * 1_000_000)


# Who has one spelling is found by the other -------------------------------------------------------

MAILBOX = ["ann@bücher.example", "ann@xn--bcher-kva.example", "Ann@XN--BCHER-KVA.example."]
HANDSETS = [
    ["+541123456789", "+5491123456789", "+54 9 11 2345-6789"],
    ["+551187654321", "+5511987654321"],
    ["+5215512345678", "+525512345678"],
]


def addresses(db: Database, kind: str) -> list[str]:
    with db.transaction(write=False) as tx:
        found = select(identifiers.c.value).where(identifiers.c.kind == kind)
        return list(tx.conn.execute(found).scalars())


@pytest.mark.parametrize("event", ["bounce", "spamreport", "unsubscribe"])
@pytest.mark.parametrize("spelling", MAILBOX)
def test_sendgrid_may_spell_an_address_its_own_way(house: House, spelling: str, event: str) -> None:
    shop = AnnsShop(house, NEWS, email=normalise_email("ann@bücher.example"))
    said = mail_event(event, shop.id, spelling, type="bounce", reason=f"550 <{spelling}> unknown")
    assert shop.outside.mail(said).status_code == 200
    if event == "unsubscribe":
        assert shop.consent("email") is False
    else:
        [row] = shop.of(identifiers, kind="email")
        state = {"bounce": "bounced", "spamreport": "complained"}[event]
        assert suppressed(house.db) == {("email", row.value): state}
    assert "cher" not in (house.rows()[0].reason or "")


@pytest.mark.parametrize("event", ["bounce", "spamreport", "unsubscribe"])
def test_an_event_without_a_message_of_ours_finds_the_address_too(house: House, event: str) -> None:
    shop = AnnsShop(house, NEWS, email=normalise_email("ann@xn--bcher-kva.example"))
    said = mail_event(event, None, "Ann@Bücher.example", type="bounce")
    assert shop.outside.mail(said).status_code == 200
    assert shop.heard()


@pytest.mark.parametrize("spellings", HANDSETS)
def test_a_stop_applies_from_every_form_of_a_number(
    sqlite_house: House, spellings: list[str]
) -> None:
    stored = Phone(spellings[1].replace(" ", ""), None)
    shop = AnnsShop(sqlite_house, TEXTS, phone=stored)
    for spelling in spellings:
        shop.says("START")
        assert not shop.says_no_texts()
        sqlite_house.db.now = sqlite_house.now + 1
        assert shop.outside.text(spelling, "STOP").status_code == 200
        assert shop.says_no_texts(), spelling


@pytest.mark.parametrize("spellings", HANDSETS)
def test_a_delivery_report_may_name_the_other_form(
    sqlite_house: House, spellings: list[str]
) -> None:
    shop = AnnsShop(sqlite_house, TEXTS, phone=Phone(spellings[1].replace(" ", ""), None))
    assert shop.outside.status(shop.id, "delivered", spellings[0]).status_code == 200
    assert shop.state == "delivered"


def test_a_whatsapp_message_applies_to_whatsapp() -> None:
    form = {"From": "whatsapp:+447700900123", "Body": "START", "MessageSid": "SM1"}
    [said] = read_inbound(form, stop_words_of(Policy()))
    assert (said.channel, said.kind, said.address) == ("whatsapp", "started", "+447700900123")


def test_an_unreadable_address_names_no_profile(sqlite_house: House) -> None:
    outside = FromProviders(sqlite_house.open(NEWS))
    for address in ("no address", "@", "x" * 10_000, "\x1b[31m", "12345"):
        said = mail_event("spamreport", 1, address)
        assert outside.mail(said).status_code == 200
        assert outside.text(address, "STOP").status_code == 200


@pytest.mark.parametrize(
    ("trait", "spellings"),
    [("email", MAILBOX), *(("phone", spellings) for spellings in HANDSETS)],
)
def test_calls_and_files_that_spell_an_address_differently_are_of_one_customer(
    house: House, tmp_path: Path, trait: str, spellings: list[str]
) -> None:
    with receiving(house.open(NEWS)) as receiver:
        for place, spelling in enumerate(spellings):
            said = {"anonymousId": f"web-{place}", "traits": {trait: spelling}}
            answer = receiver.post("/v1/identify", json=said)
            assert (answer.status_code, answer.json()) == (200, {"success": True})
    file, columns = tmp_path / "people.csv", tmp_path / "map.toml"
    columns.write_text(f'[columns]\n{trait} = "address"\n')
    file.write_text("address\n" + "".join(f"{spelling}\n" for spelling in spellings))
    report = import_file(house.db, file, map_file=columns)
    assert (report.created, report.refused) == (0, 0)
    assert len(addresses(house.db, trait)) == 1


@pytest.mark.parametrize("spelling", [*MAILBOX, " mailto:ann@bücher.example "])
def test_any_spelling_finds_the_profile(sqlite_house: House, spelling: str) -> None:
    shop = AnnsShop(sqlite_house, NEWS, email=normalise_email(MAILBOX[0]))
    with sqlite_house.db.transaction(write=False) as tx:
        assert [row["message"] for row in history_of(tx, spelling)] == [shop.id]


@pytest.mark.parametrize("spelling", ["+541123456789", "+54 9 11 2345-6789", "tel:+541123456789"])
def test_any_form_of_a_number_finds_the_profile(sqlite_house: House, spelling: str) -> None:
    shop = AnnsShop(sqlite_house, NEWS, phone=Phone("+5491123456789", "AR"))
    with sqlite_house.db.transaction(write=False) as tx:
        assert [row["message"] for row in history_of(tx, spelling)] == [shop.id]


def test_other_text_finds_no_profile(sqlite_house: House) -> None:
    with (
        sqlite_house.db.transaction(write=False) as tx,
        pytest.raises(SegueError, match="no customer has the identifier"),
    ):
        history_of(tx, "x" * 100_000)
    assert ("email", "a..b@docomo.ne.jp") in possible_keys("a..b@docomo.ne.jp")


# Addresses with odd dots --------------------------------------------------------------------------


@pytest.mark.parametrize("lenient", [False, True])
def test_the_lenient_dots_setting_applies_to_calls_and_files(
    house: House, tmp_path: Path, lenient: bool
) -> None:
    segue = house.open(NEWS, lenient_email_dots=lenient)
    odd = "a..b@docomo.ne.jp"
    said = {"userId": "u1", "traits": {"email": odd}}
    with receiving(segue) as receiver:
        one = receiver.post("/v1/identify", json=said).json()
        batch = {"batch": [{"type": "identify", **said, "userId": "u2"}]}
        many = receiver.post("/v1/batch", json=batch).json()
    assert ("warnings" in one, "warnings" in many) == (not lenient, True)
    file, columns = tmp_path / "people.csv", tmp_path / "map.toml"
    columns.write_text('[columns]\nuser_id = "id"\nemail = "email"\n')
    file.write_text(f"id,email\nu1,{odd}\n")
    report = import_file(house.db, file, map_file=columns, rules=InputRules(lenient_dots=lenient))
    assert report.taken_in_part == (0 if lenient else 1)
    assert addresses(house.db, "email") == ([odd] if lenient else [])


# Blanks -------------------------------------------------------------------------------------------

BLANKS = ["{}", " {} ", "\t{}\r\n", "\u00a0{}\u3000", "\ufeff{}\u200b", "\u202a{}\u202c"]


@pytest.mark.parametrize("around", BLANKS)
def test_blanks_around_a_time_zone_or_country_are_removed(around: str) -> None:
    zone, country = around.format("Europe/Berlin"), around.format("Germany")
    assert zone_name(zone) == "Europe/Berlin"
    assert country_code(country) == "DE"
    assert zones_for(zone, None, None, "UTC") == zones_for("Europe/Berlin", None, None, "UTC")
    assert zones_for(None, None, None, "UTC", chosen=zone).names == ("Europe/Berlin",)
    traits: dict[str, Any] = {"address": {"country": country}, "timezone": zone}
    call = read_call("identify", {"userId": "u1", "traits": traits})
    assert (call.person.country, call.person.timezone) == ("DE", "Europe/Berlin")
    context = {"timezone": zone, "locale": around.format("de-AT")}
    call = read_call("track", {"userId": "u1", "event": "x", "context": context})
    assert (call.person.timezone, call.person.language) == ("Europe/Berlin", "de-AT")
    assert call.warnings == ()


def test_blanks_around_a_time_zone_or_country_in_a_file_are_removed(
    db: Database, tmp_path: Path
) -> None:
    file, columns = tmp_path / "people.csv", tmp_path / "map.toml"
    columns.write_text('[columns]\nuser_id = "id"\ntimezone = "zone"\ncountry = "land"\n')
    lines = [f"u{n},{text.format('Europe/Berlin')},{text.format('Germany')}"
             for n, text in enumerate(BLANKS) if "\n" not in text]  # fmt: skip
    file.write_text("\n".join(["id,\u00a0zone,land\u200b", *lines]))
    report = import_file(db, file, map_file=columns)
    assert (report.created, report.invalid_zones, report.unknown_countries) == (len(lines), {}, {})
    with db.transaction(write=False) as tx:
        found = tx.conn.execute(select(profiles.c.timezone, profiles.c.country)).all()
    assert set(found) == {("Europe/Berlin", "DE")}


def test_every_unicode_blank_is_removed() -> None:
    spaces = "".join(filter(str.isspace, map(chr, range(sys.maxunicode + 1))))
    assert trimmed(f"{spaces}a b{spaces}") == "a b"
    # zero-width joiners shape letters and emoji
    assert visible("\u200da\u200db\u200d") == "a\u200db"


def test_a_country_of_a_megabyte_is_unknown() -> None:
    assert country_code("Germany" + " " * 1_000_000) is None
