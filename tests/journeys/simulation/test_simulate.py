"""What a simulation counts, for journeys whose results are known."""

from typing import Any

import pytest

from channels.feedback.apply import apply
from channels.providers.webhook import Feedback
from config.clock.times import DAY, HOUR
from config.policy import Policy
from flows.simulate import as_json, compared_shop
from journeys.definition.collisions import collision_warnings
from journeys.dsl import (
    SMS,
    Call,
    Email,
    Experiment,
    Journey,
    OnEvent,
    OnLaunch,
    OnSchedule,
    Push,
    Send,
    Wait,
    arm,
    days,
    did,
)
from journeys.operations.promotion import promote
from journeys.simulation.clock import SimulatedShop
from journeys.simulation.copy import snapshot
from journeys.simulation.simulate import Question, simulate
from tests.support.shop import House, described

DAILY = Policy.model_validate(
    {
        "channels": {"email": {"windows": [{"days": "mon-sun", "from": "12:00", "to": "20:00"}]}},
        "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
    }
)
NOBODY: Any = {"opened": 0.0, "clicked": 0.0, "bought": 0.0, "unsubscribed": 0.0, "delivered": 1.0}


def found(house: House, *journeys: str, **parts: Any) -> dict[str, Any]:
    segue = house.segue
    shop = SimulatedShop(catalog=segue.catalog, policy=segue.policy, settings=segue.settings)
    question = Question(
        journeys=journeys or ("j",), **{"audience": None, "days": 7, "given": NOBODY, **parts}
    )
    with snapshot(house.db) as tx:
        return as_json(shop, question, simulate(tx, shop, question))


def test_windows_hold_back_and_caps_refuse(house: House) -> None:
    steps = (Send("s", Email("hello")), Wait("1h"), Send("t", Email("offer"), SMS("hello")))
    house.open(described(*steps), policy=DAILY)
    for _ in range(3):
        house.customer()
    one = found(house, audience="everyone")
    assert (one["entered"], one["people"]) == (3, 3)
    assert one["sent"] == {"email": 3, "sms": 3, "push": 0}
    assert one["not_sent"] == {"capped": 3}
    [held] = one["held_back"]
    assert (held["by"], held["messages"], held["longest"]) == ("window", 3, 2 * HOUR - 1)
    [collision] = one["collisions"]
    assert collision == {
        **{"journey": "j", "step": "t", "by_journey": "j", "by_step": "s"},
        **{"what": "capped", "messages": 3},
    }
    assert one["by_hour"] == {
        "12": {"sent": 3, "not_sent": 0},
        "13": {"sent": 3, "not_sent": 3},
    }
    assert one["messages_a_person"] == {"p50": 2, "p95": 2, "p100": 2}
    assert house.rows() == house.people() == []


def test_it_warns_of_messages_that_others_always_cap(house: House) -> None:
    """An order brings a thank-you and, some hours later, the text and mail of an experiment.

    Where hours are between them, the definitions cannot tell whether they fall on one day.
    """
    thanks = described(
        Send("thanks", Email("hello")),
        name="thanks",
        entry=OnEvent("bought", again="always"),
        priority=60,
    )
    trial = described(
        Wait("3h"),
        Experiment(
            "which",
            arm("offer", 100, [Send("offer", Email("offer"), SMS("offer"))]),
            holdout=0,
        ),
        name="trial",
        entry=OnEvent("bought", again="always"),
    )
    house.open(thanks, trial, policy=DAILY)
    for _ in range(12):
        house.did(house.customer(), "bought", house.now - 7 * DAY + 3 * HOUR)
    assert collision_warnings({"thanks": thanks, "trial": trial}, DAILY) == []
    told = "trial / offer: 12 of 12 messages were capped by thanks / thanks"
    together = found(house, "thanks", "trial")
    assert together["warnings"] == [told]
    assert together["sent"] == {"email": 12, "sms": 12, "push": 0}
    assert found(house, "trial")["warnings"] == []
    # With a day between them nothing is capped.
    later = described(
        Wait("1d"), Send("offer", Email("offer")), name="trial", entry=OnEvent("bought")
    )
    house.open(thanks, later, policy=DAILY)
    apart = found(house, "thanks", "trial")
    assert (apart["warnings"], apart["sent"]["email"]) == ([], 24)


