"""Planning: one row with a decision for every requested message; caps count per profile."""

from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from channels.messages.transitions import Addressee
from channels.outbox.plan import PlannedSend, plan, refuse
from channels.rules.loaders import load_recipients
from channels.rules.planner import Wanted
from config.clock.times import DAY, HOUR, Instant
from config.database.engine import Database
from config.policy import Policy
from journeys.dsl import Email, Journey, OnEvent, OnLaunch, Send, prop
from profiles.identity.addresses import Suppressed, suppress
from profiles.tables import SuppressionState, identifiers, preferences
from tests.support.planning.planning_desk import OFFICE, ONE_A_DAY, Desk, at, explained, message
from tests.support.shop import MONDAY, House

# A row and a decision for everything -------------------------------------------------------------


def test_every_message_has_its_row_and_its_decision(db: Database) -> None:
    desk = Desk(db, channels={"email": {"windows": OFFICE}}, caps=ONE_A_DAY)
    ann = desk.house.customer(timezone="Europe/Berlin")
    desk.house.db.now = at("2026-03-02T18:00:00Z")
    [decisions] = desk.wants(ann, message(), message("push", after=600), mode="any")
    row, push = desk.rows(ann)
    assert decisions[0].send_at == row.send_at == at("2026-03-03T08:00:00Z")
    assert (row.profile_id, row.enrollment_id, row.journey, row.version) == (ann, 1000, "j", "v")
    assert (row.step, row.member, row.channel, row.kind) == ("step 1", "m0", "email", "marketing")
    assert (row.topic, row.priority, row.mode, row.after) == ("news", 50, "any", 0)
    assert (row.state, row.reason, row.attempts) == ("planned", None, 0)
    assert (row.wanted_at, row.latest_anchor) == (desk.house.now, desk.house.now + 7 * DAY)
    assert row.decision == {
        "outcome": "send",
        "send_at": "2026-03-03T08:00:00Z",
        "reason": None,
        "rule": None,
        "timezone": "Europe/Berlin",
        "timezone_source": "profile",
    }
    assert (push.send_at, push.member, push.after) == (row.send_at + 600, "m1", 600)
    assert explained(row).startswith("It waits for its send time. Windows and caps delayed it")


@pytest.mark.parametrize(
    ("said", "wanted", "reason", "rule"),
    [
        ({"phone": None}, message("sms"), "no_address", None),
        ({"consent": {}}, message("sms"), "no_consent", None),
        ({"consent": {("email", "news"): False}}, message(), "no_consent", None),
        ({}, message("push", max_delay=HOUR), "window_closed", "push window sat 09:00-10:00"),
        ({}, message("email"), "capped", "at most 0 email a day: 0 in the day from 2026-03-02"),
    ],
)
def test_every_refusal_has_its_row_and_its_reason(
    db: Database, said: dict[str, Any], wanted: Wanted, reason: str, rule: str | None
) -> None:
    desk = Desk(
        db,
        channels={"push": {"windows": [{"days": "sat", "from": "09:00", "to": "10:00"}]}},
        caps=[{"channels": ["email"], "limit": 0, "per": "day"}],
    )
    ann = desk.house.customer(**said)
    [[decision]] = desk.wants(ann, wanted)
    [row] = desk.rows(ann)
    assert (decision.send_at, decision.reason) == (None, reason)
    assert (row.state, row.reason, row.send_at) == ("skipped", reason, MONDAY)
    assert (row.decision["outcome"], row.decision["reason"]) == ("not_sent", reason)
    assert row.decision["rule"] == decision.rule
    assert (decision.rule or "").startswith(rule or "")
    assert bool(rule) == bool(decision.rule)


def test_refusal_reasons_of_group_members(db: Database) -> None:
    desk = Desk(db)
    ann = desk.house.customer(consent={("email", "*"): True})
    desk.wants(ann, message("email"), message("sms"), mode="all")
    desk.wants(ann, message("sms"), message("email"), message("push"), mode="first")
    assert [row.reason for row in desk.rows()] == [
        "group_incomplete", "no_consent",
        "no_consent", None, "not_chosen",
    ]  # fmt: skip


def test_a_member_without_a_common_time_is_skipped(db: Database) -> None:
    hours = {"email": "09:00", "push": "15:00"}
    windows = {
        channel: {"windows": [{"days": "mon-sun", "from": opens, "to": f"{opens[:2]}:30"}]}
        for channel, opens in hours.items()
    }
    desk = Desk(db, channels=windows)
    ann = desk.house.customer()
    desk.wants(ann, message("email"), message("push"))
    assert desk.reported() == [
        ("planned", None, "2026-03-03T09:00:00Z"),
        ("skipped", "no_common_time", "2026-03-02T10:00:00Z"),
    ]


