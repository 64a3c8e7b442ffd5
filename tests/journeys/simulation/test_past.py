"""A replay of a past period: under the same rules the same decisions, under others other ones."""

from typing import Any

import pytest

from channels.feedback.apply import apply
from channels.providers.webhook import Feedback, FeedbackKind
from config.channels import ChannelName
from config.clock.times import DAY, parse_instant
from config.policy import Policy
from journeys.definition.catalog import Catalog
from journeys.dsl import (
    SMS,
    Email,
    Goal,
    OnEvent,
    OnLaunch,
    OnSegment,
    Push,
    Segment,
    Send,
    Wait,
    attribute,
    days,
    did,
)
from journeys.launches.api_start import Starter, start
from journeys.simulation.clock import SimulatedShop
from journeys.simulation.copy import snapshot
from journeys.simulation.results import Results
from journeys.simulation.simulate import Question, prepare, run
from tests.journeys.simulation.test_replay import Decided, decided
from tests.support.shop import House, described

WINDOWS = {"email": {"windows": [{"days": "mon-sun", "from": "12:00", "to": "20:00"}]}}
RULES = {"channels": WINDOWS, "caps": [{"channels": ["email"], "limit": 1, "per": "day"}]}
POLICY = Policy.model_validate(RULES)
LENIENT = Policy.model_validate({**RULES, "caps": []})
SINCE, DAYS = parse_instant("2026-03-04T00:00:00Z"), 4
SEGMENTS = {
    "red": Segment("red", "Red", attribute("colour") == "red"),
    "buyers": Segment("buyers", "They bought", did("bought")),
}
CART = described(
    Send("first", Email("hello")),
    Wait("3d"),
    Send("second", Email("reminder"), SMS("reminder")),
    name="cart",
    entry=OnEvent("came", again=days(1)),
    exit_when=did("bought"),
    goal=Goal(did=did("bought"), within=days(5)),
    priority=60,
)
PROMO = described(Send("offer", Email("offer")), name="promo", entry=OnLaunch(again="always"))
THANKS = described(Send("thanks", Push("hello")), name="thanks", entry=OnSegment("buyers"))
VIP = described(Send("vip", SMS("offer")), name="vip", entry=OnLaunch(again="always"))
RED = {"colour": "red"}
NAMES = ("ann", "bob", "cyd", "dan", "eve")
JOURNEYS = ("cart", "promo", "thanks", "vip")


def at(house: House, moment: str) -> None:
    house.until(f"2026-03-{moment}:00Z")


def answered(
    house: House, person: int, step: str, kind: FeedbackKind, channel: ChannelName = "email"
) -> None:
    [row] = [row for row in house.rows(person) if row.step == step and row.channel == channel]
    named = {"message_id": row.id} if kind != "stopped" else {}
    report = Feedback(
        id=f"{kind} {row.id}",
        source="test",
        channel=channel,
        kind=kind,
        address=row.address,
        suppress="bounced" if kind == "bounced" else None,
        **named,
    )
    with house.db.transaction() as tx:
        apply(tx, [report])
    house.run()


def came(house: House, person: int) -> None:
    house.did(person, "came")
    house.run()


