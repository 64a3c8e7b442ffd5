"""Undo a launch: what has not gone is taken back, what has gone stays and counts."""

from collections import Counter

import httpx
import pytest

from config.errors import SegueError
from config.policy import Policy
from journeys.dsl import Email, OnLaunch, Push, Send, Wait
from journeys.enrollments.states import UNDONE, UNDONE_AFTER_SENDING
from journeys.launches.launching import LaunchConflict, enter_audience, start_launch
from journeys.launches.undo import Undone, undo_launch
from tests.support.providers.dispatching import DAYTIME
from tests.support.shop import House, described

POLICY = Policy.model_validate(
    {
        "channels": {"email": DAYTIME, "push": DAYTIME},
        "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
    }
)
ONCE = OnLaunch(again="once")


def states(house: House) -> Counter[str]:
    return Counter(one.state for one in house.outbox())


def test_a_dry_run_counts_and_changes_nothing(house: House) -> None:
    house.open(described(Send("s", Email("hello", after="1h"))))
    for _ in range(3):
        house.customer()
    house.launch("j", launch_id="l")
    before = house.rows(), house.people()
    found = undo_launch(house.db, "l", apply=False)
    assert (house.rows(), house.people()) == before
    assert found.as_json() == {
        "launch": "l",
        "journey": "j",
        "audience": "everyone",
        "applied": False,
        "people": 3,
        "ended": 3,
        "never_entered": 3,
        "cancelled": {"email": 3, "sms": 0, "push": 0},
        "gone": {"email": 0, "sms": 0, "push": 0},
    }


def test_people_to_whom_nothing_was_sent_may_enter_again_and_use_no_cap(house: House) -> None:
    house.open(described(Send("s", Email("hello", after="1h")), entry=ONCE), policy=POLICY)
    house.customer()
    house.launch("j", launch_id="l")
    undone = undo_launch(house.db, "l", apply=True)
    assert (undone.ended, undone.never_entered, undone.cancelled) == (1, 1, {"email": 1})
    assert [person.end_reason for person in house.people()] == [UNDONE]
    house.later("2h")
    assert house.providers.accepted == []
    # Entry `once` and one mail a day: both would refuse somebody who had been in it.
    assert house.launch("j", launch_id="again")["entered"] == 1
    house.later("2h")
    assert [one.channel for one in house.providers.accepted] == ["email"]
    assert house.launch("j", launch_id="third")["entered"] == 0


def test_people_to_whom_something_went_get_no_more_and_count_as_entered(house: House) -> None:
    steps = (Send("first", Email("hello"), Push("hello", after="1h")), Wait("1d"))
    house.open(described(*steps, Send("second", Push("offer")), entry=ONCE), policy=POLICY)
    house.customer()
    house.launch("j", launch_id="l")
    undone = undo_launch(house.db, "l", apply=True)
    assert (undone.gone, undone.cancelled) == ({"email": 1}, {"push": 1})
    assert (undone.ended, undone.never_entered) == (1, 0)
    assert [person.end_reason for person in house.people()] == [UNDONE_AFTER_SENDING]
    house.later("3d")
    assert [one.channel for one in house.providers.accepted] == ["email"]
    assert house.launch("j", launch_id="again")["entered"] == 0


def test_people_who_went_through_without_a_message_may_enter_again(house: House) -> None:
    house.open(described(Send("s", Email("hello")), entry=ONCE), policy=POLICY)
    ann = house.customer(email=None)
    house.launch("j", launch_id="l")
    assert [person.end_reason for person in house.people()] == ["completed"]
    undone = undo_launch(house.db, "l", apply=True)
    assert (undone.ended, undone.never_entered) == (0, 1)
    assert [person.end_reason for person in house.people(ann)] == [UNDONE]
    assert house.launch("j", launch_id="again")["entered"] == 1


def test_a_planned_message_of_a_finished_journey_is_cancelled(house: House) -> None:
    house.open(described(Send("s", Email("hello"), Push("hello", after="1h"))))
    house.customer()
    house.launch("j", launch_id="l")
    undo_launch(house.db, "l", apply=True)
    assert states(house) == {"sent": 1, "cancelled": 1}
    house.later("2h")
    assert states(house) == {"sent": 1, "cancelled": 1}


