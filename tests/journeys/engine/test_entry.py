"""Entry by event and by launch, and the re-entry rule under concurrency."""

from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from config.clock.times import DAY, HOUR, days
from config.errors import SegueError
from journeys.dsl import (
    Email,
    Exit,
    OnEvent,
    OnLaunch,
    Segment,
    Send,
    Update,
    Wait,
    attribute,
    prop,
)
from journeys.engine.due import DueEnrollment, lock_due
from journeys.engine.entry import enter_by_events, enter_each, enter_people
from journeys.engine.exits import end
from journeys.enrollments import enrollments
from journeys.launches.launching import audience_size
from profiles.tables import events
from tests.support.patience import PATIENCE
from tests.support.shop import MONDAY, House, described


@pytest.mark.parametrize(
    ("again", "entered"),
    [
        ("once", [True, False, False, False]),
        (days(3), [True, False, False, True]),
        ("always", [True, False, True, True]),
    ],
)
def test_entering_again(house: House, again: Any, entered: list[bool]) -> None:
    """On day 0, in mid-journey, a day after it ended, and on day 3."""
    house.open(described(Wait("1d"), entry=OnLaunch(again=again)))
    house.customer()
    seen = []
    for moment in (0, HOUR, 2 * DAY, 3 * DAY + HOUR):
        house.until(MONDAY + moment)
        before = len(house.people())
        house.launch("j")
        seen.append(len(house.people()) > before)
    assert seen == entered


def test_entry_keys_keep_carts_apart(house: House) -> None:
    entry = OnEvent("cart", prop("total") > 10, key="cart_id", again=days(7))
    house.open(described(Wait("1d"), entry=entry))
    ann = house.customer()
    for cart, total in (("a", 20), ("a", 30), ("b", 20), ("c", 5), ("d", "20"), (None, 20)):
        house.did(ann, "cart", cart_id=cart, total=total)
    house.did(ann, "other", cart_id="e", total=99)
    house.run()
    people = house.people(ann)
    assert [(person.entry_key, person.context["total"]) for person in people] == [
        ("a", 20),
        ("b", 20),
        ("", 20),
    ]
    # a is over, but seven days are not
    house.later("2d")
    house.did(ann, "cart", cart_id="a", total=20)
    house.run()
    assert len(house.people(ann)) == 3
    house.later("6d")
    house.did(ann, "cart", cart_id="a", total=20)
    house.run()
    assert len(house.people(ann)) == 4


def test_a_key_of_any_length_enters(house: House) -> None:
    house.open(described(Wait("1d"), entry=OnEvent("cart", key="cart_id", again="always")))
    people = [house.customer() for _ in range(2)]
    long = "".join(map(chr, Random(1).choices(range(0x4E00, 0x9FFF), k=5000)))
    for person, key in zip(people, (long, "short"), strict=True):
        house.did(person, "cart", cart_id=key)
    house.run()
    assert [person.entry_key for person in house.people()] == [long[:255], "short"]
    version = house.segue.catalog.journey("j")
    with house.db.transaction() as tx:
        # in it already, with that key
        assert enter_each(tx, version, [(people[0], {"cart_id": long})], "launch") == []


def test_entering_returns_the_enrollments_that_are_now_due(house: House) -> None:
    event_entry = OnEvent("cart", key="cart_id")
    house.open(described(Wait("1d"), entry=event_entry), described(Wait("1h"), name="k"))
    people = [house.customer() for _ in range(3)]
    house.did(people[0], "cart", cart_id="a")
    by_event, other = map(house.segue.catalog.journey, "jk")
    with house.db.transaction() as tx:
        carts = list(tx.conn.execute(select(events.c.id)).scalars())
        entered = [
            *enter_by_events(tx, by_event, carts),
            *enter_each(tx, by_event, [(people[0], {"cart_id": "b"})], "launch"),
        ]
        assert sorted(entered) == lock_due(tx, by_event, by_event.journey.first_step, 9)
        assert [one.profile_id for one in entered] == [people[0]] * 2
        entered = enter_people(tx, other, people, None)
        assert sorted(entered) == lock_due(tx, other, other.journey.first_step, 9)
        assert {(one.journey, one.version, one.step) for one in entered} == {
            ("k", other.digest, "wait 1h")
        }
        assert enter_people(tx, other, people, None) == []


def test_the_earlier_of_two_concurrent_events_enters(house: House) -> None:
    house.open(described(Wait("1d"), entry=OnEvent("cart", again="always")))
    ann = house.customer()
    for at, number in ((30, 3), (10, 1), (20, 2)):
        house.did(ann, "cart", at=MONDAY + at, number=number)
    house.db.now = MONDAY + 40
    house.run()
    [person] = house.people(ann)
    assert (person.context, person.since) == ({"number": 1}, MONDAY + 10)


