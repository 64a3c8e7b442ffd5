"""Preemption: under a full cap the message of lower priority gives way."""

import pytest
from sqlalchemy import update

from channels.messages import messages
from config.clock.times import HOUR
from config.database.engine import Database
from tests.support.planning.planning_desk import ONE_A_DAY, Desk, explained, message
from tests.support.shop import MONDAY


def test_preemption_is_recorded_in_both_decisions(db: Database) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann = desk.house.customer()
    desk.wants(ann, message(after=60), priority=10, journey="low")
    desk.wants(ann, message(after=120), priority=60, journey="high")
    low, high = desk.rows()
    assert (low.state, low.reason) == ("skipped", "capped")
    assert low.decision["gave_way_to"] == "high / step 2"
    assert low.decision["rule"].startswith("at most 1 email a day: 1 in the day from 2026-03-02")
    assert "It was preempted by high / step 2." in explained(low)
    assert (high.state, high.send_at) == ("planned", MONDAY + 120)
    assert high.decision["took_place_of"] == ["low / step 1 / m0"]
    assert "It preempted low / step 1 / m0." in explained(high)


def test_a_preempted_message_with_defer_is_deferred(db: Database) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann = desk.house.customer()
    desk.wants(ann, message(after=60, on_cap="defer"), priority=10)
    desk.wants(ann, message(after=120), priority=60)
    assert desk.reported() == [
        ("planned", None, "2026-03-03T00:00:00Z"),
        ("planned", None, "2026-03-02T10:02:00Z"),
    ]
    assert desk.rows()[0].decision["gave_way_to"] == "j / step 2"


@pytest.mark.parametrize("priority", [50, 49])
def test_a_message_of_equal_priority_is_not_preempted(db: Database, priority: int) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann = desk.house.customer()
    desk.wants(ann, message(after=60), priority=50)
    desk.wants(ann, message(after=60), priority=priority)
    assert [row.reason for row in desk.rows()] == [None, "capped"]


@pytest.mark.parametrize("state", ["sending", "sent", "delivered", "unknown"])
def test_a_message_that_was_handed_over_is_not_preempted(db: Database, state: str) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann = desk.house.customer()
    desk.wants(ann, message(), priority=10)
    with db.transaction() as tx:
        tx.conn.execute(update(messages).values(state=state))
    desk.wants(ann, message(), priority=90)
    assert [row.reason for row in desk.rows()] == [None, "capped"]


def test_the_lowest_priority_is_preempted_first_then_the_latest(db: Database) -> None:
    desk = Desk(db, caps=[{"channels": "all", "limit": 3, "per": "day"}])
    ann = desk.house.customer()
    for priority, after in ((20, 60), (10, 120), (10, 180)):
        desk.wants(ann, message(after=after), priority=priority)
    for _ in range(3):
        desk.wants(ann, message(after=240), priority=60)
    assert [row.decision.get("gave_way_to") for row in desk.rows()] == [
        "j / step 6", "j / step 5", "j / step 4", None, None, None,
    ]  # fmt: skip
    desk.wants(ann, message(after=240), priority=60)
    assert desk.rows()[-1].reason == "capped"


def test_only_messages_counted_by_the_cap_are_preempted(db: Database) -> None:
    """Two in 24 h. A message planned for tomorrow does not give way, though it is the latest."""
    desk = Desk(db, caps=[{"channels": "all", "limit": 2, "within": "24h"}])
    ann = desk.house.customer()
    desk.wants(ann, message(after=1 * HOUR), priority=10)
    desk.wants(ann, message(after=2 * HOUR), priority=10)
    desk.wants(ann, message(after=26 * HOUR), priority=10)
    desk.wants(ann, message(), priority=60)
    assert [row.state for row in desk.rows()] == ["planned", "skipped", "planned", "planned"]
    gave_way = [row.decision.get("gave_way_to") for row in desk.rows()]
    assert gave_way == [None, "j / step 4", None, None]


def test_a_preempted_message_no_longer_counts(db: Database) -> None:
    """Two carts of one person in one chunk: each takes another's place."""
    desk = Desk(db, caps=[{"channels": "all", "limit": 2, "per": "day"}])
    ann = desk.house.customer()
    desk.wants(ann, message(after=60), priority=10)
    desk.wants(ann, message(after=120), priority=10)
    desk.wants([ann, ann], message(), priority=60)
    assert [row.decision.get("took_place_of") for row in desk.rows()[2:]] == [
        ["j / step 2 / m0"],
        ["j / step 1 / m0"],
    ]


