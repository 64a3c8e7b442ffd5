"""A `first` send: the fallback is sent if the previous message can't be sent or has no evidence in
time; never while the outcome of that one is open, and never after evidence.
"""

from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from channels.messages import messages
from channels.outbox.unknown import settle_lost
from config.channels import ChannelName
from config.clock.times import HOUR, MINUTE
from config.policy import Policy
from config.timing import TIMING
from journeys.definition.steps import MessageSpec
from journeys.dsl import SMS, Email, Goal, Journey, OnLaunch, Push, Send, Update, Wait, did
from tests.support.providers.dispatching import DAYTIME
from tests.support.shop import MONDAY, House

# Mail by day only; the others at any hour.
MAIL_BY_DAY = Policy.model_validate({"channels": {"email": DAYTIME}})
EVENING = MONDAY + 11 * HOUR  # 21:00
MORNING = MONDAY + 22 * HOUR  # 08:00 the day after


def first(*wanted: MessageSpec, name: str = "j", priority: int = 50, **options: Any) -> Journey:
    fallback = {"mode": "first", "fallback_after": "2h", "unless": "opened"} | options
    steps = [Send("s", *wanted, **fallback), Update("done", done=True)]
    return Journey(name, entry=OnLaunch(), topic="news", steps=steps, priority=priority)


MAIL_THEN_TEXT = first(Email("hello"), SMS("hello"))


