"""The identifier by which each event, attribute and statement of consent named its profile, and the
address of each message.
"""

from typing import Any

from sqlalchemy import select

from channels.messages import messages
from config.database.engine import Database
from config.policy import Policy
from journeys.dsl import SMS, Email, OnLaunch, Push, Send, Update
from profiles.consent.statements import read_statement, take_statements
from profiles.events import PROFILE_CHANGED
from profiles.identity.person import Person, normalise_email
from profiles.identity.upsert import upsert_people
from profiles.tables import consent_records, events, profiles
from tests.profiles.calls.test_record_calls import identify, take, track
from tests.support.shop import MONDAY, House, described

PLAN, SIZE = "attributes.plan", "attributes.size"


def of_events(db: Database) -> list[tuple[str, str | None, str | None]]:
    c = events.c
    with db.transaction(write=False) as tx:
        found = select(c.name, c.identifier_kind, c.identifier_value).order_by(c.id)
        return [(row[0], row[1], row[2]) for row in tx.conn.execute(found)]


def of_consent(db: Database) -> list[tuple[str | None, str | None]]:
    c = consent_records.c
    with db.transaction(write=False) as tx:
        found = select(c.identifier_kind, c.identifier_value).order_by(c.id)
        return [(row[0], row[1]) for row in tx.conn.execute(found)]


def of_attributes(db: Database) -> Any:
    with db.transaction(write=False) as tx:
        return tx.conn.execute(select(profiles.c.attribute_identifiers)).scalar_one()


def test_an_event_records_the_best_identifier_of_its_profile(db: Database) -> None:
    page = {"event": "page_viewed", "messageId": "1", "anonymousId": "web"}
    take(db, ("track", page), track("ann", messageId="2", anonymousId="web"))
    take(db, track("ann", messageId="3", event="bought", context={"traits": {"plan": "gold"}}))
    assert of_events(db) == [
        ("page_viewed", "anonymous_id", "web"),
        ("x", "user_id", "ann"),
        ("bought", "user_id", "ann"),
        (PROFILE_CHANGED, "user_id", "ann"),
    ]


def test_an_attribute_records_the_identifier_of_its_profile(db: Database) -> None:
    web = {"anonymousId": "web", "traits": {"plan": "basic", "size": 1}}
    take(db, ("identify", web))
    assert of_attributes(db) == [["anonymous_id", "web", [PLAN, SIZE]]]
    take(db, identify("ann", anonymousId="web", traits={"plan": "gold"}, messageId="2"))
    assert of_attributes(db) == [["anonymous_id", "web", [SIZE]], ["user_id", "ann", [PLAN]]]


def test_imported_rows_record_the_identifier_and_repeat_without_change(db: Database) -> None:
    db.now = MONDAY
    ann = Person(email=normalise_email("ann@example.com"), attributes={"plan": "gold"})
    for updated in (0, 0):
        with db.transaction() as tx:
            assert upsert_people(tx, [ann], "import").updated == updated
        assert of_attributes(db) == [["email", "ann@example.com", [PLAN]]]
    for _ in range(2):
        same = Person(user_id="ann", email=ann.email, attributes={"plan": "gold"})
        with db.transaction() as tx:
            upsert_people(tx, [same], "import")
    assert of_attributes(db) == [["email", "ann@example.com", [PLAN]]]


def test_attributes_set_by_a_journey_have_no_identifier(house: House) -> None:
    house.open(described(Update("mark", plan="welcomed"), entry=OnLaunch()))
    house.customer("ann", attributes={"plan": "basic", "size": 1})
    assert of_attributes(house.db) == [["user_id", "ann", [PLAN, SIZE, "timezone"]]]
    house.launch("j")
    assert of_attributes(house.db) == [["user_id", "ann", [SIZE, "timezone"]]]


def test_consent_records_the_identifier_of_its_profile(db: Database) -> None:
    db.now = MONDAY
    person = Person(user_id="ann", consent={("email", "*"): True})
    with db.transaction() as tx:
        upsert_people(tx, [person], "import")
    no = {"email": "bob@example.com", "channel": "email", "granted": False, "source": "form"}
    with db.transaction() as tx:
        take_statements(tx, {0: read_statement(no, Policy())}, {})
    assert of_consent(db) == [("user_id", "ann"), ("email", "bob@example.com")]


def test_a_message_keeps_the_address_that_it_went_to(house: House) -> None:
    steps = [Send("hello", Email("hello"), SMS("hello"), Push("hello"))]
    house.open(described(*steps, entry=OnLaunch()))
    house.customer("ann")
    house.customer("bob", consent={("sms", "*"): False})
    house.launch("j")
    with house.db.transaction(write=False) as tx:
        found = select(messages.c.channel, messages.c.address).order_by(messages.c.id)
        went = [(row.channel, row.address) for row in tx.conn.execute(found)]
    assert went == [
        ("email", "ann@example.com"),
        ("sms", "+447700900001"),
        ("push", None),  # its devices have rows
        ("email", "bob@example.com"),
        ("sms", None),  # it never went
        ("push", None),
    ]
