"""The check at the claim: changes since the planning cancel or move a message, or fall back."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from channels.messages import messages
from config.channels import ChannelName
from config.clock.times import HOUR, MINUTE, format_instant
from config.policy import Policy
from journeys.dsl import SMS, Email, Goal, Journey, OnLaunch, Push, Send, attribute, did
from journeys.operations import control
from profiles.tables import profiles
from tests.support.planning.planning_desk import explained
from tests.support.providers.dispatching import DAYTIME, POLICY, reported, sending
from tests.support.providers.suppressing import becomes
from tests.support.shop import MONDAY, House, described


@pytest.mark.parametrize(
    ("channel", "topic", "reason"),
    [("sms", "*", "no_consent"), ("email", "news", "no_consent"), ("email", "other", None)],
)
def test_consent_withdrawn_before_the_claim(
    house: House, channel: ChannelName, topic: str, reason: str | None
) -> None:
    message = {"sms": SMS, "email": Email}[channel]("hello", after="1h")
    house.open(sending(message), policy=POLICY)
    ann = house.customer()
    house.launch("j")
    house.say(ann, channel, topic, granted=False)
    house.later("2h")
    [row] = house.rows()
    assert (row.state, row.reason) == ("skipped" if reason else "sent", reason)
    assert len(house.providers.accepted) == (0 if reason else 1)
    if reason:
        assert row.decision["looked_at_again"] == "at dispatch"
        assert explained(row).startswith("The customer has not agreed to news by")
    [person] = house.people()
    assert person.end_reason == "completed"


def test_a_stop_binds_transactional_texts_too(house: House) -> None:
    house.open(sending(SMS("hello", after="1h"), kind="transactional"), policy=POLICY)
    ann = house.customer()
    house.launch("j")
    house.say(ann, "sms", "*", granted=False)
    house.later("2h")
    assert reported(house) == [("sms", "skipped", "no_consent")]


def test_an_address_that_bounced_before_the_claim(house: House) -> None:
    house.open(sending(), policy=POLICY)
    house.customer("ann")
    house.launch("j")
    becomes(house.db, "email", "ann@example.com", "bounced")
    house.later("2h")
    assert reported(house) == [("email", "skipped", "suppressed")]
    assert house.providers.requests == []


def test_a_window_that_closed_before_the_claim(house: House) -> None:
    """No worker runs until the window has closed."""
    house.open(sending(Email("hello", after="1h"), Push("hello", after="2h")), policy=POLICY)
    house.customer()
    house.launch("j")
    house.db.now = MONDAY + 11 * HOUR
    house.run()
    # it is moved, and what goes with it too
    assert [(one.state, one.send_at) for one in house.outbox()] == [
        ("planned", "2026-03-03T08:00:00Z"),
        ("planned", "2026-03-03T09:00:00Z"),
    ]
    house.later("1d")
    assert [(one.state, one.send_at) for one in house.outbox()] == [
        ("sent", "2026-03-03T08:00:00Z"),
        ("sent", "2026-03-03T09:00:00Z"),
    ]


def test_a_time_zone_that_changed_before_the_claim(house: House) -> None:
    house.open(sending(), policy=POLICY)
    ann = house.customer()
    house.launch("j")
    with house.db.transaction() as tx:
        moved = update(profiles).where(profiles.c.id == ann).values(timezone="Asia/Tokyo")
        tx.conn.execute(moved)
    house.later("1h")
    [row] = house.rows()
    assert (row.state, format_instant(row.send_at)) == ("planned", "2026-03-02T23:00:00Z")
    assert row.decision["timezone"] == "Asia/Tokyo"


@pytest.mark.parametrize(("on_cap", "state"), [("skip", "skipped"), ("defer", "planned")])
def test_a_cap_reached_before_the_claim(house: House, on_cap: str, state: str) -> None:
    house.open(sending(Email("hello", after="1h", on_cap=on_cap)), policy=POLICY)
    house.customer()
    house.launch("j")
    [row] = house.rows()
    with house.db.transaction() as tx:
        # another system sent one, and told us so
        another = {**row._mapping, "enrollment_id": 99, "state": "sent", "send_at": MONDAY}
        del another["id"]
        tx.conn.execute(insert(messages).values(**another))
    house.later("2h")
    assert house.providers.requests == []
    row = house.rows()[0]
    assert (row.state, row.reason) == (state, "capped" if state == "skipped" else None)
    assert state == "skipped" or format_instant(row.send_at) == "2026-03-03T08:00:00Z"


def test_a_late_message_counts_against_caps_at_its_send_time(house: House) -> None:
    """The next, planned for 24 hours after the first was planned, waits for 24 after it went."""
    wanted = Send("s", SMS("offer", on_cap="defer"))
    other = Journey("k", entry=OnLaunch(), topic="news", steps=[wanted])
    house.open(sending(SMS("hello", after="1h")), other, policy=POLICY)
    house.customer()
    house.launch("j")
    house.launch("k")
    assert house.outbox()[1].send_at == "2026-03-03T11:00:00Z"
    house.db.now = MONDAY + 9 * HOUR
    house.run()
    house.later("3d")
    assert [(one.state, one.send_at) for one in house.outbox()] == [
        ("sent", "2026-03-02T19:00:00Z"),
        ("sent", "2026-03-03T19:00:00Z"),
    ]


def test_an_exit_rule_that_is_not_processed_yet_cancels_the_message(house: House) -> None:
    house.open(sending(exit_when=did("bought") | (attribute("gone") == 1)), policy=POLICY)
    ann, bob, cleo = (house.customer() for _ in range(3))
    house.launch("j")
    house.did(ann, "bought")
    house.change(bob, gone=1)
    house.db.now = MONDAY + HOUR
    assert house.dispatch() == {("j", "email", "sent"): 1, ("j", "email", "cancelled"): 2}
    assert [(row.profile_id, row.state, row.reason) for row in house.rows()] == [
        (ann, "cancelled", "exited: exit rule"),
        (bob, "cancelled", "exited: exit rule"),
        (cleo, "sent", None),
    ]


@pytest.mark.parametrize("evidence", ["opened", "clicked"])
def test_stop_on_counts_only_evidence_about_messages_of_the_step(
    house: House, evidence: str
) -> None:
    """Bob does the same as Ann, but with another journey's mail."""
    stopping = sending(Email("hello"), SMS("hello", after="1h"), stop_on=evidence)
    house.open(described(Send("s", Email("offer")), name="k"), stopping)
    ann, bob = house.customer(), house.customer()
    house.launch("k")
    house.launch("j")
    mails = {(row.profile_id, row.journey): row.id for row in house.rows() if row.state == "sent"}
    house.db.now = MONDAY + 30 * MINUTE
    # it came, and nobody has worked it yet
    house.did(ann, f"email_{evidence}", message_id=mails[ann, "j"])
    house.did(bob, f"email_{evidence}", message_id=mails[bob, "k"])
    house.db.now = MONDAY + HOUR
    assert house.dispatch() == {("j", "sms", "sent"): 1, ("j", "sms", "cancelled"): 1}
    assert [
        (row.profile_id, row.state, row.reason) for row in house.rows() if row.channel == "sms"
    ] == [(ann, "cancelled", f"stopped: {evidence}"), (bob, "sent", None)]


