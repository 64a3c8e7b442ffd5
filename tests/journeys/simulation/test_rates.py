"""Rates of answers, learnt from the shop's own messages."""

import pytest

from channels.feedback.apply import apply
from channels.providers.webhook import Feedback, FeedbackKind
from config.clock.times import DAY
from journeys.dsl import Email, Goal, OnLaunch, Segment, Send, attribute, days, did
from journeys.simulation.rates import AnswerRates, Delay, Rate, learn_rates
from tests.support.shop import House, described

NAMES = ("few", "many")


@pytest.fixture
def learnt(house: House, monkeypatch: pytest.MonkeyPatch) -> AnswerRates:
    """Ten people of one segment open nothing; of ten others four open, two click, one buys."""
    monkeypatch.setattr("journeys.simulation.rates.ENOUGH", 10)
    journey = described(
        Send("s", Email("hello")),
        entry=OnLaunch(again="always"),
        goal=Goal(did=did("bought"), within=days(3)),
    )
    segments = {name: Segment(name, name, attribute("segment") == name) for name in NAMES}
    house.open(journey, segments=segments)
    people = {
        name: [house.customer(attributes={"segment": name}) for _ in range(10)] for name in NAMES
    }
    for name in NAMES:
        house.launch("j", audience=name)
    house.later("1h")
    rows = {row.profile_id: row for row in house.rows()}
    answers: dict[FeedbackKind, int] = {"opened": 4, "clicked": 2, "unsubscribed": 1}
    reports = [
        Feedback(
            id=f"{kind} {one}", source="t", channel="email", kind=kind, message_id=rows[one].id
        )
        for kind, number in answers.items()
        for one in people["many"][:number]
    ]
    with house.db.transaction() as tx:
        apply(tx, reports)
    house.did(people["many"][0], "bought")
    house.later("1d")
    with house.db.transaction(write=False) as tx:
        return learn_rates(tx, house.now + DAY, {"clicked": 0.5})


def test_the_segment_comes_first_then_the_journey(learnt: AnswerRates) -> None:
    assert learnt.rate("opened", "j", "email", "many") == Rate(0.4, 10, "j, email, many")
    assert learnt.rate("opened", "j", "email", "few") == Rate(0.0, 10, "j, email, few")
    assert learnt.rate("opened", "j", "email", "new") == Rate(0.2, 20, "j, email")
    assert learnt.rate("opened", "other", "email", None) == Rate(0.2, 20, "all journeys, email")
    assert learnt.rate("unsubscribed", "j", "email", "many") == Rate(0.1, 10, "j, email, many")
    assert learnt.rate("delivered", "j", "email", "many").value == 1.0


def test_purchases_are_counted_on_enrollments(learnt: AnswerRates) -> None:
    assert learnt.rate("bought", "j", "email", "many") == Rate(0.1, 10, "j, many")
    assert learnt.rate("bought", "j", "sms", None) == Rate(0.05, 20, "j")


def test_delays_are_medians(learnt: AnswerRates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four opened an hour after their message, and one bought then; counted in quarter hours."""
    average = Delay(9981, 0, "average shop")
    assert learnt.opens_after("email") == average
    monkeypatch.setattr("journeys.simulation.rates.ENOUGH", 4)
    hour = 3600 + 450
    assert learnt.opens_after("email") == Delay(hour, 4, "email")
    assert learnt.opens_after("sms") == average
    assert learnt.buys_after("j") == Delay(59888, 0, "average shop")
    monkeypatch.setattr("journeys.simulation.rates.ENOUGH", 1)
    assert learnt.buys_after("j") == Delay(hour, 1, "j")
    assert learnt.buys_after("other") == Delay(hour, 1, "all journeys")


def test_given_rates_and_those_of_an_average_shop(learnt: AnswerRates) -> None:
    assert learnt.rate("clicked", "j", "email", "many") == Rate(0.5, 0, "given")
    assert learnt.rate("opened", "j", "push", None) == Rate(0.3, 0, "average shop")