@pytest.fixture
def lived(house: House) -> tuple[House, Decided]:
    """A shop a week after the period, and the decisions in it as they were at its end."""
    house.open(CART, PROMO, THANKS, VIP, policy=POLICY, segments=SEGMENTS)
    ann, bob, cyd, dan, eve = (
        house.customer(name, attributes={"colour": "red"})
        for name in ("ann", "bob", "cyd", "dan", "eve")
    )
    came(house, ann)  # her second mail is on the 5th
    at(house, "04T11:00")
    for person in (bob, cyd):
        came(house, person)
    at(house, "04T14:00")
    answered(house, bob, "first", "opened")
    answered(house, cyd, "first", "unsubscribed")
    at(house, "05T12:30")
    house.launch("promo", "red", launch_id="red on the 5th")
    at(house, "05T13:00")
    answered(house, dan, "offer", "bounced")
    new = house.customer("new", attributes=RED)
    came(house, new)
    at(house, "06T09:00")
    house.did(bob, "bought")
    house.run()
    with house.db.transaction() as tx:
        start(tx, house.segue.catalog, "vip", "by API", [Starter("eve", {"seat": 7})])
    at(house, "06T15:00")
    answered(house, eve, "vip", "stopped", "sms")
    at(house, "07T10:00")
    house.launch("promo", "everyone", launch_id="all on the 7th")
    at(house, "08T00:00")
    with house.db.transaction(write=False) as tx:
        there = decided(tx, SINCE)
    at(house, "10T10:00")
    house.say(cyd, "email", "*", granted=True)
    house.say(ann, "email", "*", granted=False)
    house.launch("promo", "everyone", launch_id="all on the 10th")
    came(house, dan)
    at(house, "14T10:00")
    return house, {key: value for key, value in there.items() if key[3] >= SINCE}


def replayed(
    house: House, policy: Policy = POLICY, *journeys: str, **parts: Any
) -> tuple[Decided, Results]:
    segue = house.segue
    shop = SimulatedShop(catalog=segue.catalog, policy=policy, settings=segue.settings)
    question = Question(
        journeys=journeys or JOURNEYS, audience=None, days=DAYS, since=SINCE, **parts
    )
    with snapshot(house.db) as tx:
        prepared = prepare(tx, shop, question)
    results = run(prepared, shop, question, seed=0)
    with prepared.db.transaction(write=False) as copied:
        here = {key: value for key, value in decided(copied, SINCE).items() if key[3] >= SINCE}
    prepared.db.close()
    return here, results


def test_the_same_rules_decide_as_they_did(lived: tuple[House, Decided]) -> None:
    house, there = lived
    here, results = replayed(house)
    differing = {key for key in there.keys() | here.keys() if there.get(key) != here.get(key)}
    assert not differing, {key: (there.get(key), here.get(key)) for key in differing}
    letters = [value for key, value in there.items() if key[0] == "message"]
    assert {value[4] for value in letters} >= {"capped", "no_consent", "suppressed"}
    assert results.entered == {"cart": 3, "promo": 11, "thanks": 1, "vip": 1}
    assert (results.start, results.end) == (SINCE, SINCE + DAYS * DAY)
    assert results.replayed == (results.sent.total(), 0)
    assert results.answers["cart", "email", "unsubscribed"] == 1


def test_other_rules_decide_differently(lived: tuple[House, Decided]) -> None:
    """Without the cap Ann gets the offer too. She and others answer those messages by rates."""
    house, there = lived
    here, results = replayed(house, LENIENT, given={"opened": 1.0, "unsubscribed": 0.0})
    capped = {key for key, value in there.items() if key[0] == "message" and value[4] == "capped"}
    assert capped
    assert {here[key][3] for key in capped} == {"sent"}
    assert "capped" not in results.not_sent
    assert results.replayed is not None
    _, by_rates = results.replayed
    assert by_rates == len(capped)
    assert results.answers["promo", "email", "opened"] == len(capped)
    assert results.answers["cart", "email", "opened"] == 1, "as Bob did then"


def test_of_one_journey_the_messages_of_the_others_stay(lived: tuple[House, Decided]) -> None:
    house, there = lived
    here, results = replayed(house, POLICY, "promo")
    assert set(results.entered) == {"promo"}
    promo = {key: value for key, value in there.items() if key[2] == "promo"}
    assert {key: value for key, value in here.items() if key[2] == "promo"} == promo
    assert {journey for journey, _, _ in results.by_step} == {"promo"}


def test_a_launch_for_a_segment_that_is_no_more(lived: tuple[House, Decided]) -> None:
    house, _ = lived
    catalog = house.segue.catalog
    house.segue.catalog.segments.pop("red")
    _, results = replayed(house)
    assert isinstance(catalog, Catalog)
    assert results.why["promo"]["launch for red, a segment that is no more"] == 1
    assert results.entered["promo"] == 6
