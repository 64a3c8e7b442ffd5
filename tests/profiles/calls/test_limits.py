"""Limits of joins: which identifier of a call is left out, its warning, and its record."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import select

from config.clock.times import DAY, Instant
from config.database.engine import Database
from config.join_rules import JoinRules
from journeys.operations.merge import merge
from profiles.calls.record_calls import Outcome, take_calls
from profiles.calls.segment_calls import read_call
from profiles.rules import InputRules
from profiles.tables import events, identifiers, join_limit_hits, merges, profiles
from tests.profiles.calls.test_record_calls import NOW, Said, count, identify, known_as, track


def take(
    db: Database, *said: Said, at: Instant = NOW, limits: Mapping[str, Any] | None = None
) -> list[Outcome]:
    db.now = at
    rules = InputRules(joins=JoinRules.model_validate({"limits": limits or {}}))
    with db.transaction() as tx:
        return take_calls(tx, [read_call(*one) for one in said], merge, rules)


def anonymous(who: str, **said: Any) -> Said:
    return "identify", {"anonymousId": who, **said}


def recorded(db: Database) -> list[tuple[str, str, str, bool]]:
    """(identifier, the kind that has the limit, why, exempt) in order."""
    with db.transaction(write=False) as tx:
        rows = tx.conn.execute(select(join_limit_hits).order_by(join_limit_hits.c.value))
        return [(row.value, row.limited_kind, row.why, row.exempt) for row in rows]


def of_events(db: Database, key: str) -> list[str | None]:
    """By which identifiers the events named the profile that has this one."""
    found = (
        select(events.c.identifier_value)
        .join(identifiers, identifiers.c.profile_id == events.c.profile_id)
        .where(identifiers.c.value == key, events.c.name == "x")
        .order_by(events.c.id)
    )
    with db.transaction(write=False) as tx:
        return list(tx.conn.execute(found).scalars())


def test_the_sixth_anonymous_id_of_a_week_is_left_out(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        [outcome] = take(db, identify("ann", anonymousId=f"a{number}"), at=NOW + number)
        assert outcome == Outcome([])
    with caplog.at_level(logging.WARNING):
        [outcome] = take(db, identify("ann", anonymousId="a5", traits={"plan": "gold"}))
    assert outcome.warnings == [
        "anonymousId is left out: one profile takes at most 5 in 7d of kind anonymous_id "
        "(joins.limits.anonymous_id in the policy)"
    ]
    assert "its anonymous_id is left out at the limit of anonymous_id (at most 5 in 7d)" in (
        caplog.text
    )
    assert ("anonymous_id", "a5") not in known_as(db)
    assert recorded(db) == [("a5", "anonymous_id", "identify", False)]
    # a week after the first one there is room again
    [outcome] = take(db, identify("ann", anonymousId="a5"), at=NOW + 7 * DAY + 1)
    assert outcome == Outcome([])
    assert count(db, profiles) == 1


def test_a_visitor_who_is_left_out_has_a_profile_of_their_own(db: Database) -> None:
    for number in range(6):
        take(db, track("ann", anonymousId=f"a{number}"))
    take(db, ("track", {"anonymousId": "a5", "event": "y"}))
    known = known_as(db)
    assert known["anonymous_id", "a5"] != known["user_id", "ann"]
    [outcome] = take(db, track("ann", anonymousId="a5", messageId="again"))
    assert "at most 5 in 7d" in outcome.warnings[0]
    assert count(db, profiles) == 2
    assert count(db, merges) == 0


def test_a_repeated_hit_is_recorded_once_a_day(db: Database) -> None:
    for number in range(6):
        take(db, track("ann", anonymousId=f"a{number}", messageId=f"{number}"))
    for number in range(3):
        take(db, track("ann", anonymousId="a5", messageId=f"again {number}"))
    assert count(db, join_limit_hits) == 1
    take(db, track("ann", anonymousId="a5", messageId="later"), at=NOW + DAY)
    assert count(db, join_limit_hits) == 2


def test_the_sixth_address_of_a_year_is_left_out(db: Database) -> None:
    for number in range(6):
        said = identify("ann", traits={"email": f"ann{number}@example.com"})
        [outcome] = take(db, said, at=NOW + number * 30 * DAY)
    assert outcome.warnings[0].startswith("traits.email is left out: one profile takes at most 5")
    assert recorded(db) == [("ann5@example.com", "email", "identify", False)]
    # a replaced address that is stated again is not a new one
    [outcome] = take(db, identify("ann", traits={"email": "ann0@example.com"}), at=NOW + 200 * DAY)
    assert outcome == Outcome([])


def test_an_anonymous_id_is_weaker_than_an_address(db: Database) -> None:
    """Customers who sign in by e-mail on one device: from the limit on each has a profile."""
    limits = {"email": {"limit": 1}}
    for number in range(4):
        traits = {"email": f"ann{number}@example.com", "plan": f"p{number}"}
        said = anonymous("tablet", traits=traits, messageId=f"m{number}")
        [outcome] = take(db, said, limits=limits)
        assert bool(outcome.warnings) is (number > 0)
        [repeated] = take(db, said, limits=limits)
        assert repeated.warnings == []
    assert count(db, profiles) == 4
    with db.transaction(write=False) as tx:
        plans = {row["plan"] for row in tx.conn.execute(select(profiles.c.attributes)).scalars()}
    assert plans == {"p0", "p1", "p2", "p3"}
    assert {value for value, *_ in recorded(db)} == {"tablet"}


def test_an_address_that_anyone_can_state_grants_only_an_event(db: Database) -> None:
    """The profile of the address has its week's anonymous ids already."""
    email = {"email": "ann@example.com"}
    take(db, identify("ann", traits={**email, "plan": "gold"}))
    for number in range(5):
        take(db, identify("ann", anonymousId=f"a{number}"))
    [outcome] = take(db, ("track", {"anonymousId": "b", "event": "x", "messageId": "1",
                                    "context": {"traits": {**email, "plan": "none"}}}))  # fmt: skip
    assert outcome.warnings == [
        "anonymousId is left out: one profile takes at most 5 in 7d of kind anonymous_id "
        "(joins.limits.anonymous_id in the policy)",
        "all but the event is left out: anyone can state the address, which is not verified",
    ]
    assert ("anonymous_id", "b") not in known_as(db)
    assert of_events(db, "ann") == ["ann@example.com"]
    with db.transaction(write=False) as tx:
        assert tx.conn.execute(select(profiles.c.attributes)).scalar_one() == {"plan": "gold"}
    # a verified address proves its owner
    traits = {**email, "email_verified": True, "plan": "silver"}
    [outcome] = take(db, anonymous("b", traits=traits))
    assert len(outcome.warnings) == 1
    with db.transaction(write=False) as tx:
        stored = tx.conn.execute(select(profiles.c.attributes)).scalar_one()
        assert stored == {"plan": "silver", "email_verified": True}


