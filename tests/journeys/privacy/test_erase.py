"""After an erasure no table leads to the person, and the reports are the same."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Table, select

from channels.feedback.apply import apply
from channels.providers.webhook import Feedback
from config.database.engine import Database
from config.errors import SegueError
from journeys.dsl import SMS, Email, OnLaunch, Push, Send, Wait
from journeys.operations.doctor import diagnose
from journeys.operations.retention import Retention
from journeys.privacy.people import person_named, person_of
from journeys.privacy.registry import PERSONAL
from journeys.privacy.requests import requests_about
from profiles.consent.changes import ConsentChange, change_consent
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import upsert_people
from profiles.tables import events
from tests.support.proof import cases
from tests.support.shop import House, described
from tests.support.worlds.personal import PersonalShop, erase_from, tables_of, traces

# What an erasure changes in reports: enrollments in progress end, planned messages are cancelled.
QUIET_AFTER = "60d"


def a_long_story(db: Database) -> tuple[PersonalShop, int, int]:
    """Two people, of whom one was two profiles, after everything that may happen to them."""
    shop = PersonalShop(db)
    ann, other, bob = (shop.arrive(number) for number in (1, 2, 3))
    shop.marks[other] = shop.marks[ann]
    house = shop.house
    house.launch("trial", launch_id="trial 1")
    for person in (ann, other, bob):
        shop.live(person) if person != other else house.did(other, "answered", score=2)
    house.later("1h")
    for person in (ann, bob):
        shop.hear(person)
        shop.order(person)
    house.later("40d")
    Retention(house.segue.engine, house.segue.settings).apply()
    shop.join(other, ann)
    house.launch("trial", launch_id="trial 2")
    house.later("1h")
    for person in (ann, bob):
        shop.hear(person)
        shop.order(person)
    return shop, ann, bob


def test_nothing_is_left_of_an_erased_person(db: Database) -> None:
    shop, ann, bob = a_long_story(db)
    there = tables_of(db, ann)
    # The story has data in nearly every table.
    assert there >= {"message", "past_message", "passage", "experiment_arm", "event", "merge"}
    assert "identifier.value" in traces(db, "qz1x")
    assert "suppression.address" in traces(db, "qz1x")
    others = tables_of(db, bob), traces(db, "qz3x")
    result = shop.erase(ann)
    for mark in ("qz1x", "qz2x"):
        assert traces(db, mark) == set()
    assert tables_of(db, ann) == set()
    assert tables_of(db, 2) == set()
    assert (tables_of(db, bob), traces(db, "qz3x")) == others
    assert set(result.counts) <= set(PERSONAL)
    assert result.counts["profile"] == 1
    assert result.counts["merge"] == 1
    with db.transaction() as tx:
        assert {one.what for one in diagnose(tx)} <= {"no worker is running"}
        [request] = requests_about(
            tx, shop.house.segue.rules.erased, [("user_id", "qz1x-user"), ("email", "no")]
        )
    assert (request.act, request.asked_by, request.at) == ("erase", "test", shop.house.now)
    assert request.counts == result.counts
    # everything else goes on
    shop.house.later("10d")
    shop.erase(bob)
    assert traces(db, "qz") == set()


def test_reports_are_the_same_before_and_after(db: Database) -> None:
    shop, ann, bob = a_long_story(db)
    shop.house.later(QUIET_AFTER)
    before = shop.reports()
    shop.erase(ann)
    assert shop.reports() == before
    shop.erase(bob)
    assert shop.reports() == before
    # retention removes the rows of nobody as others
    shop.house.later("60d")
    settings = shop.house.segue.settings
    assert Retention(shop.house.segue.engine, settings).apply().messages > 0


def test_a_file_of_sqlite_keeps_no_content_of_deleted_rows(sqlite_url: str) -> None:
    db = Database(sqlite_url)
    shop = PersonalShop(db)
    ann = shop.arrive(1)
    shop.live(ann)
    shop.erase(ann)
    db.close()  # writes the WAL into the file
    content = Path(str(db.engine.url.database)).read_bytes()
    assert b"qz1x" not in content


def test_an_erasure_in_mid_journey(house: House) -> None:
    """Erased while a message is handed over: nothing fails, and late reports are ignored."""
    house.open(
        described(Send("hello", Email("hello")), Wait("1d"), Send("later", Email("offer"))),
    )
    ann = house.customer("ann")
    done: list[int] = []

    def erasing() -> None:
        if not done:
            done.append(house.rows()[0].id)
            erase_from(house, ann)

    house.providers.meanwhile = erasing
    house.launch("j")
    assert [one.to for one in house.providers.accepted] == ["ann@example.com"]
    [message] = house.rows()
    assert (message.state, message.reason) == (
        "unknown",
        "closed as unknown: the customer was erased during the hand-over",
    )
    assert message.profile_id < 0 < done[0] < message.id
    [person] = house.people()
    assert (person.end_reason, person.context) == ("exited: the customer was erased", {})
    before = len(rows_of(house.db, events))
    kinds: tuple[Any, ...] = ("delivered", "opened", "clicked", "bounced", "unsubscribed")
    for kind in kinds:
        for address in ("ann@example.com", None):
            late = Feedback(
                id=f"late {kind}",
                source="sendgrid",
                channel="email",
                kind=kind,
                message_id=done[0],
                address=address,
                suppress="bounced" if kind == "bounced" else None,
            )
            with house.db.transaction() as tx:
                assert apply(tx, [late]) == {"ignored": 1}
    house.later("3d")
    assert len(house.providers.accepted) == 1
    assert len(rows_of(house.db, events)) == before
    assert tables_of(house.db, ann) == set()
    assert traces(house.db, "ann@") == set()


def test_a_refusal_after_the_erasure_leaves_no_trace(house: House) -> None:
    house.open(described(Send("hello", SMS("hello"), Push("hello"))))
    ann = house.customer("ann")
    refused = httpx.Response(400, json={"code": 30005, "message": "unknown"})
    gone = httpx.Response(404, json={"error": {"status": "NOT_FOUND", "details": []}})
    house.providers.answer("sms", refused)
    house.providers.answer("push", gone)
    left = [ann]

    def erasing() -> None:
        if left:
            erase_from(house, left.pop())

    house.providers.meanwhile = erasing
    house.launch("j")
    assert tables_of(house.db, ann) == set()
    assert traces(house.db, "+447700900001") == set()
    assert traces(house.db, "token-ann") == set()


def test_nothing_is_sent_to_an_erased_address_until_a_newer_opt_in(house: House) -> None:
    segue = house.open(described(Send("hello", Email("hello")), entry=OnLaunch(again="always")))
    ann = house.customer("ann")
    house.later("1h")
    erase_from(house, ann)
    erased_at = house.now
    house.later("1h")

    def comes_back(**said: Any) -> int:
        person = Person(user_id="new", email=normalise_email("Ann@example.com"), **said)
        with house.db.transaction() as tx:
            report = upsert_people(tx, [person], "import old.csv", rules=segue.rules)
        [profile_id] = report.profile_ids
        assert profile_id is not None
        return profile_id

    # An old export says yes, without a date: that is no newer opt-in.
    new = comes_back(consent={("email", "*"): True})
    assert new != ann
    assert house.attributes(new) == {}
    house.launch("j", launch_id="1")
    assert [(one.state, one.reason) for one in house.outbox(new)] == [("skipped", "suppressed")]
    for at, sent in ((erased_at - 1, 0), (erased_at, 0), (erased_at + 60, 1)):
        yes = ConsentChange(
            profile_id=new, channel="email", topic="news", granted=True, occurred_at=at
        )
        with house.db.transaction() as tx:
            change_consent(tx, [yes], "form")
        house.launch("j", launch_id=f"at {at}")
        assert len(house.providers.accepted) == sent, at
    # It is not blocked anew when the address is removed and stated again.
    with house.db.transaction() as tx:
        left = Person(user_id="new", removed=frozenset({"email"}))
        upsert_people(tx, [left], "test", rules=segue.rules)
    assert comes_back() == new
    house.launch("j", launch_id="again")
    assert len(house.providers.accepted) == 2
    # Another person who gets the address has not opted in.
    erase_from(house, new)
    other = comes_back()
    house.launch("j", launch_id="other")
    assert [one.reason for one in house.outbox(other)] == ["suppressed"]


def test_a_person_is_found_by_any_spelling_and_by_one_kind(house: House) -> None:
    house.open()
    ann = house.customer("4711")
    with house.db.transaction() as tx:
        [bob] = upsert_people(tx, [Person(anonymous_id="4711")], "test").profile_ids
        for text in (
            "4711@EXAMPLE.com ",
            "+44 7700 900001",
            "user_id:4711",
            "email:4711@example.com",
        ):
            assert person_named(tx, text).profile_id == ann
        assert person_named(tx, "anonymous_id:4711").profile_id == bob
        with pytest.raises(SegueError, match="names 2 customers; write anonymous_id:4711 or user_"):
            person_named(tx, "4711")
        for text in ("nobody", "phone:4711@example.com", "email:", "", "user_id:nobody"):
            with pytest.raises(SegueError, match=r"no customer has|placeholder"):
                person_named(tx, text)
        with pytest.raises(SegueError, match="no customer with the number 99"):
            person_of(tx, 99)


def rows_of(db: Database, table: Table) -> list[Any]:
    with db.transaction(write=False) as tx:
        return list(tx.conn.execute(select(table)))


@pytest.mark.proof
def test_random_lives_leave_nothing_and_change_no_report(db: Database) -> None:
    """People live, are joined and erased in any order."""
    for seed in range(cases(test=2, prove=60)):
        _live_and_erase(db, seed)


def _live_and_erase(db: Database, seed: int) -> None:
    shop = PersonalShop(db, seed)
    random, house = shop.random, shop.house
    first = seed * 100
    people = [shop.arrive(first + number) for number in range(6)]
    erased: list[str] = []
    for step in range(14):
        left = [one for one in people if one in shop.marks]
        who = random.choice(left)
        match random.randrange(7):
            case 0:
                house.launch("trial", launch_id=f"launch {seed} {step}")
            case 1:
                house.did(who, "left_cart", cart_id=f"cart {shop.marks[who]}")
            case 2:
                shop.order(who)
            case 3:
                shop.hear(who)
            case 4:
                house.later(random.choice(["1h", "1d", "33d"]))
            case 5 if len(left) > 2:
                other = random.choice([one for one in left if one != who])
                erased_with = shop.marks[other]
                shop.join(other, who)
                shop.also.setdefault(who, []).extend([erased_with, *shop.also.pop(other, [])])
            case 6 if len(left) > 1:
                erased += [shop.marks.pop(who), *shop.also.pop(who, [])]
                shop.erase(who)
                assert tables_of(db, who) == set(), seed
    for mark in erased:
        assert traces(db, mark) == set(), (seed, mark)
    house.later("40d")
    before = shop.reports()
    for who in [one for one in people if one in shop.marks][:2]:
        shop.erase(who)
        shop.marks.pop(who)
    assert shop.reports() == before, seed