def test_stop_on_converted_counts_the_goal_event(house: House) -> None:
    """Bob does with his mail what can be done, but does not buy."""
    goal = Goal(did=did("bought"), within="5d")
    wanted = Email("hello"), SMS("hello", after="1h")
    house.open(sending(*wanted, stop_on="converted", goal=goal), policy=POLICY)
    ann, bob = house.customer(), house.customer()
    house.launch("j")
    house.db.now = MONDAY + 30 * MINUTE
    house.did(ann, "bought")
    house.did(bob, "email_opened")
    house.did(bob, "email_clicked")
    house.db.now = MONDAY + HOUR
    assert house.dispatch() == {("j", "sms", "sent"): 1, ("j", "sms", "cancelled"): 1}
    assert reported(house) == [
        ("email", "sent", None),
        ("sms", "cancelled", "stopped: converted"),
        ("email", "sent", None),
        ("sms", "sent", None),
    ]


def first_push_then_mail(**options: Any) -> Journey:
    fallback = {"mode": "first", "fallback_after": "2h", "unless": "opened"} | options
    return sending(Push("hello"), Email("hello"), **fallback)


def test_evidence_before_the_fallback_is_sent_cancels_it(house: House) -> None:
    """At 21:00 the mail has to wait for the morning; the push is opened at night."""
    windows = {"email": DAYTIME}
    house.open(first_push_then_mail(), policy=Policy.model_validate({"channels": windows}))
    ann, bob = house.customer(), house.customer()
    house.db.now = MONDAY + 9 * HOUR
    house.launch("j")
    house.later("3h")
    assert [(row.channel, row.state) for row in house.rows()] == [
        ("push", "sent"), ("push", "sent"), ("email", "planned"), ("email", "planned"),
    ]  # fmt: skip
    house.later("1h")
    house.did(ann, "push_opened")
    house.later("1d")
    assert reported(house)[2:] == [
        ("email", "cancelled", "stopped: opened"),
        ("email", "sent", None),
    ]
    assert house.rows()[2].profile_id == ann
    assert {person.end_reason for person in house.people()} == {"completed"}
    assert house.rows()[3].profile_id == bob