def test_the_decision_names_the_source_of_the_zone(db: Database) -> None:
    desk = Desk(db, timezone="Europe/Paris")
    people = [
        desk.house.customer(timezone="Asia/Tokyo", country="DE"),
        desk.house.customer(timezone="Mars/Base", country="DE"),
        desk.house.customer(timezone=None, country="NZ"),
        desk.house.customer(timezone=None),
        desk.house.customer(timezone=None, phone=None),
    ]
    desk.wants(people, message())
    told = [(row.decision["timezone"], row.decision["timezone_source"]) for row in desk.rows()]
    assert told == [
        ("Asia/Tokyo", "profile"),
        # Germany has two in zone.tab
        (["Europe/Berlin", "Europe/Busingen"], "country"),
        (["Pacific/Auckland", "Pacific/Chatham"], "country"),
        ("Europe/London", "phone"),
        ("Europe/Paris", "brand"),
    ]
    assert [row.decision.get("invalid_timezone") for row in desk.rows()] == [
        None, "Mars/Base", None, None, None,
    ]  # fmt: skip
    assert "The recorded time zone Mars/Base does not exist." in explained(desk.rows()[1])


def test_the_holdout_gets_no_marketing(db: Database) -> None:
    desk = Desk(db, holdout_percent=50)
    people = [desk.house.customer() for _ in range(40)]
    desk.wants(people, message())
    held = {row.profile_id for row in desk.rows() if row.reason == "held_out"}
    assert 5 <= len(held) <= 35
    # the same people every time, and what is no marketing reaches them
    desk.wants(people, message("push"), message(kind="transactional", after=5))
    later = desk.rows()[40:]
    assert {row.profile_id for row in later if row.reason == "held_out"} == held
    assert [row.reason for row in later if row.kind == "transactional"] == [None] * 40


def test_planning_a_message_twice_is_an_integrity_error(db: Database) -> None:
    desk = Desk(db)
    ann = desk.house.customer()
    send = PlannedSend(
        journey="j", version="v", step="s", priority=50, mode="any", members=(("m", message()),)
    )
    with desk.house.db.transaction() as tx:
        plan(tx, desk.planner, send, [Addressee(ann, 1)])
    with pytest.raises(IntegrityError), desk.house.db.transaction() as tx:
        plan(tx, desk.planner, send, [Addressee(ann, 1)])
    assert len(desk.rows()) == 1


def test_a_refused_step_has_rows_and_decisions(db: Database) -> None:
    desk = Desk(db)
    ann, bob = desk.house.customer(), desk.house.customer()
    send = PlannedSend(
        journey="j",
        version="v",
        step="s",
        priority=50,
        mode="first",
        members=(("m", message()), ("n", message("sms"))),
    )
    with desk.house.db.transaction() as tx:
        refuse(tx, desk.planner, send, [Addressee(ann, 1), Addressee(bob, 2)], "not_chosen")
    assert [(row.profile_id, row.member, row.reason) for row in desk.rows()] == [
        (ann, "m", "not_chosen"), (ann, "n", "not_chosen"),
        (bob, "m", "not_chosen"), (bob, "n", "not_chosen"),
    ]  # fmt: skip


# Addresses ----------------------------------------------------------------------------------------


def addresses(
    db: Database, profile: int, *found: tuple[str, SuppressionState | None, Instant]
) -> None:
    """More e-mail addresses: value, why it is suppressed, seen at."""
    with db.transaction() as tx:
        for value, state, seen_at in found:
            row = {"kind": "email", "value": value, "profile_id": profile}
            tx.conn.execute(insert(identifiers).values(**row, seen_at=seen_at))
            if state is not None:
                suppress(tx, [Suppressed("email", value, state)])


def test_of_several_addresses_the_one_seen_last_is_in_use(db: Database) -> None:
    """As a release before retired addresses left them."""
    house = House(db)
    entry = OnLaunch(again="always")
    house.open(Journey("j", entry=entry, topic="n", steps=[Send("s", Email("hello"))]))
    ann = house.customer("ann")
    addresses(
        db,
        ann,
        ("new@example.com", None, MONDAY + 60),
        ("old@example.com", None, MONDAY - 60),
    )
    house.launch("j")
    assert [mail.to for mail in house.providers.accepted] == ["new@example.com"]
    addresses(db, ann, ("newest@example.com", "bounced", MONDAY + 120))
    assert house.launch("j")["not_sent"] == {"suppressed": 1}
    assert [mail.to for mail in house.providers.accepted] == ["new@example.com"]


def test_a_suppressed_address_in_use_suppresses_the_channel(db: Database) -> None:
    desk = Desk(db)
    ann = desk.house.customer("ann")
    addresses(db, ann, ("second@example.com", "bounced", MONDAY + 60))
    desk.wants(ann, message(), message("push"))
    assert [row.reason for row in desk.rows()] == ["suppressed", None]


