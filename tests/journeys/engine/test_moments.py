"""A step ends when what it waited for happened, however late it is processed; the next step counts
from then.
"""

from typing import Any

import pytest
from sqlalchemy import update

from channels.messages import messages
from config.clock.times import DAY, HOUR, MINUTE
from journeys.definition.steps import Step
from journeys.dsl import (
    Email,
    Exit,
    OnEvent,
    Push,
    Send,
    Split,
    Update,
    Wait,
    WaitUntil,
    attribute,
    did,
    everyone,
    when,
)
from journeys.engine.entry import enter_people
from profiles.conditions.language import Condition
from tests.support.shop import MONDAY, House, described


def until(condition: Condition, timeout: str = "1d", name: str = "until") -> Step:
    """A wait that marks the profiles that leave it in time."""
    return WaitUntil(name, condition, timeout=timeout, then=[Update(f"{name}!", **{name: True})])


NUDGE = Send("nudge", Push("hello"), Email("hello"), mode="first", fallback_after="2h",
             unless="opened")  # fmt: skip


def arrivals(house: House) -> list[int]:
    """When they came to where they are, in seconds after the launch."""
    return [person.arrived_at - MONDAY for person in house.people()]


# A send that waits for an answer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("viewed", "seen"),
    [
        (30 * MINUTE + 2, True),  # after the answer, in the same batch of events
        (30 * MINUTE, True),
        (30 * MINUTE - 2, True),  # after the message, before the answer
        (1, True),
        (-1, False),  # before the message
    ],
)
def test_a_wait_after_a_send_counts_events_since_the_message(
    house: House, viewed: int, seen: bool
) -> None:
    house.open(described(NUDGE, until(did("viewed"))))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + 30 * MINUTE + 20
    house.did(ann, "viewed", at=MONDAY + viewed)
    house.did(ann, "push_opened", at=MONDAY + 30 * MINUTE)
    house.run()
    assert house.attributes(ann) == ({"until": True} if seen else {})


def test_a_wait_after_a_send_counts_from_its_own_message(house: House) -> None:
    """Another customer's later message does not shorten it."""
    house.open(described(NUDGE, until(did("viewed"))))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + 20 * MINUTE
    house.customer()
    house.launch("j", launch_id="later")
    house.db.now = MONDAY + 30 * MINUTE + 20
    house.did(ann, "viewed", at=MONDAY + 10 * MINUTE)
    house.did(ann, "push_opened", at=MONDAY + 30 * MINUTE)
    house.run()
    assert house.attributes(ann) == {"until": True}


def test_the_next_step_counts_from_the_event_that_ended_the_wait(house: House) -> None:
    """A time of day that is over when the answer comes is tomorrow's."""
    house.open(described(NUDGE, Wait(time="10:15"), Send("s", Email("offer"))))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + 30 * MINUTE + 20
    house.did(ann, "push_opened", at=MONDAY + 30 * MINUTE)
    house.run()
    assert arrivals(house) == [30 * MINUTE]
    house.later("2d")
    assert house.rows()[-1].send_at == MONDAY + DAY + 15 * MINUTE


def test_a_wait_for_delivery_ends_at_the_report(house: House) -> None:
    step = Send("s", Email("hello"), Push("hello"), mode="first", fallback_after="2h",
                unless="delivered")  # fmt: skip
    house.open(described(step, Wait("1d")))
    ann = house.customer()
    house.launch("j")
    [row] = house.rows()
    house.db.now = MONDAY + HOUR
    with house.db.transaction() as tx:
        tx.conn.execute(update(messages).values(state="delivered"))
    house.did(ann, "email_delivered", at=MONDAY + 40, message_id=str(row.id))
    house.run()
    assert arrivals(house) == [40]


# A worker that comes late -------------------------------------------------------------------------


def test_waits_do_not_add_up_the_workers_delay(house: House) -> None:
    house.open(described(Wait("1h"), Wait("1h", "w2"), Split("f", when(everyone(), [])),
                         Wait("12h", "w3")))  # fmt: skip
    house.customer()
    house.launch("j")
    house.db.now = MONDAY + 5 * HOUR
    house.run()
    [person] = house.people()
    assert (person.step, person.arrived_at, person.due_at) == (
        "w3",
        MONDAY + 2 * HOUR,
        MONDAY + 14 * HOUR,
    )


def test_a_step_after_a_message_counts_from_its_hand_over(house: House) -> None:
    """A minute passes before anybody looks at who stood behind it."""
    house.open(described(Send("s", Email("hello")), until(did("viewed"))))
    ann, bob = house.customer(), house.customer()
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [ann, bob], None)
    house.advance()
    house.db.now = MONDAY + 10
    house.dispatch()
    house.db.now = MONDAY + MINUTE
    house.did(ann, "viewed", at=MONDAY + 15)
    house.did(bob, "viewed", at=MONDAY + 5)
    house.run()
    assert [house.attributes(person) for person in (ann, bob)] == [{"until": True}, {}]
    assert house.people(bob)[0].due_at == MONDAY + 10 + DAY


