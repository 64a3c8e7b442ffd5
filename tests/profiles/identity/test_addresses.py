"""The life of an address: replaced, removed, moved to another profile, used again."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import literal, select

from channels.messages import messages
from config.clock.times import DAY, Instant, format_instant, parse_instant
from config.database.engine import Database
from journeys.dsl import SMS, Email, Journey, OnLaunch, Push, Send, has_address
from journeys.operations.merge import merge
from profiles.bucketing import identifier_bucket
from profiles.calls.record_calls import Outcome, take_calls
from profiles.calls.segment_calls import read_call
from profiles.conditions.sql import Scope, condition_holds
from profiles.consent.preferences import read_chosen
from profiles.identity.addresses import Suppressed, suppress
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import upsert_people
from profiles.tables import SuppressionState, consents, identifiers, profiles, suppressions
from tests.support.providers.callback_samples import FromProviders, mail_event
from tests.support.providers.feedback_shop import TEXTS, AnnsShop
from tests.support.providers.suppressing import becomes, suppressed
from tests.support.shop import House

NOW: Instant = parse_instant("2026-03-02T10:00:00Z")
OLD, NEW = "old@example.com", "new@example.com"
STATES: tuple[SuppressionState, ...] = ("bounced", "complained")
AGAIN = OnLaunch(again="always")


def take(db: Database, kind: Any, who: str, at: Instant | None = None, **said: Any) -> Outcome:
    call = {"userId": who, "event": "x", "messageId": str(uuid4()), **said}
    if at is not None:
        call["timestamp"] = format_instant(at)
    with db.transaction() as tx:
        [outcome] = take_calls(tx, [read_call(kind, call)], merge)
    assert outcome.refused is None
    return outcome


def identify(db: Database, who: str, at: Instant | None = None, **traits: Any) -> Outcome:
    return take(db, "identify", who, at, traits=traits)


def only(trait: str, value: str | None) -> dict[str, Any]:
    return {trait: value}


def device(db: Database, who: str, token: str, at: Instant | None = None, **more: Any) -> Outcome:
    return take(db, "track", who, at, context={"device": {"token": token, "type": "ios", **more}})


def in_use(db: Database, kind: str) -> dict[str, int]:
    """The addresses that are not retired, and whose they are."""
    c = identifiers.c
    with db.transaction(write=False) as tx:
        found = select(c.value, c.profile_id).where(c.kind == kind, c.retired_at.is_(None))
        return {row.value: row.profile_id for row in tx.conn.execute(found)}


def owner(db: Database, kind: str, value: str) -> int | None:
    c = identifiers.c
    with db.transaction(write=False) as tx:
        found = select(c.profile_id).where(c.kind == kind, c.value == value)
        return tx.conn.execute(found).scalar_one_or_none()


@pytest.fixture
def news(house: House) -> House:
    """A shop that sends a mail, a text or a push at each launch."""
    members = {"mail": Email("hello"), "text": SMS("hello"), "push": Push("hello")}
    house.open(
        *(
            Journey(name, entry=AGAIN, topic="news", steps=[Send("s", member)])
            for name, member in members.items()
        )
    )
    return house


def sent_to(house: House, journey: str) -> list[str]:
    """Whom a launch reaches."""
    before = len(house.providers.accepted)
    house.launch(journey)
    return sorted(one.to for one in house.providers.accepted[before:])


# Replaced -----------------------------------------------------------------------------------------


def test_a_replaced_address_is_never_a_fallback(news: House) -> None:
    """The next mailing after the new address bounced."""
    identify(news.db, "ann", email=OLD)
    identify(news.db, "ann", email=NEW)
    assert sent_to(news, "mail") == [NEW]
    for state in STATES:
        becomes(news.db, "email", NEW, state)
        assert news.launch("mail")["not_sent"] == {"suppressed": 1}
    assert [mail.to for mail in news.providers.accepted] == [NEW]


def test_a_replaced_number_is_never_a_fallback(news: House) -> None:
    ann = news.customer("ann")
    identify(news.db, "ann", phone="+447700900777")
    assert sent_to(news, "text") == ["+447700900777"]
    becomes(news.db, "sms", "+447700900777", "unregistered")
    assert news.launch("text")["not_sent"] == {"suppressed": 1}
    with news.db.transaction(write=False) as tx:
        chosen = read_chosen(tx, ann)
        sqlite = tx.conn.dialect.name == "sqlite"
        condition = condition_holds(
            has_address("sms"), Scope(sqlite=sqlite, profile_id=literal(ann))
        )
        assert not tx.conn.execute(select(condition)).scalar_one()
    assert chosen is not None
    assert "sms" not in chosen.addresses


def test_a_planned_message_is_sent_to_the_address_in_use_then(house: House) -> None:
    later = Send("s", Email("hello", after="1h"))
    house.open(Journey("mail", entry=OnLaunch(), topic="news", steps=[later]))
    house.customer("ann")
    house.launch("mail")
    identify(house.db, "ann", email=NEW)
    house.later("2h")
    house.run()
    assert [mail.to for mail in house.providers.accepted] == [NEW]


@pytest.mark.parametrize(
    ("kind", "trait", "value", "other"),
    [("email", "email", OLD, NEW), ("phone", "phone", "+447700900001", "+447700900002")],
)
def test_an_address_that_is_stated_again_is_in_use_again(
    db: Database, kind: str, trait: str, value: str, other: str
) -> None:
    db.now = NOW
    for said in (value, other):
        identify(db, "ann", **only(trait, said))
    assert set(in_use(db, kind)) == {other}
    db.now = NOW + 1
    # what was said before it was replaced does not count
    identify(db, "ann", NOW - 5, **only(trait, value))
    assert set(in_use(db, kind)) == {other}
    # nor does a row without a date
    row = only("email", normalise_email(value)) if kind == "email" else {}
    with db.transaction() as tx:
        upsert_people(tx, [Person(user_id="ann", **row)], "import")
    assert set(in_use(db, kind)) == {other}
    identify(db, "ann", **only(trait, value))
    assert set(in_use(db, kind)) == {value}


def test_a_retired_address_is_free_for_another_customer(news: House) -> None:
    for said in (OLD, NEW):
        identify(news.db, "ann", email=said)
    outcome = identify(news.db, "bob", email=OLD)
    assert outcome.warnings == []
    ann, bob = owner(news.db, "user_id", "ann"), owner(news.db, "user_id", "bob")
    assert in_use(news.db, "email") == {NEW: ann, OLD: bob}
    assert sent_to(news, "mail") == [NEW, OLD]
    # it is Bob's now
    assert identify(news.db, "ann", email=OLD).warnings == [
        "traits.email is left out: it belongs to another customer"
    ]
    assert in_use(news.db, "email") == {NEW: ann, OLD: bob}


def test_a_suppressed_address_stays_so_when_another_customer_takes_it(news: House) -> None:
    identify(news.db, "ann", email=OLD)
    becomes(news.db, "email", OLD, "bounced")
    identify(news.db, "ann", email=NEW)
    identify(news.db, "bob", email=OLD)
    assert sent_to(news, "mail") == [NEW]


@pytest.mark.parametrize("known_before", [True, False])
def test_rows_of_one_file_free_an_address_as_calls_do(db: Database, known_before: bool) -> None:
    db.now = NOW
    old, new = normalise_email(OLD), normalise_email(NEW)
    people = [
        Person(user_id="ann", email=old),
        Person(user_id="ann", email=new),
        Person(user_id="bob", email=old),
        Person(user_id="cyd", email=new),
    ]
    if known_before:
        identify(db, "ann", NOW - DAY, email=OLD)
        becomes(db, "email", OLD, "bounced")
        people = [person._replace(seen_at=NOW) for person in people]
    with db.transaction() as tx:
        report = upsert_people(tx, people, "import")
    assert list(report.refused) == [3]
    ann, _, bob, _ = report.profile_ids
    assert in_use(db, "email") == {NEW: ann, OLD: bob}
    assert suppressed(db) == ({("email", OLD): "bounced"} if known_before else {})


def test_a_retired_address_still_names_its_last_profile(db: Database) -> None:
    """An old list does not make a second customer who is written to at the old address."""
    db.now = NOW
    for said in (OLD, NEW):
        identify(db, "ann", email=said)
    row = Person(email=normalise_email(OLD), attributes={"plan": "gold"})
    with db.transaction() as tx:
        report = upsert_people(tx, [row], "import list.csv")
    assert report.profile_ids == [owner(db, "user_id", "ann")]
    assert set(in_use(db, "email")) == {NEW}
    with db.transaction() as tx:
        again = upsert_people(tx, [row], "import list.csv")
    assert again.unchanged == 1


def test_an_old_statement_does_not_move_an_address(db: Database) -> None:
    db.now = NOW
    for said in (OLD, NEW):
        identify(db, "ann", email=said)
    identify(db, "bob", email="bob@example.com")
    identify(db, "bob", NOW - DAY, email=OLD)
    assert owner(db, "email", OLD) == owner(db, "user_id", "ann")
    assert set(in_use(db, "email")) == {NEW, "bob@example.com"}


# What is heard from a retired address -------------------------------------------------------------


def test_a_stop_from_a_retired_number_applies(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    identify(house.db, "ann", phone="+447700900777")
    shop.says("STOP")
    assert shop.consent("sms") is False


def test_a_stop_from_a_number_that_moved_applies_to_its_new_profile(house: House) -> None:
    shop = AnnsShop(house, TEXTS)
    identify(house.db, "ann", phone="+447700900777")
    identify(house.db, "bob", phone=shop.phone)
    shop.says("STOP")
    assert shop.consent("sms") is True
    bob = owner(house.db, "user_id", "bob")
    with house.db.transaction(write=False) as tx:
        said = tx.conn.execute(select(consents).where(consents.c.profile_id == bob)).one()
    assert (said.channel, said.topic, said.granted) == ("sms", "*", False)


@pytest.mark.parametrize("name", ["unsubscribe", "spamreport"])
def test_a_no_from_a_retired_e_mail_address_applies(news: House, name: str) -> None:
    ann = news.customer("ann", email=normalise_email(OLD))
    news.launch("mail")
    identify(news.db, "ann", email=NEW)
    [row] = news.rows()
    said = mail_event(name, row.id, OLD)
    assert FromProviders(news.segue).mail(said).status_code == 200
    with news.db.transaction(write=False) as tx:
        found = select(consents.c.granted).where(
            consents.c.profile_id == ann, consents.c.channel == "email", consents.c.topic == "*"
        )
        granted = tx.conn.execute(found).scalar_one()
    state = suppressed(news.db).get(("email", OLD))
    assert (granted, state) in {(False, None), (True, "complained")}
    assert (name == "unsubscribe") == (granted is False)


def test_a_bounce_of_a_retired_address_suppresses_it(news: House) -> None:
    news.customer("ann", email=normalise_email(OLD))
    news.launch("mail")
    identify(news.db, "ann", email=NEW)
    [row] = news.rows()
    assert FromProviders(news.segue).mail(mail_event("bounce", row.id, OLD)).status_code == 200
    assert news.rows()[0].state == "failed"
    identify(news.db, "ann", email=OLD)
    assert news.launch("mail")["not_sent"] == {"suppressed": 1}


# Taken away ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("journey", "trait"), [("mail", "email"), ("text", "phone")], ids=["email", "phone"]
)
def test_null_removes_an_address(news: House, journey: str, trait: str) -> None:
    news.customer("ann")
    identify(news.db, "ann", **only(trait, None))
    assert news.launch(journey)["not_sent"] == {"no_address": 1}
    assert in_use(news.db, trait) == {}
    # a call from before that arrives now does not bring it back
    identify(
        news.db, "ann", news.now - 60, **only(trait, OLD if trait == "email" else "+447700900009")
    )
    assert in_use(news.db, trait) == {}


def test_null_removes_country_time_zone_and_language(db: Database) -> None:
    """The context does not restore them, because a trait overrides the context."""
    db.now = NOW
    said: dict[str, Any] = {"country": "GB", "timezone": "Europe/London", "language": "en"}
    identify(db, "ann", **said)
    context = {"timezone": "Europe/Paris", "locale": "fr"}
    assert take(db, "identify", "ann", traits=dict.fromkeys(said), context=context).warnings == []
    identify(db, "bob", address={"country": "GB"})
    identify(db, "bob", address={"country": None})
    columns = (profiles.c.country, profiles.c.timezone, profiles.c.language)
    with db.transaction(write=False) as tx:
        rows = [tuple(row) for row in tx.conn.execute(select(*columns))]
    assert rows == [(None, None, None)] * 2


def test_one_device_is_signed_out_and_the_others_stay(news: House) -> None:
    for token in ("phone", "tablet"):
        device(news.db, "ann", token)
    device(news.db, "ann", "tablet", removed=True)
    assert set(in_use(news.db, "push_token")) == {"phone"}
    assert sent_to(news, "push") == ["phone"]
    # an event from before, sent late, does not sign it in again; one from after does
    device(news.db, "ann", "tablet", news.now - 60)
    assert set(in_use(news.db, "push_token")) == {"phone"}
    news.later("1m")
    device(news.db, "ann", "tablet")
    assert set(in_use(news.db, "push_token")) == {"phone", "tablet"}


def test_an_unknown_device_can_be_signed_out(db: Database) -> None:
    db.now = NOW
    assert device(db, "ann", "phone", removed=True).warnings == []
    device(db, "ann", "phone", NOW - 60)
    assert in_use(db, "push_token") == {}


def test_only_the_owner_of_a_device_signs_it_out(db: Database) -> None:
    db.now = NOW
    device(db, "ann", "phone")
    outcome = device(db, "bob", "phone", removed=True)
    assert outcome.warnings == ["context.device.token is not removed: another customer has it"]
    assert in_use(db, "push_token") == {"phone": owner(db, "user_id", "ann")}


def test_a_device_that_is_signed_out_is_free_for_another_customer(news: House) -> None:
    device(news.db, "ann", "phone")
    device(news.db, "ann", "phone", removed=True)
    assert device(news.db, "bob", "phone").warnings == []
    assert in_use(news.db, "push_token") == {"phone": owner(news.db, "user_id", "bob")}


def test_all_devices_signed_out_leave_no_address(news: House) -> None:
    news.customer("ann")
    device(news.db, "ann", "token-ann", removed=True)
    assert news.launch("push")["not_sent"] == {"no_address": 1}


# A second customer on a device --------------------------------------------------------------------


def test_a_second_customer_signs_in_without_reset(news: House) -> None:
    """The push token moves with the device, and nothing else."""
    context = {"device": {"token": "phone", "type": "ios"}}
    take(news.db, "identify", "ann", anonymousId="a1", context=context)
    outcome = take(
        news.db,
        "identify",
        "bob",
        anonymousId="a1",
        traits={"email": "bob@example.com", "plan": "gold"},
        context=context,
    )
    assert outcome.warnings == ["anonymousId is left out: it belongs to another customer"]
    ann, bob = owner(news.db, "user_id", "ann"), owner(news.db, "user_id", "bob")
    assert ann != bob
    assert owner(news.db, "anonymous_id", "a1") == ann
    assert in_use(news.db, "email") == {"bob@example.com": bob}
    assert in_use(news.db, "push_token") == {"phone": bob}
    assert bob is not None
    assert news.attributes(bob) == {"plan": "gold"}


def test_the_messages_of_others_are_untouched(news: House) -> None:
    """An address that changes hands takes no message with it."""
    ann = news.customer("ann", email=normalise_email(OLD))
    news.launch("mail")
    identify(news.db, "ann", email=NEW)
    identify(news.db, "bob", email=OLD)
    with news.db.transaction(write=False) as tx:
        assert tx.conn.execute(select(messages.c.profile_id)).scalars().all() == [ann]


def test_a_free_address_stated_by_two_concurrent_calls_has_one_owner(db: Database) -> None:
    db.now = NOW
    for said in (OLD, NEW):
        identify(db, "ann", email=said)
    start = Barrier(4)

    def take_it(who: str) -> list[str]:
        start.wait()
        return identify(db, who, email=OLD).warnings

    people = ["bob", "cyd", "dan", "eve"]
    with ThreadPoolExecutor(4) as pool:
        warnings = list(pool.map(take_it, people))
    assert sorted(map(len, warnings)) == [0, 1, 1, 1]
    lucky = people[warnings.index([])]
    assert owner(db, "email", OLD) == owner(db, "user_id", lucky)
    assert set(in_use(db, "email")) == {OLD, NEW}


# Suppressed ---------------------------------------------------------------------------------------


def test_a_suppression_stays_when_an_address_changes_its_profile(news: House) -> None:
    """Even if no profile had the address when it bounced."""
    becomes(news.db, "email", NEW, "bounced")
    identify(news.db, "ann", email=NEW)
    assert news.launch("mail")["not_sent"] == {"suppressed": 1}


def test_a_suppression_applies_to_one_channel(news: House) -> None:
    identify(news.db, "ann", email=NEW)
    row = {"address": NEW, "channel": "letters", "bucket": identifier_bucket("email", NEW)}
    with news.db.transaction() as tx:
        tx.conn.execute(suppressions.insert().values(**row, state="bounced"))
    assert sent_to(news, "mail") == [NEW]


def test_a_complaint_stays_when_the_address_bounces_later(db: Database) -> None:
    states: tuple[SuppressionState, ...] = ("bounced", "complained", "bounced")
    for state in states:
        with db.transaction() as tx:
            suppress(tx, [Suppressed("email", NEW, state)])
    assert suppressed(db) == {("email", NEW): "complained"}