def test_a_message_of_a_higher_journey_takes_the_place_of_a_planned_one(house: House) -> None:
    low = described(Send("s", Email("hello")), name="low", priority=10)
    high = described(
        Send("s", Email("offer")), name="high", priority=90, entry=OnEvent("came", again="always")
    )
    house.open(low, high, policy=DAILY)
    # A week ago she came an hour after this time of day.
    house.did(house.customer(), "came", house.now - 7 * DAY + HOUR)
    house.run()
    house.later("30m")
    # The mail waits for the window at noon, and for 11:00 another one is wanted.
    house.launch("low")
    every = found(house, "low", "high")
    assert every["sent"]["email"] == 1
    assert every["not_sent"] == {"capped": 1}
    [collision] = every["collisions"]
    assert (collision["journey"], collision["by_journey"]) == ("low", "high")
    assert (collision["what"], collision["messages"]) == ("preempted", 1)


def test_a_schedule_starts_launches(house: House) -> None:
    weekly = Journey(
        "j",
        entry=OnSchedule("0 8 * * mon", timezone="UTC", segment="everyone", again=days(1)),
        topic="news",
        steps=[Send("s", SMS("hello"))],
    )
    house.open(weekly)
    house.customer()
    month = found(house, days=28)
    # It is Monday, 10:00: the next four are in the 28 days.
    assert month["entered"] == 4
    assert list(month["by_day"]) == ["2026-03-09", "2026-03-16", "2026-03-23", "2026-03-30"]
    week = found(house, days=2)
    assert week["why_not"] == {"j": {"no time of its schedule is in these days": 1}}


def test_events_of_the_last_weeks_happen_again(house: House) -> None:
    house.open(
        described(
            Send("s", SMS("hello")),
            Wait("1d"),
            entry=OnEvent("came", again="always"),
            exit_when=did("bought"),
        )
    )
    none = found(house)
    assert none["why_not"] == {"j": {"no event to enter with: came": 1}}
    for number in range(4):
        person = house.customer()
        house.did(person, "came", house.now - 3 * DAY)
        if number == 0:
            house.did(person, "bought", house.now - 3 * DAY + HOUR)
    again = found(house)
    assert again["entered"] == 4
    assert again["sent"]["sms"] == 4


def test_answers_move_and_stop_people(house: House) -> None:
    steps = (
        Send(
            "s", Push("hello"), Email("hello"), mode="first", fallback_after="2h", unless="opened"
        ),
        Wait("1d"),
        Send("t", Email("offer")),
    )
    house.open(described(*steps, exit_when=did("bought")))
    for _ in range(5):
        house.customer()
    launch = {"audience": "everyone"}
    nobody = found(house, **launch)
    assert nobody["sent"] == {"email": 10, "sms": 0, "push": 5}
    everybody = found(house, **launch, given={**NOBODY, "unsubscribed": 1.0})
    assert everybody["sent"]["email"] == 5
    assert everybody["unsubscribes"] == 5
    assert everybody["not_sent"] == {"no_consent": 5}


def test_a_promoted_arm_is_compared_with_the_version_before(house: House) -> None:
    which = Experiment(
        "which",
        arm("mail", 50, [Send("mail", Email("hello"))]),
        arm("text", 50, [Send("text", SMS("hello"))]),
    )
    house.open(described(which))
    drawn = house.segue.catalog.journey("j").digest
    for _ in range(20):
        house.customer()
    with house.db.transaction() as tx:
        promote(tx, house.segue.catalog, "j", "which", "text")
    segue = house.segue
    shop = SimulatedShop(catalog=segue.catalog, policy=segue.policy, settings=segue.settings)
    question = Question(journeys=("j",), audience="everyone", days=1, given=NOBODY)
    with snapshot(house.db) as tx:
        [now] = simulate(tx, shop, question)
        before = compared_shop(tx, shop, question, drawn)
        [then] = simulate(tx, before, question)
    assert now.sent == {"sms": 20}
    assert then.sent.total() == 20
    assert 0 < then.sent["email"] < 20
    # The comparison leaves the shop's own catalog as it was.
    assert segue.catalog.journey("j").digest != drawn