def test_several_caps_at_once(db: Database) -> None:
    caps = [*ONE_A_DAY, {"channels": "all", "limit": 2, "per": "day"}]
    desk = Desk(db, caps=caps)
    ann = desk.house.customer()
    desk.wants(ann, message("email", after=60), priority=10)
    desk.wants(ann, message("push", after=60), priority=20)
    desk.wants(ann, message("email"), message("sms"), priority=60)
    assert [(row.channel, row.state) for row in desk.rows()] == [
        ("email", "skipped"), ("push", "skipped"), ("email", "planned"), ("sms", "planned"),
    ]  # fmt: skip


def test_transactional_messages_keep_their_place(db: Database) -> None:
    caps = [{"channels": ["email"], "limit": 1, "per": "day", "counts": "all"}]
    desk = Desk(db, caps=caps)
    ann = desk.house.customer()
    desk.wants(ann, message(after=60, kind="transactional"), priority=10)
    desk.wants(ann, message(), priority=90)
    assert [row.reason for row in desk.rows()] == [None, "capped"]
    # and they take nobody's: they are never held back
    desk.wants(ann, message(kind="transactional"), priority=90)
    assert [row.reason for row in desk.rows()] == [None, "capped", None]


def test_a_group_with_mode_all_is_preempted_as_a_whole(db: Database) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann, bob = desk.house.customer(), desk.house.customer()
    group = (message("email", after=60, on_cap="defer"), message("push", after=120))
    desk.wants([ann], *group, mode="any", priority=10)
    desk.wants(
        [bob], message("email", after=60), message("push", after=120), mode="all", priority=10
    )
    desk.wants([ann, bob], message(), priority=60)
    # hers moves together, at the same offsets
    assert desk.reported(ann)[:2] == [
        ("planned", None, "2026-03-03T00:00:00Z"),
        ("planned", None, "2026-03-03T00:01:00Z"),
    ]
    # his goes together or not at all
    assert desk.reported(bob)[:2] == [
        ("skipped", "capped", "2026-03-02T10:01:00Z"),
        ("skipped", "group_incomplete", "2026-03-02T10:02:00Z"),
    ]
    assert {row.decision.get("gave_way_to") for row in desk.rows()[:4]} == {"j / step 3"}


def test_the_next_member_of_mode_first_replaces_a_preempted_one(db: Database) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann = desk.house.customer()
    wanted = (message("email", after=60), message("push", after=300), message("sms"))
    desk.wants(ann, *wanted, mode="first", priority=10)
    desk.wants(ann, message(), priority=60)
    assert [(row.channel, row.state, row.reason) for row in desk.rows()] == [
        ("email", "skipped", "capped"),
        ("push", "planned", None),
        ("sms", "skipped", "not_chosen"),
        ("email", "planned", None),
    ]
    assert desk.rows()[1].send_at == MONDAY + 300


def test_a_new_decision_keeps_the_details_of_the_old_one(db: Database) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann = desk.house.customer()
    desk.wants(ann, message(after=60), priority=10)
    desk.wants(ann, message(after=60, on_cap="defer"), priority=20)
    desk.wants(ann, message(after=60), priority=30)
    low, middle, high = (row.decision for row in desk.rows())
    assert low["gave_way_to"] == "j / step 2"
    assert middle["took_place_of"] == ["j / step 1 / m0"]
    assert middle["gave_way_to"] == "j / step 3"
    assert high["took_place_of"] == ["j / step 2 / m0"]
    assert middle["send_at"] == "2026-03-03T00:00:00Z"


def test_a_refused_message_preempts_nothing(db: Database) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann = desk.house.customer()
    desk.wants(ann, message(after=60), priority=10)
    desk.wants(ann, message(topic="x"), message("sms", topic="y"), mode="all", priority=60)
    ann_again = desk.house.customer("ann-2", consent={("email", "*"): True})
    desk.wants(ann_again, message(after=60), priority=10)
    desk.wants(ann_again, message(), message("sms"), mode="all", priority=60)
    assert [row.reason for row in desk.rows(ann)] == ["capped", None, None]
    assert [row.reason for row in desk.rows(ann_again)] == [None, "group_incomplete", "no_consent"]


def test_chunks_of_different_profiles_do_not_preempt_each_other(db: Database) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    people = [desk.house.customer() for _ in range(3)]
    desk.wants(people[:2], message(), priority=10)
    desk.wants(people, message(), priority=60)
    assert [row.reason for row in desk.rows()] == ["capped", "capped", None, None, None]