def test_evidence_is_about_its_own_message(house: House) -> None:
    house.open(first_push_then_mail(), policy=POLICY)
    ann, bob, cleo, dan = (house.customer() for _ in range(4))
    # an earlier one
    house.did(dan, "push_opened", at=MONDAY - HOUR)
    house.launch("j")
    push_of = {row.profile_id: row.id for row in house.rows()}
    house.db.now = MONDAY + MINUTE
    house.did(ann, "push_opened", message_id=str(push_of[ann]))
    house.did(bob, "push_opened", message_id="999999")
    house.did(cleo, "push_opened", message_id=push_of[cleo])
    house.later("3h")
    mails = [one.to for one in house.providers.accepted if one.channel == "email"]
    assert sorted(mails) == ["c2@example.com", "c4@example.com"]


def test_a_paused_journey_sends_nothing(house: House) -> None:
    house.open(sending(), policy=POLICY)
    house.customer()
    house.launch("j")
    control.pause(house.db, "j")
    house.later("3h")
    assert reported(house) == [("email", "planned", None)]
    control.resume(house.db, "j")
    house.run()
    assert reported(house) == [("email", "sent", None)]


def test_a_message_claimed_shortly_after_its_latest_time_is_sent(house: House) -> None:
    """Wanted within an hour, the window opens in an hour: it leaves then, not a second too late."""
    house.open(sending(Email("hello", max_delay="1h")), policy=POLICY)
    house.customer()
    house.db.now = MONDAY - 3 * HOUR
    house.launch("j")
    house.db.now = MONDAY - 2 * HOUR + 2
    house.run()
    assert reported(house) == [("email", "sent", None)]


def test_a_message_past_its_max_delay_is_not_sent(house: House) -> None:
    house.open(sending(Email("hello", after="10m", max_delay="1h")), policy=POLICY)
    house.customer()
    house.launch("j")
    house.db.now = MONDAY + 3 * HOUR
    house.run()
    [row] = house.rows()
    assert (row.state, str(row.reason).split(":")[0]) == ("skipped", "expired")
    assert house.providers.requests == []
    house.later("1h")
    assert house.people()[0].end_reason == "completed"


def test_mode_all_applies_at_the_claim(house: House) -> None:
    wanted = Email("hello", after="1h"), Push("hello", after="1h"), SMS("hello", after="2h")
    house.open(sending(*wanted, mode="all"), policy=POLICY)
    ann, bob, cleo = (house.customer() for _ in range(3))
    house.launch("j")
    house.say(ann, "sms", "*", granted=False)
    house.say(bob, "push", "*", granted=False)
    house.later("1d")
    assert [(row.state, row.reason) for row in house.rows()] == [
        ("skipped", "group_incomplete"), ("skipped", "group_incomplete"), ("skipped", "no_consent"),
        ("skipped", "group_incomplete"), ("skipped", "no_consent"), ("skipped", "group_incomplete"),
        ("sent", None), ("sent", None), ("sent", None),
    ]  # fmt: skip
    assert {house.rows()[6].profile_id} == {cleo}


def test_mode_all_waits_for_the_member_that_is_deferred(house: House) -> None:
    """The mail's place is taken meanwhile; the push, due at the same moment, stays with it."""
    wanted = Email("hello", after="1h", on_cap="defer"), Push("hello", after="1h")
    house.open(sending(*wanted, mode="all"), policy=POLICY)
    house.customer()
    house.launch("j")
    mail = house.rows()[0]
    another = {**mail._mapping, "enrollment_id": 99, "state": "sent", "send_at": MONDAY}
    del another["id"]
    with house.db.transaction() as tx:
        tx.conn.execute(insert(messages).values(**another))
    house.later("2d")
    assert [(one.state, one.send_at) for one in house.outbox()[:2]] == [
        ("sent", "2026-03-03T08:00:00Z"),
        ("sent", "2026-03-03T08:00:00Z"),
    ]


def test_a_refusal_at_the_claim_hands_over_to_the_next_channel(house: House) -> None:
    house.open(
        sending(SMS("hello", after="1h"), Email("hello", after="1h"), mode="first"), policy=POLICY
    )
    ann = house.customer()
    house.launch("j")
    house.say(ann, "sms", "*", granted=False)
    house.later("2h")
    assert reported(house) == [("sms", "skipped", "no_consent"), ("email", "sent", None)]
    assert [one.channel for one in house.providers.accepted] == ["email"]


def test_the_message_with_the_higher_priority_takes_the_last_place_under_a_cap(
    house: House,
) -> None:
    """Both were planned before there was a cap; the new policy leaves room for one."""
    journeys = [
        Journey(
            name,
            entry=OnLaunch(),
            topic="n",
            priority=priority,
            steps=[Send("s", Email("hello", after="1h"))],
        )
        for name, priority in (("low", 10), ("high", 60))
    ]
    house.open(*journeys)
    house.customer()
    for name in ("low", "high"):
        house.launch(name)
    house.open(*journeys, policy=POLICY)
    house.later("1h")
    assert [(row.journey, row.state, row.reason) for row in house.rows()] == [
        ("low", "skipped", "capped"),
        ("high", "sent", None),
    ]