def test_a_launch_enters_once_even_where_always_is_the_rule(house: House) -> None:
    house.open(described(Update("u", x=1), entry=OnLaunch(again="always")))
    house.customer()
    assert house.launch("j", launch_id="l")["entered"] == 1
    assert house.launch("j", launch_id="l")["entered"] == 1
    assert len(house.people()) == 1
    house.launch("j", launch_id="m")
    assert len(house.people()) == 2


def test_reentry_once_holds_for_concurrent_processes(house: House) -> None:
    """The other's person has come and gone before it commits."""
    house.open(described(Exit("x")))
    ann = house.customer()
    version = house.segue.catalog.journey("j")

    def enter(launch_id: str) -> int:
        with house.db.transaction() as tx:
            return len(enter_people(tx, version, [ann], launch_id))

    with ThreadPoolExecutor(1) as threads:
        with house.db.transaction() as tx:
            assert len(enter_people(tx, version, [ann], "first")) == 1
            end(tx, list(tx.conn.execute(select(enrollments.c.id)).scalars()), "completed")
            second = threads.submit(enter, "second")
            # it has to wait for us
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
        assert second.result(timeout=PATIENCE) == 0
    assert len(house.people()) == 1


def test_a_launch_has_a_limit(house: House) -> None:
    house.open(described(Update("u", x=1)))
    people = [house.customer() for _ in range(5)]
    assert house.launch("j", people=2, launch_id="l")["entered"] == 2
    assert house.launch("j", people=2, launch_id="l")["entered"] == 2
    assert [person.profile_id for person in house.people()] == people[:2]


def test_a_limit_skips_those_who_may_not_enter(house: House) -> None:
    house.open(described(Update("u", x=1)))
    people = [house.customer() for _ in range(5)]
    house.launch("j", people=2)
    assert house.launch("j", people=2, launch_id="l")["entered"] == 2
    assert [person.profile_id for person in house.people()] == people[:4]


def test_a_launch_id_is_of_one_journey_and_audience(house: House) -> None:
    vips = {"vips": Segment("vips", "The best", attribute("x") == 1)}
    house.open(described(Exit("x")), described(Exit("x"), name="k"), segments=vips)
    house.customer()
    house.launch("j", launch_id="l")
    with pytest.raises(SegueError, match=r"'l' .*of the journey j .*another id"):
        house.launch("k", launch_id="l")
    with pytest.raises(SegueError, match=r"'l' .*for everyone; .*another id"):
        house.launch("j", "vips", launch_id="l")


def test_an_unknown_audience_leaves_no_launch_behind(house: House) -> None:
    house.open(described(Exit("x")))
    with pytest.raises(SegueError, match="no segment 'vips'"):
        house.launch("j", "vips", launch_id="l")
    with pytest.raises(SegueError, match="no journey 'k'"):
        house.launch("k", launch_id="l")
    assert house.launch("j", launch_id="l")["entered"] == 0


def test_audiences_larger_than_a_chunk(house: House) -> None:
    odd = {"odd": Segment("odd", "Every other", attribute("parity") == "odd")}
    house.open(described(Update("u", x=1)), segments=odd)
    people = [
        house.customer(attributes={"parity": ("even", "odd")[number % 2]}) for number in range(23)
    ]
    house.segue.engine.chunks.largest = 4
    assert audience_size(house.segue.engine, "odd") == 11
    assert house.launch("j", "odd")["entered"] == 11
    assert sorted(person.profile_id for person in house.people()) == people[1::2]


def test_a_crash_during_entry_enters_nobody_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    import journeys.launches.launching

    house.open(described(Send("s", Email("hello")), entry=OnLaunch(again="always")))
    people = [house.customer() for _ in range(6)]
    chunks = 0

    def dying(*args: Any) -> list[DueEnrollment]:
        nonlocal chunks
        entered = enter_people(*args)
        chunks += 1
        if chunks in (1, 3):
            raise KeyboardInterrupt
        return entered

    monkeypatch.setattr(journeys.launches.launching, "enter_people", dying)
    for _ in range(2):
        house.segue.engine.chunks.largest = 2
        with pytest.raises(KeyboardInterrupt):
            house.launch("j", launch_id="l")
    house.launch("j", launch_id="l")
    assert [person.profile_id for person in house.people()] == people
    assert len(house.providers.accepted) == 6