def test_the_time_zone_follows_the_phone_number_in_use(db: Database) -> None:
    desk = Desk(db)
    ann = desk.house.customer("ann", timezone=None)
    with db.transaction() as tx:
        for value, country, seen_at in (
            ("+81312345678", "JP", MONDAY + 60),
            ("+4915112345678", "DE", MONDAY - 60),
        ):
            row = {"kind": "phone", "value": value, "country": country, "profile_id": ann}
            tx.conn.execute(insert(identifiers).values(**row, seen_at=seen_at))
        retired = {"kind": "phone", "value": "+33612345678", "country": "FR", "profile_id": ann}
        tx.conn.execute(
            insert(identifiers).values(**retired, seen_at=MONDAY + 120, retired_at=MONDAY + 120)
        )
        recipient = load_recipients(tx, desk.planner.policy, [ann])[ann]
    assert recipient.situation.zones.names == ("Asia/Tokyo",)


# Counting -----------------------------------------------------------------------------------------


def test_messages_of_two_carts_of_one_profile_count_against_the_same_caps(db: Database) -> None:
    desk = Desk(db, caps=ONE_A_DAY)
    ann, bob = desk.house.customer(), desk.house.customer()
    desk.wants([ann, ann, bob], message())
    assert [(row.profile_id, row.reason) for row in desk.rows()] == [
        (ann, None),
        (ann, "capped"),
        (bob, None),
    ]


def test_a_send_step_counts_several_carts_against_the_same_caps(db: Database) -> None:
    house = House(db)
    entry = OnEvent("cart", prop("total") > 0, key="cart_id", again="always")
    policy = Policy.model_validate({"caps": ONE_A_DAY})
    described = Journey("j", entry=entry, topic="n", steps=[Send("s", Email("hello"))])
    house.open(described, policy=policy)
    ann = house.customer()
    for cart in ("a", "b", "c"):
        house.did(ann, "cart", cart_id=cart, total=1)
    house.run()
    assert [(one.state, one.reason) for one in house.outbox()] == [
        ("sent", None), ("skipped", "capped"), ("skipped", "capped"),
    ]  # fmt: skip


def test_a_deferred_message_is_sent_when_it_first_fits(db: Database) -> None:
    desk = Desk(db, caps=[{"channels": ["email"], "limit": 1, "within": "24h"}])
    ann = desk.house.customer()
    desk.wants(ann, message())
    desk.house.db.now = MONDAY + HOUR
    desk.wants(ann, message(on_cap="defer"))
    desk.wants(ann, message(on_cap="defer", max_delay=22 * HOUR))
    assert desk.reported() == [
        ("planned", None, "2026-03-02T10:00:00Z"),
        ("planned", None, "2026-03-03T10:00:00Z"),
        ("skipped", "capped", "2026-03-02T11:00:00Z"),
    ]


def test_limits_from_the_preference_center_apply(db: Database) -> None:
    desk = Desk(db)
    ann = desk.house.customer()
    with db.transaction() as tx:
        own = {"per_week": 1, "opens": 14 * HOUR, "closes": 16 * HOUR, "changed_at": MONDAY}
        tx.conn.execute(insert(preferences).values(profile_id=ann, **own))
    desk.wants(ann, message())
    desk.wants(ann, message("push"))
    desk.wants(ann, message(kind="transactional"))
    assert desk.reported() == [
        ("planned", None, "2026-03-02T14:00:00Z"),
        ("skipped", "capped", "2026-03-02T10:00:00Z"),
        ("planned", None, "2026-03-02T10:00:00Z"),
    ]


def test_the_chosen_time_zone_overrides_other_sources(db: Database) -> None:
    evening = {"windows": [{"days": "mon-sun", "from": "20:00", "to": "21:00"}]}
    desk = Desk(db, channels={"email": evening})
    chosen = {
        desk.house.customer(timezone="Europe/Berlin"): "Asia/Tokyo",
        desk.house.customer(timezone="Mars/Base", country="DE"): "Asia/Tokyo",
        desk.house.customer(timezone="Europe/Berlin"): "Mars/Olympus",  # a zone that there was once
        desk.house.customer(timezone="Europe/Berlin"): None,
    }
    with db.transaction() as tx:
        own = [
            {"profile_id": one, "timezone": zone, "changed_at": MONDAY}
            for one, zone in chosen.items()
        ]
        tx.conn.execute(insert(preferences), own)
    desk.wants([*chosen], message())
    tokyo, berlin = "2026-03-02T11:00:00Z", "2026-03-02T19:00:00Z"
    assert [send_at for _, _, send_at in desk.reported()] == [tokyo, tokyo, berlin, berlin]
    decisions = [row.decision for row in desk.rows()]
    assert {one["timezone_source"] for one in decisions} == {"profile"}
    assert [one.get("timezone_chosen") for one in decisions] == [True, True, None, None]
    assert [one.get("invalid_timezone") for one in decisions] == [None, None, "Mars/Olympus", None]
    told = [explained(row) for row in desk.rows()]
    assert "Time zone: Asia/Tokyo, which the customer chose." in told[0]
    assert "Time zone: Europe/Berlin (the customer's record)." in told[3]
