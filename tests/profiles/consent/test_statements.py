"""`POST /v1/consent`: statements of consent with their evidence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from config.clock.times import DAY, HOUR, format_instant
from config.policy import Policy
from flows.http.ingest.consent import BODY_LIMIT
from profiles.identity.person import normalise_email
from profiles.tables import consent_records, consents, events, identifiers
from tests.support.http.receiving import Receiving, problem, receiving
from tests.support.shop import MONDAY, House

POLICY = Policy.model_validate({"topics": {"news": "News", "offers": "Offers"}})
PROOF = {"form": "footer", "ip": "203.0.113.7", "fields": [1, None, {"tick": True}]}


@pytest.fixture
def api(house: House) -> Iterator[Receiving]:
    house.open(policy=POLICY)
    with receiving(house.segue) as receiver:
        yield receiver


def yes(**said: Any) -> dict[str, Any]:
    return {
        **{"userId": "ann", "channel": "email", "topic": "news", "granted": True},
        **{"source": "footer form", "wording": "Send me news", "evidence": PROOF},
        **{"timestamp": format_instant(MONDAY - HOUR), "messageId": "m1"},
        **said,
    }


def no(**said: Any) -> dict[str, Any]:
    return {"userId": "ann", "channel": "email", "granted": False, "source": "call centre", **said}


def rows(house: House, table: Any, **where: Any) -> list[Any]:
    found = select(table).order_by(*table.primary_key)
    for name, value in where.items():
        found = found.where(table.c[name] == value)
    with house.db.transaction(write=False) as tx:
        return list(tx.conn.execute(found))


def said(house: House, profile_id: int) -> dict[tuple[str, str], bool]:
    found = rows(house, consents, profile_id=profile_id)
    return {(row.channel, row.topic): row.granted for row in found}


def test_a_yes_is_recorded_with_its_proof(house: House, api: Receiving) -> None:
    ann = house.customer("ann", consent={})
    answer = api.post("/v1/consent", json=yes())
    assert (answer.status_code, answer.json()) == (200, {"success": True, "results": ["recorded"]})
    assert said(house, ann) == {("email", "news"): True}
    [record] = rows(house, consent_records)
    assert (record.channel, record.topic, record.granted) == ("email", "news", True)
    assert (record.occurred_at, record.recorded_at) == (MONDAY - HOUR, MONDAY)
    assert (record.source, record.wording) == ("footer form", "Send me news")
    assert record.evidence == PROOF
    assert [row.name for row in rows(house, events)] == ["profile_changed"]
    assert rows(house, events)[0].worked_at is None
    assert api.told == 1


def test_a_no_needs_no_proof_and_ends_the_yes_of_each_topic(house: House, api: Receiving) -> None:
    ann = house.customer("ann", consent={("email", "*"): True, ("email", "news"): True})
    house.db.now = MONDAY + 1
    assert api.post("/v1/consent", json=no()).json()["results"] == ["recorded"]
    assert said(house, ann) == {("email", "*"): False, ("email", "news"): False}


@pytest.mark.parametrize(
    "named",
    [
        {"userId": "ann"},
        {"anonymousId": "browser"},
        {"email": " Ann@Example.com "},
        {"phone": "+44 7700 900001"},
        {"userId": "ann", "email": "ann@example.com"},
        {"userId": "ann", "email": "another@example.com"},
    ],
)
def test_a_person_is_named_by_any_identifier(
    house: House, api: Receiving, named: dict[str, str]
) -> None:
    ann = house.customer("ann", anonymous_id="browser", consent={})
    before = rows(house, identifiers)
    assert api.post("/v1/consent", json=yes(userId=None) | named).status_code == 200
    assert said(house, ann) == {("email", "news"): True}
    assert rows(house, identifiers) == before


def test_a_statement_about_an_unknown_customer_creates_a_profile(
    house: House, api: Receiving
) -> None:
    assert api.post("/v1/consent", json=yes(email="new@example.com")).status_code == 200
    user, mail = sorted(rows(house, identifiers), key=lambda row: row.kind, reverse=True)
    assert (user.value, mail.value) == ("ann", "new@example.com")
    assert said(house, user.profile_id) == {("email", "news"): True}
    assert user.profile_id == mail.profile_id


def test_a_replaced_address_keeps_consent_of_its_old_and_new_profile_apart(
    house: House, api: Receiving
) -> None:
    ann = house.customer("ann", consent={})
    house.db.now = MONDAY + 1
    traits = {"userId": "ann", "traits": {"email": "new@example.com"}}
    assert api.post("/v1/identify", json=traits).status_code == 200
    old = {"userId": None, "email": "ann@example.com"}
    assert api.post("/v1/consent", json=no(topic="news") | old).status_code == 200
    assert said(house, ann) == {("email", "news"): False}
    assert api.post("/v1/consent", json=yes(topic="offers") | old).status_code == 200
    assert said(house, ann) == {("email", "news"): False}
    [owner] = [row for row in rows(house, identifiers) if row.value == "ann@example.com"]
    assert owner.profile_id != ann
    assert said(house, owner.profile_id) == {("email", "offers"): True}


def test_the_same_message_id_changes_nothing(house: House, api: Receiving) -> None:
    ann = house.customer("ann", consent={})
    api.post("/v1/consent", json=yes())
    house.say(ann, "email", "news", granted=False)
    before = rows(house, consent_records), rows(house, events)
    assert api.post("/v1/consent", json=yes()).json()["results"] == ["again"]
    twice = {"consents": [yes(messageId="m2"), yes(messageId="m2")]}
    assert api.post("/v1/consent", json=twice).json()["results"] == ["overruled", "again"]
    assert (rows(house, consent_records), rows(house, events)[: len(before[1])]) == before


def test_without_a_message_id_equal_statements_are_recorded_twice(
    house: House, api: Receiving
) -> None:
    ann = house.customer("ann", consent={})
    for granted in (False, True, False):
        house.db.now = house.now + 1
        body = yes(messageId=None, timestamp=None) if granted else no(topic="news")
        assert api.post("/v1/consent", json=body).json()["results"] == ["recorded"]
        assert said(house, ann) == {("email", "news"): granted}


def test_new_proof_of_the_same_yes_is_kept(house: House, api: Receiving) -> None:
    ann = house.customer("ann", consent={("email", "news"): True})
    api.post("/v1/consent", json=yes(timestamp=None))
    *_, record = rows(house, consent_records)
    assert (record.granted, record.wording, record.evidence) == (True, "Send me news", PROOF)
    assert said(house, ann)["email", "news"] is True


def test_the_later_of_two_statements_in_one_call_applies(house: House, api: Receiving) -> None:
    ann = house.customer("ann", consent={})
    later = no(topic="news", timestamp=format_instant(MONDAY - 60))
    answer = api.post("/v1/consent", json={"consents": [later, yes()]})
    assert answer.json()["results"] == ["recorded", "recorded"]
    assert said(house, ann) == {("email", "news"): False}
    assert [row.granted for row in rows(house, consent_records)] == [True, False]


def test_an_older_yes_does_not_outweigh_a_later_no(house: House, api: Receiving) -> None:
    ann = house.customer("ann", consent={})
    house.say(ann, "email", "news", granted=False)
    assert api.post("/v1/consent", json=yes()).json()["results"] == ["overruled"]
    assert said(house, ann) == {("email", "news"): False}


def test_a_yes_with_a_future_time_does_not_undo_a_stop(house: House, api: Receiving) -> None:
    ann = house.customer("ann", consent={})
    house.say(ann, "sms", "*", granted=False)
    future = yes(channel="sms", topic="*", timestamp=format_instant(MONDAY + DAY))
    assert api.post("/v1/consent", json=future).json()["results"] == ["overruled"]
    assert said(house, ann) == {("sms", "*"): False}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (
            {"channel": "fax"},
            "channel",
            "there is no channel 'fax'; the channels are email, sms, push",
        ),
        ({"channel": None}, "channel", "valid string"),
        ({"topic": "newz"}, "topic", "the topics are *, news, offers"),
        ({"granted": "yes"}, "granted", "valid boolean"),
        ({"granted": None}, "granted", "valid boolean"),
        ({"source": ""}, "source", "at least 1 character"),
        ({"source": "s" * 201}, "source", "at most 200"),
        ({"wording": None}, "wording", "the text that was shown"),
        ({"wording": ""}, "wording", "the text that was shown"),
        ({"wording": "w" * 4001}, "wording", "at most 4000"),
        ({"evidence": None}, "evidence", "a yes needs its proof"),
        ({"evidence": "e" * 4100}, "evidence", "larger than 4096 bytes"),
        ({"timestamp": "yesterday"}, "timestamp", "is not a date and time"),
        ({"timestamp": "2026-03-02T10:00:00"}, "timestamp", "has no time zone"),
        ({"userId": None}, "userId", "give userId, anonymousId, email or phone"),
        ({"userId": ["u"]}, "userId", "write it as text"),
        ({"email": "none"}, "email", "is not an e-mail address"),
        ({"phone": "12345"}, "phone", "not a possible phone number"),
        ({"grantd": True}, "grantd", "not permitted"),
        ({"email": "bob@example.com"}, None, "belong to different customers"),
    ],
)
def test_an_invalid_statement_is_refused_as_a_whole(
    house: House, api: Receiving, change: dict[str, Any], field: str | None, words: str
) -> None:
    house.customer("ann", consent={})
    house.customer("bob", consent={})
    answer = problem(api.post("/v1/consent", json=yes() | change), 400, "invalid")
    assert answer.get("field") == field
    assert words in answer["message"]
    assert rows(house, consents) == []
    several = {"consents": [yes() | change, yes(userId="bob", messageId="m2")]}
    answer = problem(api.post("/v1/consent", json=several), 400, "invalid")
    assert answer["field"] == ".".join(filter(None, ["consents.0", field]))
    assert answer["accepted"] == 1
    assert len(rows(house, consents)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic": "newz"},
        {"granted": "false"},
        {"source": None},
        {"timestamp": "yesterday"},
        {"evidence": "e" * 5000},
        {"phone": "12345"},
        {"email": "no address"},
        {"email": "bob@example.com"},
        {"userId": ["u"], "email": "ann@example.com"},
        {"colour": "red"},
        {"messageId": {}},
    ],
)
def test_a_no_is_recorded_despite_other_errors(
    house: House, api: Receiving, wrong: dict[str, Any]
) -> None:
    ann = house.customer("ann", consent={})
    house.customer("bob", consent={})
    topic = wrong.get("topic", "*")
    answer = problem(api.post("/v1/consent", json=no() | wrong), 400, "invalid")
    assert answer["message"].endswith("is recorded nevertheless")
    assert said(house, ann) == {("email", topic): False}
    assert len(rows(house, consents)) == 1


def test_only_the_write_key_is_accepted(house: House, api: Receiving) -> None:
    for auth in (("wrong", ""), ("", "write-key-for-the-sandbox-only")):
        problem(api.post("/v1/consent", json=yes(), auth=auth), 401, "not_signed_in")
    problem(api.client.post("/v1/consent", json=yes()), 401, "not_signed_in")
    assert rows(house, consents) == []


def test_bodies_have_limits(house: House, api: Receiving) -> None:
    problem(api.post("/v1/consent", content=b" " * (BODY_LIMIT + 1)), 413, "too_large")
    many = {"consents": [no(messageId=f"m{number}") for number in range(1001)]}
    problem(api.post("/v1/consent", json=many), 413, "too_large")
    problem(api.post("/v1/consent", json={"consents": {}}), 400, "invalid")
    problem(api.post("/v1/consent", json=[yes()]), 400, "invalid")
    assert api.post("/v1/consent", json={"consents": []}).json()["results"] == []
    answer = problem(api.post("/v1/consent", json={"consents": [1] * 150}), 400, "invalid")
    assert (len(answer["errors"]), answer["more_errors"], answer["accepted"]) == (100, 50, 0)


def test_many_people_in_one_call(house: House, api: Receiving) -> None:
    many = [yes(userId=f"u{number}", messageId=f"m{number}") for number in range(300)]
    answer = api.post("/v1/consent", json={"consents": many})
    assert answer.json()["results"] == ["recorded"] * 300
    assert len(rows(house, consents)) == 300


def test_the_example_in_the_docs_is_taken(house: House, api: Receiving) -> None:
    house.open(policy=Policy.model_validate({"topics": {"promotions": "Offers"}}))
    ann = house.customer("u-1042", email=normalise_email("ann@example.com"), consent={})
    page = (Path(__file__).parents[3] / "docs" / "reference" / "http.md").read_text(
        encoding="utf-8"
    )
    section = page[page.index("## Record consent") :]
    body = section[section.index("```json") + 7 : section.index("```\n\n| Field")]
    with receiving(house.segue) as receiver:
        answer = receiver.post("/v1/consent", content=body)
    assert answer.json() == {"success": True, "results": ["recorded", "recorded"]}
    assert said(house, ann) == {("email", "promotions"): True, ("sms", "*"): False}
