"""Each profile has the first persona that fits; moves are counted by month."""

from sqlalchemy import select

from config.clock.zones import zone
from journeys.dsl import Email, OnEvent, Segment, Send, attribute, everyone
from journeys.operations.nightly import Nightly
from journeys.operations.personas import (
    PersonaMoves,
    PersonaView,
    assign_personas,
    moves,
    persona_views,
)
from profiles.identity.person import Person
from profiles.identity.upsert import upsert_people
from profiles.tables import profiles
from tests.support.shop import House, described

RICH = Segment("rich", "Spent a lot", attribute("ltv") > 200)
SOME = Segment("some", "Spent something", attribute("ltv") > 0)
REST = Segment("rest", "All others", everyone())
PERSONAS = (RICH, SOME, REST)
UTC = zone("UTC")


def assigned(house: House) -> list[str | None]:
    with house.db.transaction(write=False) as tx:
        return list(tx.conn.execute(select(profiles.c.persona).order_by(profiles.c.id)).scalars())


def spends(house: House, name: str, ltv: int) -> None:
    with house.db.transaction() as tx:
        upsert_people(tx, [Person(user_id=name, attributes={"ltv": ltv})], "test")


def test_everybody_has_the_first_that_fits(house: House) -> None:
    house.open(personas=PERSONAS)
    for ltv in (300, 100, 0):
        house.customer(attributes={"ltv": ltv})
    house.customer()
    assert assign_personas(house.db, PERSONAS, UTC) == 4
    assert assigned(house) == ["rich", "some", "rest", "rest"]
    assert assign_personas(house.db, PERSONAS, UTC) == 0
    with house.db.transaction(write=False) as tx:
        assert moves(tx) == [], "nobody had another one before"
        assert persona_views(tx, PERSONAS) == [
            PersonaView(RICH, 1, []),
            PersonaView(SOME, 1, []),
            PersonaView(REST, 2, []),
        ]


def test_moves_are_counted_by_month_of_the_brand(house: House) -> None:
    house.open(personas=PERSONAS)
    for name in ("ann", "bob", "cyd"):
        house.customer(name)
    assign_personas(house.db, PERSONAS, UTC)
    for name in ("ann", "bob"):
        spends(house, name, 300)
        assign_personas(house.db, PERSONAS, UTC)
    house.later("30d")
    spends(house, "ann", 0)
    assign_personas(house.db, PERSONAS, UTC)
    with house.db.transaction(write=False) as tx:
        assert moves(tx) == [
            PersonaMoves(month="2026-04", from_persona="rich", to_persona="rest", people=1),
            PersonaMoves(month="2026-03", from_persona="rest", to_persona="rich", people=2),
        ]


def test_the_journeys_that_speak_to_a_persona(house: House) -> None:
    twice = described(
        Send("a", Email("hello")), Send("b", Email("hello")), entry=OnEvent("ordered")
    )
    house.open(twice, personas=PERSONAS)
    ann = house.customer(attributes={"ltv": 300})
    house.customer(attributes={"ltv": 300})
    house.did(ann, "ordered")
    house.run()
    Nightly(house.segue.engine).work()
    with house.db.transaction(write=False) as tx:
        assert [one.journeys for one in persona_views(tx, PERSONAS)] == [[("j", 1)], [], []]
    house.later("31d")
    with house.db.transaction(write=False) as tx:
        assert [one.journeys for one in persona_views(tx, PERSONAS)] == [[], [], []]


def test_a_stopped_pass_assigns_nobody(house: House) -> None:
    house.open(personas=PERSONAS)
    house.customer()
    assert assign_personas(house.db, PERSONAS, UTC, lambda: True) == 0
    assert assigned(house) == [None]