def test_a_repeat_changes_nothing_and_says_the_same(house: House) -> None:
    house.open(described(Send("s", Email("hello"), Push("hello", after="1h")), Wait("1d")))
    house.customer()
    house.launch("j", launch_id="l")
    first = undo_launch(house.db, "l", apply=True)
    before = house.rows(), house.people()
    second = undo_launch(house.db, "l", apply=True)
    assert (house.rows(), house.people()) == before
    assert (second.gone, second.cancelled) == (first.gone, first.cancelled)
    assert (second.ended, second.never_entered) == (0, 0)


def test_other_launches_and_journeys_stay(house: House) -> None:
    house.open(
        described(Send("s", Push("hello", after="1h")), entry=OnLaunch(again="always")),
        described(Send("s", Push("hello", after="1h")), name="k"),
    )
    house.customer()
    house.launch("j", launch_id="l")
    house.launch("k", launch_id="other")
    undo_launch(house.db, "l", apply=True)
    assert [(one.journey, one.ended_at is None) for one in house.people()] == [
        ("j", False),
        ("k", True),
    ]
    assert states(house) == {"cancelled": 1, "planned": 1}


def test_a_worker_that_hands_over_at_the_same_moment(house: House) -> None:
    """The message that a worker has claimed counts as gone. If the provider has no time for it, it
    is not tried again.
    """
    house.open(described(Send("s", Email("hello")), Wait("1d")), policy=POLICY)
    house.customer()
    undone: list[Undone] = []

    def undo_once() -> None:
        if not undone:
            undone.append(undo_launch(house.db, "l", apply=True))

    house.providers.meanwhile = undo_once
    house.launch("j", launch_id="l")
    assert (undone[0].gone, undone[0].cancelled) == ({"email": 1}, {})
    assert states(house) == {"sent": 1}
    assert [person.end_reason for person in house.people()] == [UNDONE_AFTER_SENDING]
    house.later("2d")
    assert len(house.providers.accepted) == 1


def test_a_message_that_comes_back_from_the_provider_is_not_tried_again(house: House) -> None:
    house.open(described(Send("s", Email("hello"))), policy=POLICY)
    house.customer()
    house.providers.answer("email", httpx.Response(429))

    def undo() -> None:
        undo_launch(house.db, "l", apply=True)

    house.providers.meanwhile = undo
    house.launch("j", launch_id="l")
    house.later("1d")
    assert house.providers.accepted == []
    assert states(house) == {"cancelled": 1}


def test_nobody_enters_by_a_launch_that_was_undone(house: House) -> None:
    """Not even by a process that is in the middle of the audience."""
    house.open(described(Send("s", Push("hello", after="1h"))))
    for _ in range(4):
        house.customer()
    engine = house.segue.engine
    engine.chunks.largest = 2
    version = start_launch(engine, "l", "j", "everyone")
    entering = enter_audience(engine, version, "everyone", "l")
    assert next(entering) == 2
    assert undo_launch(house.db, "l", apply=True).people == 2
    assert list(entering) == []
    assert len(house.people()) == 2
    with pytest.raises(LaunchConflict, match="was undone; start one with another id"):
        house.launch("j", launch_id="l")


def test_chunks_undo_everybody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.open(described(Send("s", Push("hello", after="1h"))))
    for _ in range(5):
        house.customer()
    house.launch("j", launch_id="l")
    monkeypatch.setattr("journeys.engine.chunks.LARGEST", 2)
    undone = undo_launch(house.db, "l", apply=True)
    assert (undone.people, undone.never_entered, undone.cancelled) == (5, 5, {"push": 5})
    assert undo_launch(house.db, "l", apply=False).ended == 0


def test_a_launch_that_does_not_exist_is_an_error(house: House) -> None:
    house.open(described(Send("s", Email("hello"))))
    with pytest.raises(SegueError, match="there is no launch 'x'"):
        undo_launch(house.db, "x", apply=False)


def test_a_launch_that_waits_for_an_approval_is_an_error(house: House) -> None:
    policy = Policy.model_validate({"approval": {"people": 1}})
    house.open(described(Send("s", Email("hello"))), policy=policy)
    for _ in range(2):
        house.customer()
    house.launch("j", launch_id="l")
    with pytest.raises(SegueError, match=r"has not started, its approval is waiting; .* reject l"):
        undo_launch(house.db, "l", apply=True)