def went(house: House) -> list[tuple[ChannelName, int]]:
    """What was handed over, in minutes after the launch."""
    with house.db.transaction(write=False) as tx:
        found = select(messages.c.channel, messages.c.send_at).where(
            messages.c.state.in_(["sent", "delivered", "unknown", "failed"])
        )
        rows = tx.conn.execute(found.order_by(messages.c.id))
        return [(channel, (at - MONDAY) // MINUTE) for channel, at in rows]


def becomes(house: House, state: str) -> None:
    """Record the provider's report about the first message."""
    first_one = house.rows()[0].id
    with house.db.transaction() as tx:
        tx.conn.execute(update(messages).where(messages.c.id == first_one).values(state=state))


# When the channel before can't --------------------------------------------------------------------


@pytest.mark.parametrize("word", ["email_bounced", "email_failed"])
def test_a_bounce_starts_the_fallback_at_once(house: House, word: str) -> None:
    house.open(MAIL_THEN_TEXT)
    ann = house.customer()
    house.launch("j")
    house.later("30m")
    becomes(house, "failed")
    house.did(ann, word)
    house.run()
    assert went(house) == [("email", 0), ("sms", 30)]


def test_a_refused_message_starts_the_fallback_at_once(house: House) -> None:
    house.open(MAIL_THEN_TEXT)
    house.customer()
    house.providers.answer("email", httpx.Response(400, json={}))
    house.launch("j")
    assert went(house) == [("email", 0), ("sms", 0)]


def at_night(house: House, *journeys: Journey, policy: Policy = MAIL_BY_DAY) -> int:
    """Ann, whose mail waits for the morning."""
    house.open(*journeys, policy=policy)
    ann = house.customer()
    house.db.now = EVENING
    house.launch("j")
    return ann


def test_a_refusal_at_the_claim_starts_the_fallback_at_once(house: House) -> None:
    ann = at_night(house, MAIL_THEN_TEXT)
    house.say(ann, "email", "*", granted=False)
    house.until(MORNING)
    house.run()
    assert went(house) == [("sms", 22 * 60)]


def test_a_missing_template_variable_starts_the_fallback_at_once(house: House) -> None:
    texts = {"hello.email.html": "Subject: {{ profile.x }}\n\n<p>x</p>", "hello.sms.txt": "x"}
    house.open(MAIL_THEN_TEXT, texts=texts)
    house.customer()
    house.launch("j")
    assert went(house) == [("sms", 0)]


def test_an_expired_message_starts_the_fallback_at_once(house: House) -> None:
    step = first(Email("hello", max_delay="0s"), SMS("hello"))
    house.open(step)
    house.customer()
    house.providers.answer("email", httpx.Response(429, headers={"retry-after": "1800"}))
    house.launch("j")
    [mail] = house.rows()
    house.until(mail.send_at)
    house.run()
    assert went(house) == [("sms", (mail.send_at - MONDAY) // MINUTE)]


def test_a_preempted_message_starts_the_fallback_at_once(house: House) -> None:
    caps = [{"channels": ["email"], "limit": 1, "per": "day"}]
    policy = Policy.model_validate({"channels": {"email": DAYTIME}, "caps": caps})
    more = Journey("k", entry=OnLaunch(), topic="news", priority=90,
                   steps=[Send("s", Email("offer"))])  # fmt: skip
    at_night(house, MAIL_THEN_TEXT, more, policy=policy)
    house.db.now = EVENING + HOUR
    house.launch("k")
    house.run()
    assert [(row.channel, row.state) for row in house.rows()] == [
        ("email", "skipped"),
        ("email", "planned"),
        ("sms", "sent"),
    ]
    assert went(house) == [("sms", 12 * 60)]


def test_a_late_bounce_does_not_start_the_fallback_after_the_next(house: House) -> None:
    house.open(first(Email("hello"), SMS("hello"), Push("hello")))
    ann = house.customer()
    house.launch("j")
    house.until(MONDAY + 150 * MINUTE)
    becomes(house, "failed")
    house.did(ann, "email_bounced")
    house.run()
    assert went(house) == [("email", 0), ("sms", 120)]
    house.later("1d")
    assert went(house) == [("email", 0), ("sms", 120), ("push", 240)]


# While it may be under way ------------------------------------------------------------------------


def test_no_fallback_while_the_previous_message_is_unknown(house: House) -> None:
    """A process died during the hand-over, so the step waits for evidence of the message."""
    house.open(MAIL_THEN_TEXT)
    house.customer()
    house.launch("j")
    with house.db.transaction() as tx:
        tx.conn.execute(
            update(messages).values(state="sending", not_after=tx.now + TIMING.claim_lasts)
        )
    while house.now < MONDAY + TIMING.claim_lasts + TIMING.lost_after:
        house.later("1m")
    house.run()
    assert [row.state for row in house.rows()] == ["sending"]
    house.db.now = house.now + 1
    with house.db.transaction() as tx:
        assert settle_lost(tx) == 1
    house.until(MONDAY + 2 * HOUR - 1)
    assert went(house) == [("email", 0)]
    house.later("1m")
    assert went(house) == [("email", 0), ("sms", 120)]


def test_a_message_that_is_retried_does_not_start_the_fallback(house: House) -> None:
    house.open(MAIL_THEN_TEXT)
    house.customer()
    house.providers.answer("email", *[httpx.Response(503) for _ in range(4)])
    house.launch("j")
    house.later("1h")
    [(channel, minutes)] = went(house)
    assert (channel, minutes > 0) == ("email", True)
    house.until(MONDAY + minutes * MINUTE + 2 * HOUR - MINUTE)
    assert len(went(house)) == 1
    house.later("5m")
    assert [channel for channel, _ in went(house)] == ["email", "sms"]


# When there is an answer --------------------------------------------------------------------------


def test_a_reply_cancels_planned_messages_and_moves_on_at_once(house: House) -> None:
    """The push was not opened in time, so the mail is planned for the morning; then it is."""
    ann = at_night(house, first(Push("hello"), Email("hello"), SMS("hello")))
    house.later("3h")
    assert [(row.channel, row.state) for row in house.rows()] == [
        ("push", "sent"),
        ("email", "planned"),
    ]
    house.later("1h")
    house.did(ann, "push_opened")
    house.run()
    assert [(row.channel, row.state, row.reason) for row in house.rows()] == [
        ("push", "sent", None),
        ("email", "cancelled", "stopped: opened"),
        ("sms", "skipped", "not_chosen"),
    ]
    assert house.attributes(ann) == {"done": True}
    house.later("1d")
    assert len(house.providers.accepted) == 1


def test_a_reply_without_a_message_id_belongs_to_the_last_message(house: House) -> None:
    pushed = Push("hello"), Email("hello")
    house.open(first(*pushed), first(*pushed, name="k"))
    ann = house.customer()
    house.launch("j")
    house.db.now = MONDAY + 10 * MINUTE
    house.launch("k")
    house.db.now = MONDAY + 20 * MINUTE
    house.did(ann, "push_opened")
    house.later("1d")
    assert sorted((row.journey, row.channel, row.state) for row in house.rows()) == [
        ("j", "email", "sent"),
        ("j", "push", "sent"),
        ("k", "email", "skipped"),
        ("k", "push", "sent"),
    ]


def test_a_reply_during_the_next_hand_over_waits_for_its_outcome(house: House) -> None:
    ann = at_night(house, first(Push("hello"), Email("hello")))
    house.later("3h")
    with house.db.transaction() as tx:
        mail = update(messages).where(messages.c.channel == "email")
        tx.conn.execute(mail.values(state="sending", not_after=tx.now + TIMING.claim_lasts))
    house.did(ann, "push_opened")
    house.run()
    assert house.attributes(ann) == {}
    assert house.rows()[1].state == "sending"


@pytest.mark.parametrize("evidence", ["opened", "clicked", "converted"])
def test_stop_on_stops_at_once(house: House, evidence: str) -> None:
    wanted = Push("hello"), Email("hello", after="1h"), SMS("hello", after="2h")
    steps = [Send("s", *wanted, stop_on=evidence), Update("done", done=True), Wait("1d")]
    goal = Goal(did=did("bought"), within="5d")
    house.open(Journey("j", entry=OnLaunch(), topic="news", steps=steps, goal=goal))
    ann, bob = house.customer(), house.customer()
    house.launch("j")
    house.until(MONDAY + 30 * MINUTE)
    name = "bought" if evidence == "converted" else f"push_{evidence}"
    house.did(ann, name, at=house.now - 10)
    house.run()
    assert [(row.channel, row.state, row.reason) for row in house.rows(ann)] == [
        ("push", "sent", None),
        ("email", "cancelled", f"stopped: {evidence}"),
        ("sms", "cancelled", f"stopped: {evidence}"),
    ]
    assert house.attributes(ann) == {"done": True}
    assert [row.state for row in house.rows(bob)] == ["sent", "planned", "planned"]
    assert house.people(ann)[0].arrived_at == house.now - 10
    house.later("1d")
    assert [row.state for row in house.rows(bob)] == ["sent"] * 3