@pytest.mark.parametrize(("at", "seen"), [(DAY, True), (DAY + 1, False)])
def test_an_event_after_the_timeout_is_too_late(house: House, at: int, seen: bool) -> None:
    """Though the worker was down when the time was over, and both are news to it."""
    house.open(described(until(did("viewed")), Wait("12h")))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + DAY + HOUR
    house.did(ann, "viewed", at=MONDAY + at)
    house.run()
    assert house.attributes(ann) == ({"until": True} if seen else {})
    assert arrivals(house) == [DAY]


def test_a_condition_without_an_event_that_holds_late_counts_as_in_time(house: House) -> None:
    house.open(described(until(attribute("vip") == 1), Wait("12h")))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + DAY + HOUR
    house.change(ann, vip=1)
    house.run()
    assert house.attributes(ann) == {"vip": 1, "until": True}
    assert arrivals(house) == [DAY]


# One wait after the other -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "over"),
    [
        (did("opened"), 10),
        (did("opened", at_least=2), 20),
        (did("opened") & did("clicked"), 15),
        (did("clicked") & did("opened", at_least=2), 20),
        (did("clicked") | did("opened"), 10),
        (did("never") | did("clicked"), 15),
        (did("opened") & (attribute("vip") == 1), 40),  # since when it holds nobody can tell
        (did("opened") & ~did("never"), 40),
        (attribute("vip") == 1, 40),
    ],
)
def test_a_wait_is_over_when_its_condition_came_true(
    house: House, first: Condition, over: int
) -> None:
    house.open(described(until(first), Wait("12h")))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + 40
    house.change(ann, vip=1)
    for at, name in ((20, "opened"), (15, "clicked"), (10, "opened"), (30, "opened")):
        house.did(ann, name, at=MONDAY + at)
    house.did(ann, "profile_changed")
    house.run()
    assert arrivals(house) == [over]


def test_a_condition_that_holds_on_arrival_ends_the_wait_at_once(house: House) -> None:
    house.open(described(Wait("1h"), until((attribute("vip") == 1) | did("x")), Wait("12h")))
    house.customer(attributes={"vip": 1})
    house.launch("j")
    house.db.now = MONDAY + 2 * HOUR
    house.run()
    assert arrivals(house) == [HOUR]


def test_two_events_in_one_batch_end_two_waits(house: House) -> None:
    house.open(described(Send("s", Email("hello")), until(did("email_opened"), name="opened"),
                         until(did("email_clicked"), name="clicked")))  # fmt: skip
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + 40
    house.did(ann, "email_opened", at=MONDAY + 10)
    house.did(ann, "email_clicked", at=MONDAY + 10)
    house.run()
    assert house.attributes(ann) == {"opened": True, "clicked": True}


@pytest.mark.parametrize("between", [[], [Send("s", Email("hello"))]], ids=["nothing", "a send"])
def test_one_event_does_not_end_two_waits(house: House, between: list[Any]) -> None:
    first, second = until(did("viewed"), name="once"), until(did("viewed"), name="twice")
    house.open(described(first, *between, second))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + 40
    house.did(ann, "viewed", at=MONDAY + 40)
    house.run()
    assert house.attributes(ann) == {"once": True}
    house.db.now += 1
    house.did(ann, "viewed")
    house.run()
    assert house.attributes(ann) == {"once": True, "twice": True}


# At the beginning ---------------------------------------------------------------------------------


def test_the_first_step_begins_at_the_time_of_the_entry_event(house: House) -> None:
    house.open(described(until(did("viewed")), Wait("12h"), entry=OnEvent("cart")))
    ann, bob = house.customer(), house.customer()
    for person, viewed in ((ann, 12), (bob, 9)):
        house.did(person, "cart", at=MONDAY + 10)
        house.did(person, "viewed", at=MONDAY + viewed)
    house.db.now = MONDAY + 40
    house.run()
    assert [house.attributes(person) for person in (ann, bob)] == [{"until": True}, {}]
    assert [person.entered_at for person in house.people()] == [MONDAY + 40] * 2
    assert arrivals(house) == [12, 10]


def test_each_enrollment_counts_from_its_own_time(house: House) -> None:
    """For any number of enrollments, whether they leave, wait or end."""
    gone = Split("f", when(attribute("x") == 1, [Exit("x")]))
    house.open(described(gone, Update("u", y=1), Wait("12h"), entry=OnEvent("cart")))
    people = [house.customer(attributes={"x": number % 3}) for number in range(40)]
    for number, profile_id in enumerate(people):
        house.did(profile_id, "cart", at=MONDAY + number)
    house.db.now = MONDAY + HOUR
    house.run()
    for number, person in enumerate(house.people()):
        if number % 3 == 1:
            assert person.end_reason == "exit: exit step"
        else:
            due = MONDAY + number + 12 * HOUR
            assert (person.step, person.arrived_at, person.due_at, person.phase) == (
                *("wait 12h", MONDAY + number, due, 1),
            )
    house.later("1d")
    assert {person.end_reason for person in house.people()} == {"exit: exit step", "completed"}


def test_an_event_with_a_future_time_counts_as_now(house: House) -> None:
    """A sender's clock can never set an arrival later than now."""
    house.open(described(Wait("12h"), entry=OnEvent("cart")))
    house.did(house.customer(), "cart", at=MONDAY + DAY)
    house.run()
    assert arrivals(house) == [0]
