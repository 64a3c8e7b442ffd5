"""Where a customer stands in each journey: every kind of wait, and every reason for no entry."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from channels.rules.loaders import load_recipients
from config.clock.times import DAY, parse_instant
from config.policy import Policy
from journeys.definition.steps import Step
from journeys.dsl import (
    Call,
    Email,
    Enter,
    Exit,
    OnEvent,
    OnLaunch,
    OnSchedule,
    OnSegment,
    Push,
    Segment,
    Send,
    Split,
    Wait,
    WaitUntil,
    attribute,
    consented,
    days,
    did,
    has_address,
    prop,
    when,
)
from journeys.engine.entry import enter_people
from journeys.enrollments import enrollments
from journeys.explain.standing import Standing, Standings, standings_of
from journeys.operations.control import pause, resume, stop
from profiles.events import NewEvent, record_events
from tests.support.shop import MONDAY, House, described

OFFICE = Policy.model_validate(
    {
        "timezone": "Europe/London",
        "channels": {
            "email": {"windows": [{"days": "mon-fri", "from": "14:00", "to": "17:00"}]},
        },
    }
)
SEGMENTS = {
    one.name: one
    for one in (
        Segment("vip", "VIPs", attribute("vip") == True),  # noqa: E712
        Segment(
            "lapsed",
            "Bought before, not lately, and reachable",
            did("order_completed")
            & ~did("order_completed", within=days(90))
            & (has_address("email") | consented("sms", "news"))
            & (attribute("country_group") == "EU"),
        ),
    )
}


def standing(house: House, profile_id: int) -> Standings:
    segue = house.segue
    with house.db.transaction(write=False) as tx:
        return standings_of(tx, segue.catalog, segue.policy, profile_id)


def only(house: House, profile_id: int) -> Standing:
    """The one thing that is said."""
    [one] = standing(house, profile_id).journeys
    return one


# What it waits for --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "reason", "words", "until"),
    [
        (
            Wait("36h"),
            "wait",
            "It waits for 36h, until Tue 2026-03-03 23:00 CET.",
            "2026-03-03T22:00:00Z",
        ),
        (
            Wait(time="09:00", days="sat"),
            "wait",
            "It waits until the next time in the customer's zone at 09:00 on sat: "
            "Sat 2026-03-07 09:00 CET.",
            "2026-03-07T08:00:00Z",
        ),
        (
            Wait(date="birthday", yearly=True, before="3d", time="09:00"),
            "wait",
            "It waits until 3d before the anniversary of the date in 'birthday' at 09:00: "
            "Sun 2026-06-28 09:00 CEST.",
            "2026-06-28T07:00:00Z",
        ),
        (
            Wait(date="renewal", after="1d"),
            "wait",
            "It waits until 1d after the date in 'renewal': Wed 2026-03-11 00:00 CET.",
            "2026-03-10T23:00:00Z",
        ),
        (
            WaitUntil("w", did("order_completed", prop("total") >= 50), timeout="2d"),
            "condition",
            "It waits until this holds: did order_completed with property total >= 50; at most "
            "until Wed 2026-03-04 11:00 CET, then it goes on to 'last'.",
            "2026-03-04T10:00:00Z",
        ),
        (
            WaitUntil("w", attribute("vip") == True, timeout="2d", on_timeout=[Exit("gone")]),  # noqa: E712
            "condition",
            "It waits until this holds: attribute vip == True; at most until "
            "Wed 2026-03-04 11:00 CET, then it goes on to 'gone'.",
            "2026-03-04T10:00:00Z",
        ),
        (
            Call("c", "https://shop.example/hook?secret=1"),
            "call",
            "The call to shop.example was tried 1 time of 3; the next try is on "
            "Mon 2026-03-02 11:01 CET, unless it succeeds before.",
            "2026-03-02T10:01:00Z",
        ),
        (
            Send("s", Email("hello", on_cap="defer")),
            "message",
            "Its e-mail is planned for Mon 2026-03-02 14:00 CET. It waits for its send time. "
            "Windows and caps delayed it by 3 hours. Time zone: Europe/Berlin (the customer's "
            "record).",
            None,
        ),
        (
            Send(
                "s",
                Push("hello"),
                Email("hello"),
                mode="first",
                fallback_after="2h",
                unless="opened",
            ),
            "answer",
            "Its message was handed over. Unless it is opened by Mon 2026-03-02 13:00 CET, the "
            "next channel of the step follows.",
            "2026-03-02T12:00:00Z",
        ),
    ],
)
def test_every_kind_of_wait(
    house: House, step: Step, reason: str, words: str, until: str | None
) -> None:
    house.open(
        described(step, Wait("1d", name="last"), exit_when=did("unsubscribed")),
        policy=OFFICE,
        call_hosts=frozenset({"shop.example"}),
    )
    house.providers.hosts["shop.example"] = lambda _: httpx.Response(500)
    ann = house.customer(
        timezone="Europe/Berlin", attributes={"birthday": "1990-07-01", "renewal": "2026-03-10"}
    )
    house.launch("j")
    house.run()
    said = standing(house, ann)
    assert (said.zone, said.about_zone) == (
        "Europe/Berlin",
        "Times are in the zone Europe/Berlin, the customer's.",
    )
    [one] = said.journeys
    assert (one.journey, one.state, one.reason) == ("j", "waiting", reason)
    assert one.step == step.name
    assert one.why == (
        f"In it since Mon 2026-03-02 11:00 CET, at the step {step.name!r}. {words} It ends at once "
        "when this holds: did unsubscribed."
    )
    if until is not None:
        assert one.until == parse_instant(until)
    with house.db.transaction(write=False) as tx:  # the message and the wait agree on the zone
        zones = load_recipients(tx, OFFICE, [ann])[ann].situation.zones
    assert zones.names == (said.zone,)


def test_an_enrollment_that_is_due_waits_for_a_worker_or_for_the_next_try(house: House) -> None:
    house.open(described(Wait("1d", name="w")))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + DAY
    one = only(house, ann)
    assert one.reason == "due"
    assert "It is due since Tue 2026-03-03 10:00 UTC: a worker moves it on." in one.why
    with house.db.transaction() as tx:
        tx.conn.execute(update(enrollments).values(attempts=2, due_at=house.now + 240))
    one = only(house, ann)
    assert one.reason == "retry"
    assert "The step failed 2 times of 5; it is tried again on Tue 2026-03-03 10:04 UTC." in one.why


def test_a_paused_and_a_stopped_journey_say_so_first(house: House) -> None:
    house.open(described(Wait("1d", name="w")))
    ann = house.customer()
    house.launch("j")
    pause(house.db, "j")
    one = only(house, ann)
    assert (one.state, one.reason) == ("waiting", "paused")
    assert (
        "The journey is paused: nothing moves and nothing is sent until it is resumed. It waits "
        "for 1d, until Tue 2026-03-03 10:00 UTC."
    ) in one.why
    bob = house.customer()
    assert only(house, bob).why.endswith(
        "The journey is paused: who enters it waits at its first step."
    )
    stop(house.db, "j")
    one = only(house, ann)
    assert (one.state, one.reason) == ("left", "stopped")
    assert one.why == (
        "Not in it any more: at 'w' the journey was stopped, on Mon 2026-03-02 10:00 UTC. The "
        "journey is stopped: nobody enters until it is resumed."
    )


def test_each_entry_key_has_its_own_line(house: House) -> None:
    house.open(described(Wait("9d"), entry=OnEvent("cart", key="id", again="always")))
    ann = house.customer()
    house.did(ann, "cart", id="a-1")
    house.did(ann, "cart", id="a-2")
    house.run()
    lines = [one.why.partition(" since")[0] for one in standing(house, ann).journeys]
    assert lines == ["In it with 'a-1'", "In it with 'a-2'"]


def test_held_out_people_are_told_apart_in_every_journey(house: House) -> None:
    house.open(
        described(Wait("9d")),
        described(Wait("9d"), name="k", entry=OnEvent("cart")),
        policy=Policy(holdout_percent=100),
    )
    ann = house.customer()
    house.launch("j")
    said = standing(house, ann)
    assert said.held_out
    for one in said.journeys:
        assert one.why.endswith("so the journey sends no marketing to them.")
    assert [one["held_out"] for one in said.as_json()] == [True, True]


def test_times_are_in_the_brands_zone_where_the_customers_may_be_one_of_several(
    house: House,
) -> None:
    house.open(described(Wait("9d")), policy=OFFICE)
    ann = house.customer(timezone=None, country="US")
    about = standing(house, ann)
    assert about.zone == "Europe/London"
    assert "the brand's: the customer's may be any of 29 zones." in about.about_zone
    bob = house.customer(timezone=None, country="FR")
    assert standing(house, bob).about_zone == (
        "Times are in the zone Europe/Paris, that of the customer's country."
    )


# How it left --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "parts", "how"),
    [
        ((Exit("x", reason="came back"),), {}, "it left at 'x' (came back)"),
        (
            (Split("s", when(attribute("vip").exists(), [])),),
            {},
            "it went through to its end, the last step was 's'",
        ),
        ((Wait(date="renewal", name="w"),), {}, "at 'w' the customer had no readable date"),
        (
            (Wait("9d", name="w"),),
            {"exit_when": did("bought")},
            "the exit rule ended it at 'w' (did bought)",
        ),
    ],
)
def test_how_it_left_and_why_it_does_not_enter_again(
    house: House, steps: tuple[Step, ...], parts: Mapping[str, Any], how: str
) -> None:
    house.open(described(*steps, **parts))
    ann = house.customer()
    house.launch("j")
    house.did(ann, "bought")
    house.run()
    one = only(house, ann)
    assert (one.state, one.reason, one.since) == ("left", "entered_before", MONDAY)
    assert one.why == (
        f"Not in it any more: {how}, on Mon 2026-03-02 10:00 UTC. The customer entered on "
        "Mon 2026-03-02 10:00 UTC, and nobody enters twice."
    )


def test_a_journey_that_is_not_in_the_library_any_more(house: House) -> None:
    house.open(described(Exit()), described(Wait("9d"), name="k"))
    ann = house.customer()
    house.launch("j")
    house.launch("k")
    house.open(described(Wait("9d"), name="k"))
    gone, other = standing(house, ann).journeys
    assert (gone.journey, gone.reason) == ("j", "not_in_library")
    assert gone.why.endswith("The journey is not in the library any more, so nobody enters.")
    assert other.state == "waiting"


# Why it is not in it ------------------------------------------------------------------------------

CART = OnEvent("cart", prop("total") >= 50, prop("country").one_of("GB", "DE"), key="id")


def test_an_event_that_never_came_or_does_not_match(house: House) -> None:
    house.open(described(Wait("9d"), entry=CART))
    ann = house.customer()
    one = only(house, ann)
    assert (one.state, one.reason) == ("never entered", "no_event")
    assert one.why == "Never in it. No cart of the customer is on record."
    house.did(ann, "cart", total=20, country="GB")
    house.run()
    one = only(house, ann)
    assert one.reason == "event_not_matching"
    assert one.why == (
        "Never in it. The last cart, of Mon 2026-03-02 10:00 UTC, does not match: property total "
        ">= 50."
    )


def test_an_event_that_is_too_old_or_not_processed_yet(house: House) -> None:
    house.open(described(Wait("9d"), entry=CART))
    ann = house.customer()
    house.did(ann, "cart", at=MONDAY - DAY, total=60, country="GB", id="1")
    house.run()
    one = only(house, ann)
    assert one.reason == "event_too_old"
    assert "was received on Mon 2026-03-02 10:00 UTC, when it was 1d old or older." in one.why
    # the last one that matches, not the last one
    house.did(ann, "cart", total=60, country="GB", id="1")
    house.did(ann, "cart", total=1)
    assert only(house, ann).reason == "event_not_processed"
    house.run()
    assert only(house, ann).state == "waiting"


def test_an_event_of_the_past(house: House) -> None:
    house.open(described(Wait("9d"), entry=OnEvent("cart", again="always")))
    ann = house.customer()

    def imported(at: int, key: str) -> None:
        with house.db.transaction() as tx:
            event = NewEvent(
                profile_id=ann, name="cart", occurred_at=at, dedupe_key=key, properties={}
            )
            record_events(tx, [event], worked=True)

    house.db.now = MONDAY - 5 * DAY
    imported(house.now, "before")
    house.db.now = MONDAY
    one = only(house, ann)
    assert one.reason == "event_before_journey"
    assert "came before the journey was deployed, on Mon 2026-03-02 10:00 UTC." in one.why
    imported(MONDAY, "imported")
    one = only(house, ann)
    assert one.reason == "event_entered_nobody"
    assert "matches, but was imported as history, or came while the journey was stopped" in one.why


def test_an_event_that_came_while_the_customer_was_in_it(house: House) -> None:
    entry = OnEvent("cart", key="id", again="always")
    house.open(described(Wait("1d"), entry=entry))
    ann = house.customer()
    house.did(ann, "cart", id="1")
    house.run()
    house.later("1h")
    house.did(ann, "cart", id="1")
    house.later("2d")
    one = only(house, ann)
    assert (one.state, one.reason) == ("left", "event_entered_nobody")
    assert one.why.endswith(
        "The last cart, of Mon 2026-03-02 11:00 UTC, came when the entry of "
        "Mon 2026-03-02 10:00 UTC allowed no other."
    )


def test_the_entry_event_itself_is_no_later_one(house: House) -> None:
    house.open(described(Exit(), entry=OnEvent("cart", key="id", again="always")))
    ann = house.customer()
    house.did(ann, "cart", id="1")
    house.run()
    one = only(house, ann)
    assert (one.state, one.reason) == ("left", "no_event")
    assert one.why.endswith("was the last entry; there is no later one.")


def test_reentry_after_a_time_and_by_key(house: House) -> None:
    house.open(
        described(Exit(), entry=OnEvent("cart", key="id", again=days(7))),
        described(Exit(), name="k", entry=OnLaunch(again=days(7))),
    )
    ann = house.customer()
    house.did(ann, "cart", id="1")
    house.run()
    house.launch("k")
    house.later("1h")
    house.did(ann, "cart", id="1")
    house.run()
    carts, launched = standing(house, ann).journeys
    assert (carts.reason, carts.until) == ("entered_recently", MONDAY + 7 * DAY)
    assert carts.why.endswith(
        "another entry with the same id is possible 7d later, from Mon 2026-03-09 10:00 UTC on."
    )
    assert (launched.reason, launched.until) == ("entered_recently", MONDAY + 7 * DAY)
    house.db.now = MONDAY + 7 * DAY
    assert standing(house, ann).journeys[1].reason == "waits_for_launch"


def test_the_parts_of_a_segment_that_do_not_hold(house: House) -> None:
    house.open(described(Wait("9d"), entry=OnSegment("lapsed")), segments=SEGMENTS)
    ann = house.customer(email=None, consent={}, attributes={"country_group": "EU"})
    house.did(ann, "order_completed")
    house.run()
    one = only(house, ann)
    assert (one.state, one.reason) == ("never entered", "not_in_segment")
    assert one.why == (
        "Never in it. The customer is not in the segment lapsed. What does not hold: "
        "not (did order_completed within 90d); "
        "has a usable e-mail address for e-mail or agreed to text messages about news."
    )
    bob = house.customer()
    assert only(house, bob).why.endswith(
        "What does not hold: did order_completed; attribute country_group == 'EU'."
    )


def test_members_of_a_segment_who_have_not_entered(house: House) -> None:
    entry = OnSegment("vip", again="always")
    house.open(described(Exit(), entry=entry), segments=SEGMENTS)
    ann = house.customer(attributes={"vip": True})
    assert only(house, ann).reason == "waits_for_worker"
    house.did(ann, "profile_changed")
    house.run()
    one = only(house, ann)
    assert (one.state, one.reason) == ("left", "in_segment_before")
    assert "in the segment vip since Mon 2026-03-02 10:00 UTC and has entered for it" in one.why


def test_a_schedule_and_when_it_starts_next(house: House) -> None:
    entry = OnSchedule("0 8 * * mon", timezone="Europe/London", segment="vip", again=days(30))
    house.open(described(Wait("9d"), entry=entry), segments=SEGMENTS)
    ann, bob = house.customer(attributes={"vip": True}), house.customer()
    one, other = only(house, ann), only(house, bob)
    assert (one.reason, one.until) == ("waits_for_schedule", parse_instant("2026-03-09T08:00:00Z"))
    assert "The next scheduled start is on Mon 2026-03-09 08:00 UTC." in one.why
    assert (other.reason, other.until) == ("not_in_segment", one.until)


def test_a_journey_that_is_only_launched(house: House) -> None:
    house.open(
        described(Wait("9d")),
        described(Enter("on", "j"), name="k", entry=OnEvent("cart")),
        segments=SEGMENTS,
    )
    ann = house.customer()
    one = standing(house, ann).journeys[0]
    assert one.reason == "waits_for_launch"
    assert one.why == (
        "Never in it. Customers enter only by a launch, and there was none. Customers also enter "
        "it at k / on."
    )
    house.launch("j", "vip")
    one = standing(house, ann).journeys[0]
    assert one.reason == "not_in_segment"
    assert "on Mon 2026-03-02 10:00 UTC, was for vip. The customer is not in" in one.why
    house.change(ann, vip=True)
    one = standing(house, ann).journeys[0]
    assert one.reason == "waits_for_launch"
    assert "is in it now, and was not then, or the launch had a limit." in one.why


def test_a_launch_that_waits_for_approval(house: House) -> None:
    policy = Policy.model_validate({"approval": {"people": 0}})
    house.open(described(Wait("9d")), policy=policy)
    ann = house.customer()
    house.launch("j", launch_id="spring")
    assert only(house, ann).why == (
        "Never in it. Customers enter only by a launch, and there was none. The launch spring for "
        "everyone waits for approval."
    )


def test_every_reason_has_words_and_the_engine_agrees(house: House) -> None:
    """Where no rule refuses an entry, the engine enters the customer, and else it does not."""
    journeys = [
        described(Exit(), name="once"),
        described(Exit(), name="soon", entry=OnLaunch(again=days(7))),
        described(Exit(), name="always", entry=OnLaunch(again="always")),
        described(Exit(), name="stopped"),
    ]
    house.open(*journeys)
    ann = house.customer()
    for name in ("once", "soon", "always", "stopped"):
        house.launch(name)
    stop(house.db, "stopped")
    for later in (0, 8 * DAY):
        house.db.now = MONDAY + later
        for one in standing(house, ann).journeys:
            version = house.segue.catalog.journey(one.journey)
            with house.db.transaction(keep=False) as tx:
                entered = enter_people(tx, version, [ann], None)
            assert bool(entered) == (one.reason == "waits_for_launch"), one
    resume(house.db, "stopped")
    assert "stopped" not in {one.reason for one in standing(house, ann).journeys}