def test_two_profiles_over_a_limit_stay_separate(db: Database) -> None:
    for number in range(3):
        take(db, track("ann", anonymousId=f"a{number}"))
    take(db, ("track", {"anonymousId": "b0", "event": "x"}))
    for number in range(1, 4):
        take(db, ("alias", {"userId": "bob", "previousId": f"b{number}"}))
    take(db, ("alias", {"userId": "bob", "previousId": "b0"}))
    [outcome] = take(db, ("alias", {"userId": "ann", "previousId": "bob"}))
    assert outcome.warnings == [
        "previousId is left out: one profile takes at most 5 in 7d of kind anonymous_id "
        "(joins.limits.anonymous_id in the policy)"
    ]
    known = known_as(db)
    assert known["user_id", "ann"] != known["user_id", "bob"]


def test_an_alias_joins_user_ids_beyond_the_limit_and_is_recorded(db: Database) -> None:
    take(db, track("ann"), track("bob"))
    [outcome] = take(db, ("alias", {"userId": "ann", "previousId": "bob"}))
    assert outcome == Outcome([])
    assert count(db, profiles) == 1
    assert recorded(db) == [("bob", "user_id", "alias", True)]


def test_a_second_customer_on_a_device_is_recorded(db: Database) -> None:
    take(db, identify("ann", anonymousId="a"))
    [outcome] = take(db, identify("bob", anonymousId="a"))
    assert outcome.warnings == ["anonymousId is left out: it belongs to another customer"]
    assert recorded(db) == [("a", "user_id", "identify", False)]


def test_a_limit_of_two_user_ids_joins_two(db: Database) -> None:
    limits = {"user_id": {"limit": 2}}
    take(db, identify("ann", anonymousId="a"), limits=limits)
    take(db, identify("ann-old", anonymousId="a"), limits=limits)
    assert count(db, profiles) == 1
    [outcome] = take(db, identify("bob", anonymousId="a"), limits=limits)
    assert "one profile takes at most 2 of kind user_id" in outcome.warnings[0]
    assert count(db, profiles) == 2


def test_without_limits_nothing_is_left_out(db: Database) -> None:
    none = dict.fromkeys(("email", "anonymous_id"), "none")
    for number in range(8):
        traits = {"email": f"ann{number}@example.com"}
        [outcome] = take(db, identify("ann", anonymousId=f"a{number}", traits=traits), limits=none)
        assert outcome == Outcome([])
    assert count(db, join_limit_hits) == 0