def test_people_open_as_soon_as_they_did(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten people opened at once; so hardly anybody gets the text that follows after two hours."""
    texts = Send(
        "s", Email("hello"), SMS("hello"), mode="first", fallback_after="2h", unless="opened"
    )
    house.open(described(texts, entry=OnLaunch(again="always")))
    for _ in range(10):
        house.customer()
    house.launch("j")
    with house.db.transaction() as tx:
        apply(
            tx,
            [
                Feedback(
                    id=f"{row.id}", source="t", channel="email", kind="opened", message_id=row.id
                )
                for row in house.rows()
            ],
        )
    house.later("1d")
    for _ in range(20):
        house.customer()
    opened = {"audience": "everyone", "given": {**NOBODY, "opened": 1.0}}
    average = found(house, **opened)
    assert {one["source"] for one in average["delays"]} == {"average shop"}
    monkeypatch.setattr("journeys.simulation.rates.ENOUGH", 10)
    soon = found(house, **opened)
    [mails] = [one for one in soon["delays"] if one["where"] == "email"]
    assert (mails["median"], mails["of"], mails["source"]) == (450, 10, "email")
    assert soon["sent"]["email"] == average["sent"]["email"] == 30
    assert soon["sent"]["sms"] <= 2 < 10 < average["sent"]["sms"]


def test_windows_caps_and_groups_are_told_apart(house: House) -> None:
    """Wanted at 22:00 under one mail a day, with a text of the same step that may leave from 14:00.

    The mail waits for its window until 12:00, two hours more for the text, and a day for the cap.
    """
    policy = Policy.model_validate(
        {
            "channels": {
                "email": {"windows": [{"days": "mon-sun", "from": "12:00", "to": "20:00"}]},
                "sms": {"windows": [{"days": "mon-sun", "from": "14:00", "to": "20:00"}]},
            },
            "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
            "max_delay": "3d",
        }
    )
    first = described(Send("s", Email("hello")), name="first", entry=OnLaunch(again="always"))
    both = described(
        Send("s", Email("offer", on_cap="defer"), SMS("offer", on_cap="defer")), name="both"
    )
    house.open(first, both, policy=policy)
    house.customer()
    house.until("2026-03-02T21:59:59Z")
    house.launch("first")
    one = found(house, "both", audience="everyone")
    assert {(held["channel"], held["by"]): held["longest"] for held in one["held_back"]} == {
        ("email", "window"): 14 * HOUR,
        ("email", "group"): 2 * HOUR,
        ("email", "cap"): 24 * HOUR,
        ("sms", "window"): 16 * HOUR,
        ("sms", "cap"): 24 * HOUR,
    }


def test_no_call_leaves_the_simulation(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeys.engine.advance.post_all", None)
    house.open(described(Call("tell", "https://crm.shop.test/came"), Send("s", SMS("hello"))))
    house.customer()
    assert found(house, audience="everyone")["sent"]["sms"] == 1


def test_the_messages_of_the_shop_are_under_way_and_count(house: House) -> None:
    """What is planned already goes on, and its enrollments with it."""
    house.open(
        described(Send("s", Email("hello")), Wait("1d"), Send("t", SMS("hello"))), policy=DAILY
    )
    house.customer()
    house.launch("j")
    one = found(house)
    assert one["entered"] == 0
    assert one["sent"] == {"email": 1, "sms": 1, "push": 0}
    assert house.outbox()[0].state == "planned"
