"""Segment entry: at once after an event, else at the next check; once each time a profile joins."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from config.clock.times import days
from journeys.definition.journey import Again
from journeys.dsl import Journey, OnSegment, Segment, Update, Wait, attribute, did
from journeys.engine.segment_entry import enter_newcomers
from journeys.launches.launching import enter_all_newcomers
from journeys.operations import control
from journeys.operations.merge import merge
from journeys.tables import segment_members
from profiles.identity.mergers import Merger
from tests.support.patience import PATIENCE
from tests.support.shop import House

BUYERS = did("bought") & (attribute("blocked") != "yes")
LAPSED = did("bought") & ~did("bought", within=days(90))
SEGMENTS = {
    "buyers": Segment("buyers", "Bought, and not blocked", BUYERS),
    "lapsed": Segment("lapsed", "Not for a while", LAPSED),
}


def entering(segment: str = "buyers", again: Again = "always") -> Journey:
    entry = OnSegment(segment, again=again)
    return Journey("j", entry=entry, topic="news", steps=[Wait("1h")])


def opened(house: House, *journeys: Journey) -> House:
    house.open(*(journeys or (entering(),)), segments=SEGMENTS)
    return house


def ways(house: House, person: int) -> int:
    return len(house.people(person))


def look(house: House) -> int:
    return enter_all_newcomers(house.segue.engine, "j")


def test_an_event_that_makes_a_profile_a_member_enters_it_at_once(house: House) -> None:
    opened(house)
    ann, bob = house.customer(), house.customer()
    house.did(ann, "bought")
    house.did(bob, "looked")
    house.run()
    assert [ways(house, person) for person in (ann, bob)] == [1, 0]
    assert house.people(ann)[0].context == {}


def test_existing_members_do_not_enter(house: House) -> None:
    """Whatever happens and however often the segment is checked, even with again="always"."""
    opened(house)
    ann = house.customer()
    for _ in range(3):
        house.did(ann, "bought")
        house.run()
        house.later("1d")
        assert look(house) == 0
    assert ways(house, ann) == 1


def test_a_profile_that_left_the_segment_may_enter_again(house: House) -> None:
    opened(house)
    ann = house.customer()
    house.did(ann, "bought")
    house.run()
    house.later("1d")
    for blocked in ("yes", "no"):
        house.change(ann, blocked=blocked)
        house.did(ann, "profile_changed")
        house.run()
        assert ways(house, ann) == (1 if blocked == "yes" else 2)


def test_reentry_once_applies_to_segments(house: House) -> None:
    opened(house, entering(again="once"))
    ann = house.customer()
    for blocked in ("no", "yes", "no"):
        house.change(ann, blocked=blocked)
        house.did(ann, "bought")
        house.run()
        house.later("1d")
    assert ways(house, ann) == 1


def test_an_update_step_of_another_journey_enters_new_members(house: House) -> None:
    free = Journey("free", entry=OnSegment("everyone"), topic="news",
                   steps=[Update("u", blocked=None)])  # fmt: skip
    opened(house, entering(), free)
    ann = house.customer(attributes={"blocked": "yes"})
    house.did(ann, "bought")
    house.run()
    assert ways(house, ann) == 0
    assert enter_all_newcomers(house.segue.engine, "free") == 1
    house.run()
    assert [person.journey for person in house.people(ann)] == ["free", "j"]


def test_profiles_that_join_by_time_enter_at_the_next_check(house: House) -> None:
    opened(house, entering("lapsed"))
    house.segue.engine.chunks.largest = 2
    people = [house.customer() for _ in range(5)]
    for person in people[1:]:
        house.did(person, "bought")
    house.run()
    assert look(house) == 0
    house.until(house.now + days(91).days * 86400)
    assert look(house) == 4
    assert look(house) == 0
    house.run()
    house.later("1d")
    house.did(people[1], "bought")
    house.run()
    house.until(house.now + days(91).days * 86400)
    assert look(house) == 1
    assert [ways(house, person) for person in people] == [0, 2, 1, 1, 1]


def test_members_who_join_while_the_journey_is_stopped_enter_later(house: House) -> None:
    opened(house)
    ann = house.customer()
    control.stop(house.db, "j")
    house.did(ann, "bought")
    house.run()
    assert look(house) == ways(house, ann) == 0
    control.resume(house.db, "j")
    assert look(house) == 1


def test_merging_with_a_member_is_not_joining(house: House) -> None:
    opened(house)
    ann, also_ann, bob, also_bob = (house.customer() for _ in range(4))
    for person in (ann, bob, also_bob):
        house.did(person, "bought")
    house.run()
    house.later("1d")
    with house.db.transaction() as tx:
        merge(
            tx,
            [
                Merger(from_id=ann, into_id=also_ann, why="identify"),
                Merger(from_id=bob, into_id=also_bob, why="identify"),
            ],
        )
    house.run()
    assert look(house) == 0
    assert [ways(house, person) for person in (also_ann, also_bob)] == [1, 2]


def test_only_journeys_with_a_segment_entry_have_newcomers(house: House) -> None:
    opened(house, Journey("j", entry=OnSegment("everyone"), topic="n", steps=[Wait("1h")]))
    house.customer()
    assert enter_all_newcomers(house.segue.engine, "k") == 0
    assert look(house) == 1


def test_concurrent_checks_enter_a_member_once(house: House) -> None:
    """The second check waits for the first, and finds no new member."""
    opened(house)
    ann = house.customer()
    house.did(ann, "bought")
    version = house.segue.catalog.journey("j")

    def enter() -> int:
        with house.db.transaction() as tx:
            return len(enter_newcomers(tx, version, BUYERS, [ann]))

    with ThreadPoolExecutor(1) as threads:
        with house.db.transaction() as tx:
            assert len(enter_newcomers(tx, version, BUYERS, [ann])) == 1
            second: Any = threads.submit(enter)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
        assert second.result(timeout=PATIENCE) == 0
    with house.db.transaction(write=False) as tx:
        members = tx.conn.execute(select(segment_members.c.profile_id)).scalars().all()
    assert members == [ann]
