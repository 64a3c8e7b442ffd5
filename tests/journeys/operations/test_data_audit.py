"""What is collected, how much of it there is, and what reads it."""

from journeys.dsl import (
    Email,
    OnEvent,
    Segment,
    Send,
    Split,
    Wait,
    attribute,
    did,
    everyone,
    prop,
    when,
)
from journeys.operations.data_audit import Datum, DatumUse, audit_data
from profiles.computed.definitions import ComputedTraits, EventTrait
from tests.support.shop import MONDAY, House, described

SPENT = EventTrait(
    name="spent", description="Spent", measure="sum", event="ordered", property="totals.gross"
)
RICH = Segment("rich", "Spent a lot", attribute("ltv") > 200)
TEXT = {
    "hello.email.html": "Subject: Hi {{ profile.first_name }}\n\n<p>{{ event.items[0].name }}</p>"
}


def test_what_is_stored_is_listed_with_its_readers(house: House) -> None:
    split = Split("big?", when(did("ordered", prop("size") == "L"), [Wait("1d")]))
    house.open(
        described(split, Send("s", Email("hello")), entry=OnEvent("left", key="cart_id")),
        texts=TEXT,
        segments={"rich": RICH},
        traits=ComputedTraits([SPENT]),
        personas=[
            Segment("dogs", "Have a dog", attribute("pet") == "dog"),
            Segment("others", "All others", everyone()),
        ],
    )
    ann = house.customer(attributes={"ltv": 1, "pet": "cat", "shoe_size": 42, "first_name": "Ann"})
    house.customer(attributes={"ltv": 2, "pet": None})
    house.did(ann, "ordered", totals={"gross": 5}, size="M", ip="10.0.0.1")
    house.did(ann, "left", MONDAY + 60, cart_id="c1", items=[])
    house.did(ann, "scrolled")
    with house.db.transaction(write=False) as tx:
        found = audit_data(tx, house.segue.catalog)
    assert [(*one.datum, one.number, one.read_by) for one in found] == [
        ("attribute", "first_name", 1, ["template j/hello of email"]),
        ("attribute", "ltv", 2, ["segment rich"]),
        ("attribute", "pet", 1, ["persona dogs"]),
        ("attribute", "shoe_size", 1, []),
        ("event", "left", 1, ["journey j"]),
        ("event", "ordered", 1, ["trait spent", "journey j"]),
        ("event", "scrolled", 1, []),
        ("property", "left.cart_id", 1, ["journey j"]),
        ("property", "left.items", 1, ["template j/hello of email"]),
        ("property", "ordered.ip", 1, []),
        ("property", "ordered.size", 1, ["journey j"]),
        ("property", "ordered.totals", 1, ["trait spent"]),
    ]
    assert found[4] == DatumUse(
        datum=Datum("event", "left"), number=1, newest=MONDAY + 60, read_by=["journey j"]
    )


def test_an_empty_shop_collects_nothing(house: House) -> None:
    house.open()
    with house.db.transaction(write=False) as tx:
        assert audit_data(tx, house.segue.catalog) == []
