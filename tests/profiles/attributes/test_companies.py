"""Companies: what `group` calls state, and what conditions and templates read of it."""

from typing import Any

import pytest
from sqlalchemy import select

from config.clock.times import DAY, format_instant
from config.database.engine import Database
from journeys.dsl import Email, Exit, Journey, OnEvent, Send, Split, attribute, group, when
from journeys.engine.entry import audience_size
from journeys.operations.merge import merge
from profiles.attributes.companies import CompanyStatement, record_companies
from profiles.calls.record_calls import Outcome, take_calls
from profiles.calls.segment_calls import read_call
from profiles.rules import InputRules, ProfileLimits
from profiles.tables import companies
from tests.support.counting import statements
from tests.support.shop import MONDAY, House

LIMIT = 1000
RULES = InputRules(limits=ProfileLimits(attributes=LIMIT))


def belongs(
    db: Database, user_id: str, company_id: str, at: int = MONDAY, **traits: Any
) -> Outcome:
    said = {"userId": user_id, "groupId": company_id, "timestamp": format_instant(at)}
    with db.transaction() as tx:
        [outcome] = take_calls(tx, [read_call("group", said | {"traits": traits})], merge, RULES)
    return outcome


def stored(db: Database) -> dict[str, Any]:
    with db.transaction(write=False) as tx:
        return {row.id: row.traits for row in tx.conn.execute(select(companies))}


def test_members_share_the_traits_of_their_company(house: House, db: Database) -> None:
    house.open()
    belongs(db, "ann", "g1", plan="free", size=5)
    belongs(db, "bob", "g1", plan="premium", size=None)
    belongs(db, "cid", "g2", plan="free")
    belongs(db, "dan", "g3")
    assert stored(db) == {"g1": {"plan": "premium"}, "g2": {"plan": "free"}}
    with db.transaction(write=False) as tx:
        numbers = [
            audience_size(tx, condition)
            for condition in (
                group("plan") == "premium",
                group("plan") != "premium",
                ~group("plan").exists(),
                group("size").exists(),
                attribute("group_id") == "g1",
                (group("plan") == "free") & (attribute("group_id") == "g2"),
            )
        ]
    assert numbers == [2, 2, 1, 0, 2, 1]


def test_the_latest_statement_of_a_trait_holds(house: House, db: Database) -> None:
    house.open()
    belongs(db, "ann", "g1", MONDAY - DAY, plan="a", name="Acme")
    belongs(db, "bob", "g1", MONDAY - 2 * DAY, plan="old", name=None)
    assert stored(db) == {"g1": {"plan": "a", "name": "Acme"}}
    belongs(db, "bob", "g1", plan=None)
    belongs(db, "ann", "g1", MONDAY - 1, plan="b")
    assert stored(db) == {"g1": {"name": "Acme"}}


def test_a_profile_that_changes_its_company_reads_the_new_one(house: House, db: Database) -> None:
    house.open()
    belongs(db, "ann", "g1", MONDAY - DAY, plan="free")
    belongs(db, "ann", "g2", plan="premium")
    belongs(db, "ann", "g1", MONDAY - 2 * DAY)
    with db.transaction(write=False) as tx:
        assert audience_size(tx, group("plan") == "premium") == 1
        assert audience_size(tx, group("plan") == "free") == 0


def test_traits_without_room_are_left_out_with_a_warning(house: House, db: Database) -> None:
    house.open()
    half = "x" * (LIMIT // 2 + 50)
    assert belongs(db, "ann", "g1", a=half).warnings == []
    # The profile itself has no room either.
    warnings = belongs(db, "bob", "g1", b=half, c=1).warnings
    assert [one for one in warnings if "company" in one] == [
        "the trait 'b' is left out: with it the company would have more than 1000 bytes of traits; "
        "remove others first"
    ]
    assert stored(db)["g1"] == {"a": half, "c": 1}


def test_a_repeated_call_changes_nothing(house: House, db: Database) -> None:
    house.open()
    said = {"userId": "ann", "groupId": "g1", "messageId": "m1"}
    for plan in ("free", "premium"):
        call = read_call("group", said | {"traits": {"plan": plan}})
        with db.transaction() as tx:
            take_calls(tx, [call], merge)
    assert stored(db) == {"g1": {"plan": "free"}}


def test_many_statements_cost_three_statements(db: Database) -> None:
    with db.transaction() as tx:
        said = [
            CompanyStatement(f"g{number % 5}", {"n": number}, MONDAY + number)
            for number in range(50)
        ]
        assert tx.now  # the clock is read by a statement of its own
        with statements(db) as executed:
            assert record_companies(tx, said, LIMIT) == {}
    assert len(executed) == 3
    assert stored(db) == {f"g{one}": {"n": 45 + one} for one in range(5)}
    with db.transaction() as tx, statements(db) as executed:
        record_companies(tx, [], LIMIT)
    assert executed == []


@pytest.mark.parametrize(("plan", "sent"), [("premium", ["sent"]), ("free", [])])
def test_journeys_and_templates_read_the_company(
    house: House, db: Database, plan: str, sent: list[str]
) -> None:
    steps = [
        Split("plan", when(group("plan") == "premium", [Send("offer", Email("offer"))])),
        Exit("done"),
    ]
    entry = OnEvent("came")
    texts = {"offer.email.html": "Subject: For {{ group.name }} ({{ group.id }})\n\n<p>Hello</p>"}
    house.open(Journey("j", entry=entry, topic="news", steps=steps), texts=texts)
    ann = house.customer("ann")
    belongs(db, "ann", "g1")
    belongs(db, "bob", "g1", plan=plan, name="Acme")
    house.did(ann, "came")
    house.run()
    assert [row.state for row in house.outbox()] == sent
    assert [one.text for one in house.providers.accepted] == ["For Acme (g1)"] * len(sent)


def test_without_a_company_nothing_is_printed(house: House) -> None:
    texts = {"offer.email.html": "Subject: For {{ group.name }}\n\n<p>Hello</p>"}
    send = Send("offer", Email("offer"))
    house.open(Journey("j", entry=OnEvent("came"), topic="news", steps=[send]), texts=texts)
    house.did(house.customer("ann"), "came")
    house.run()
    [row] = house.outbox()
    assert (row.state, row.reason) == ("skipped", "missing_data: group.name")
