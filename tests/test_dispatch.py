"""The last look before a message leaves, the claim, and what becomes of it at the provider."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout

from channels.breaker import REFUSED_PAUSE
from channels.claiming import CLAIM_LASTS, LOST_AFTER, settle_lost
from channels.dispatch import Dispatcher
from channels.explain import explanation
from channels.provider import Outcome, Outgoing, Provider
from channels.tables import messages
from channels.transport import Transport
from config.policy import Channel, Policy
from config.times import DAY, HOUR, MINUTE, format_instant
from journeys import control
from journeys.entry import enter_people
from journeys.journey import Goal, Journey, OnLaunch, journey
from journeys.merging import merge
from journeys.outbox import CatalogJourneys
from journeys.steps import SMS, Email, Message, Push, Send, Wait
from profiles.conditions import did, trait
from profiles.consent import ConsentChange, change_consent
from profiles.events import NewEvent, record_events
from profiles.merging import Merger
from profiles.preferences import Changes, read_chosen, save
from profiles.tables import consents, identifiers, profiles
from tests.house import MONDAY, TEXTS, House

DAYTIME = {"windows": [{"days": "mon-sun", "from": "08:00", "to": "20:00"}]}
POLICY = Policy.model_validate(
    {
        "channels": {"email": DAYTIME, "sms": DAYTIME, "push": DAYTIME},
        "caps": [
            {"channels": ["email"], "limit": 1, "per": "day"},
            {"channels": ["sms"], "limit": 1, "within": "24h"},
        ],
    }
)


def sending(*wanted: Message, then: tuple[Any, ...] = (), **options: Any) -> Journey:
    """A journey that sends, in an hour unless the messages say otherwise."""
    parts = {key: options.pop(key) for key in ("exit_when", "goal", "priority") if key in options}
    step = Send("s", *(wanted or (Email("hello", after="1h"),)), **options)
    return journey("j", entry=OnLaunch(), topic="news", steps=[step, *then], **parts)


def told(house: House) -> list[tuple[str, str, str | None]]:
    return [(one.channel, one.state, one.reason) for one in house.outbox()]


# Looked at again ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "topic", "reason"),
    [("sms", "*", "no_consent"), ("email", "news", "no_consent"), ("email", "other", None)],
)
def test_consent_taken_back(house: House, channel: Channel, topic: str, reason: str | None) -> None:
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
        assert explanation(row).startswith("The customer has not agreed to news by")
    [person] = house.people()
    assert person.end_reason == "completed"


def test_a_stop_binds_transactional_texts_too(house: House) -> None:
    house.open(sending(SMS("hello", after="1h"), kind="transactional"), policy=POLICY)
    ann = house.customer()
    house.launch("j")
    house.say(ann, "sms", "*", granted=False)
    house.later("2h")
    assert told(house) == [("sms", "skipped", "no_consent")]


def test_an_address_that_bounced_meanwhile(house: House) -> None:
    house.open(sending(), policy=POLICY)
    house.customer("ann")
    house.launch("j")
    with house.db.transaction() as tx:
        hers = identifiers.c.value == "ann@example.com"
        tx.conn.execute(update(identifiers).where(hers).values(state="bounced"))
    house.later("2h")
    assert told(house) == [("email", "skipped", "suppressed")]
    assert house.providers.requests == []


def test_a_window_that_closed_meanwhile(house: House) -> None:
    """Nobody was there to send it. When somebody is, it is night."""
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


def test_a_customer_who_moved(house: House) -> None:
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
def test_a_cap_that_filled_meanwhile(house: House, on_cap: str, state: str) -> None:
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


def test_a_late_message_counts_when_it_goes(house: House) -> None:
    """The next, planned for 24 hours after the first was planned, waits for 24 after it went."""
    wanted = Send("s", SMS("offer", on_cap="defer"))
    other = journey("k", entry=OnLaunch(), topic="news", steps=[wanted])
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


def test_an_exit_rule_met_and_not_yet_worked(house: House) -> None:
    house.open(sending(exit_when=did("bought") | (trait("gone") == 1)), policy=POLICY)
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


@pytest.mark.parametrize("evidence", ["opened", "clicked", "converted"])
def test_stop_on(house: House, evidence: str) -> None:
    goal = Goal(did=did("bought"), within="5d")
    wanted = Email("hello"), SMS("hello", after="1h")
    house.open(sending(*wanted, stop_on=evidence, goal=goal), policy=POLICY)
    ann, bob = house.customer(), house.customer()
    house.launch("j")
    house.db.now = MONDAY + 30 * MINUTE
    # it came, and nobody has worked it yet
    house.did(ann, "bought" if evidence == "converted" else f"email_{evidence}")
    house.did(bob, "sms_opened")
    house.db.now = MONDAY + HOUR
    assert house.dispatch() == {("j", "sms", "sent"): 1, ("j", "sms", "cancelled"): 1}
    assert told(house) == [
        ("email", "sent", None),
        ("sms", "cancelled", f"stopped: {evidence}"),
        ("email", "sent", None),
        ("sms", "sent", None),
    ]


def first_push_then_mail(**options: Any) -> Journey:
    fallback = {"mode": "first", "fallback_after": "2h", "unless": "opened"} | options
    return sending(Push("hello"), Email("hello"), **fallback)


def test_evidence_that_comes_before_the_fallback_leaves(house: House) -> None:
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
    assert told(house)[2:] == [("email", "cancelled", "stopped: opened"), ("email", "sent", None)]
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
    assert told(house) == [("email", "planned", None)]
    control.resume(house.db, "j")
    house.run()
    assert told(house) == [("email", "sent", None)]


def test_the_last_moment_is_early_enough(house: House) -> None:
    """Wanted within an hour, the window opens in an hour: it leaves then, not a second too late."""
    house.open(sending(Email("hello", max_delay="1h")), policy=POLICY)
    house.customer()
    house.db.now = MONDAY - 3 * HOUR
    house.launch("j")
    house.db.now = MONDAY - 2 * HOUR + 2
    house.run()
    assert told(house) == [("email", "sent", None)]


def test_what_is_too_late_does_not_leave(house: House) -> None:
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


def test_all_or_none_also_at_the_hand_over(house: House) -> None:
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


def test_all_wait_for_the_one_that_has_to(house: House) -> None:
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


def test_the_next_channel_takes_over_at_the_hand_over(house: House) -> None:
    house.open(
        sending(SMS("hello", after="1h"), Email("hello", after="1h"), mode="first"), policy=POLICY
    )
    ann = house.customer()
    house.launch("j")
    house.say(ann, "sms", "*", granted=False)
    house.later("2h")
    assert told(house) == [("sms", "skipped", "no_consent"), ("email", "sent", None)]
    assert [one.channel for one in house.providers.accepted] == ["email"]


def test_of_two_for_one_place_the_more_important_goes(house: House) -> None:
    """Both were planned before there was a cap; the new policy leaves room for one."""
    journeys = [
        journey(
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


# The claim ----------------------------------------------------------------------------------------


def test_the_claim_is_committed_before_the_post(house: House) -> None:
    house.open(sending(Email("hello")), policy=POLICY)
    house.customer()
    seen = []
    house.providers.meanwhile = lambda: seen.extend(house.rows())
    house.launch("j")
    [row] = seen
    assert (row.state, row.attempts, row.send_at) == ("sending", 1, MONDAY)
    assert row.not_after == MONDAY + CLAIM_LASTS
    assert row.claimed_by
    [row] = house.rows()
    assert (row.state, row.claimed_by, row.not_after) == ("sent", None, None)


def test_a_claim_ends_with_the_window(house: House) -> None:
    house.open(sending(Email("hello")), policy=POLICY)
    house.customer()
    seen = []
    house.providers.meanwhile = lambda: seen.extend(house.rows())
    house.db.now = MONDAY + 10 * HOUR - 20
    house.launch("j")
    assert seen[0].not_after == MONDAY + 10 * HOUR


def test_what_is_claimed_leaves_before_its_window_closes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transport is told by when, whatever it still has to do first."""
    house.open(sending(Email("hello")), policy=POLICY)
    house.customer()
    times: list[float] = []
    post = Transport.post

    async def noted(self: Transport, *given: Any) -> Any:
        times.append(given[-1] - asyncio.get_running_loop().time())
        return await post(self, *given)

    monkeypatch.setattr(Transport, "post", noted)
    house.db.now = MONDAY + 10 * HOUR - 20
    house.launch("j")
    [left] = times
    assert 0 < left <= 20


class Killed(BaseException):
    """The process died here."""


def dying() -> None:
    raise Killed


def test_a_death_at_the_hand_over_leaves_unknown_and_never_a_second_send(house: House) -> None:
    house.open(sending(Email("hello")), sending_again := journey(
        "again", entry=OnLaunch(), topic="news", steps=[Send("s", Email("offer"))]
    ), policy=POLICY)  # fmt: skip
    house.customer()
    house.providers.meanwhile = dying
    with pytest.raises((Killed, BaseExceptionGroup)):
        house.launch("j")
    assert told(house) == [("email", "sending", None)]

    # It comes up again. The message is nobody's to send, and while it may have gone it counts.
    house.providers.meanwhile = lambda: None
    house.later("1m")
    house.launch(sending_again.name)
    assert told(house)[1] == ("email", "skipped", "capped")
    house.db.now = MONDAY + CLAIM_LASTS + LOST_AFTER
    with house.db.transaction() as tx:
        assert settle_lost(tx) == 0
    house.db.now += 1
    with house.db.transaction() as tx:
        assert settle_lost(tx) == 1
        assert settle_lost(tx) == 0
    [row, _] = house.rows()
    assert (row.state, row.reason) == ("unknown", "the process died around the hand-over")
    assert (row.not_after, row.claimed_by) != (None, "")
    house.later("3d")
    assert [len(house.providers.requests), len(house.providers.accepted)] == [1, 0]
    assert {person.end_reason for person in house.people()} == {"completed"}


def test_what_could_not_be_posted_in_time_is_given_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection, and the first post takes longer than a claim lasts."""
    clock = [1000.0]
    monkeypatch.setattr("channels.dispatch.IN_FLIGHT", 1)
    monkeypatch.setattr("channels.dispatch.time.monotonic", lambda: clock[0])
    house.open(sending(Email("hello")), policy=POLICY)
    people = [house.customer() for _ in range(3)]

    def slow() -> None:
        clock[0] += CLAIM_LASTS if len(house.providers.requests) == 1 else 0

    house.providers.meanwhile = slow

    async def once(dispatcher: Dispatcher) -> None:
        claims = dispatcher._claim(["email"], None).claims
        counts.append(await dispatcher._hand_over(claims, taken=clock[0]))

    counts: list[Any] = []
    with house.db.transaction() as tx:
        version = house.segue.catalog.journey("j")
        enter_people(tx, version, people, None)
    house.segue.engine.advance_due()
    house.dispatching(once)
    assert counts == [{("j", "email", "sent"): 1, ("j", "email", "to be tried again"): 2}]
    assert [(row.state, row.attempts) for row in house.rows()] == [
        ("sent", 1), ("planned", 0), ("planned", 0),
    ]  # fmt: skip
    house.run()
    assert [(row.state, row.attempts) for row in house.rows()] == [("sent", 1)] * 3
    assert len(house.providers.accepted) == 3


@pytest.mark.parametrize(
    "what", ["no consent", "chosen hours", "a purchase", "another profile's", "paused", "trouble"]
)
def test_what_comes_in_while_claims_wait_for_their_turn(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A provider takes one at a time; while it has the first something is heard of the second."""
    monkeypatch.setattr("channels.dispatch.IN_FLIGHT", 1)
    monkeypatch.setattr("channels.dispatch._LOOK_GOOD_FOR", -1)  # always past
    house.open(sending(Email("hello"), exit_when=did("bought")), policy=POLICY)
    _, bob, cleo = (house.customer() for _ in range(3))

    def meanwhile() -> None:
        if len(house.providers.requests) > 1:
            return
        if what == "paused":
            control.pause(house.db, "j")
        with house.db.transaction() as tx:
            match what:
                case "no consent":
                    change_consent(tx, [ConsentChange(bob, "email", "*", granted=False)], "test")
                case "chosen hours":
                    before = read_chosen(tx, bob, lock=True)
                    assert before is not None
                    save(tx, before, Changes(choices={"opens": 16 * 60, "closes": 18 * 60}), "test")
                case "a purchase":
                    bought = NewEvent(bob, "bought", tx.now, "1", {})
                    record_events(tx, [bought], worked=False)
                case "another profile's":
                    merge(tx, [Merger(bob, cleo, "test")])
                case "trouble":
                    monkeypatch.setattr("channels.dispatch.overtaken", failing)

    def failing(*_: object) -> None:
        monkeypatch.undo()
        raise SQLAlchemyTimeout

    house.providers.meanwhile = meanwhile
    house.launch("j")
    assert [row.state for row in house.rows()] == {
        "no consent": ["sent", "skipped", "sent"],
        "chosen hours": ["sent", "skipped", "sent"],
        "a purchase": ["sent", "cancelled", "sent"],
        "another profile's": ["sent", "sent", "cancelled"],
        "paused": ["sent", "planned", "planned"],
        "trouble": ["sent", "sent", "sent"],
    }[what]
    assert len(house.providers.accepted) == [row.state for row in house.rows()].count("sent")


def test_the_fate_of_some_is_known_while_one_is_slow(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.dispatch._RECORD_EVERY", 0.01)
    house.open(sending(SMS("hello")), policy=POLICY)
    slow, *others = (house.customer() for _ in range(3))
    answered = asyncio.Event()
    post = Transport.post

    async def post_slowly(
        self: Transport, provider: Provider, batch: Sequence[Outgoing], leave_by: float
    ) -> list[Outcome]:
        if batch[0].message_id == house.rows(slow)[0].id:
            await answered.wait()
        return await post(self, provider, batch, leave_by)

    async def scenario(dispatcher: Dispatcher) -> None:
        running = asyncio.create_task(dispatcher.run())
        async with asyncio.timeout(60):
            while [row.state for row in house.rows()] != ["sending", "sent", "sent"]:
                await asyncio.sleep(0.01)
            answered.set()
            assert (await running)["j", "sms", "sent"] == 3

    monkeypatch.setattr(Transport, "post", post_slowly)
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [slow, *others], None)
    house.segue.engine.advance_due()
    house.dispatching(scenario)


def test_a_call_back_that_is_faster_than_the_record_has_the_last_word(house: House) -> None:
    house.open(sending(Email("hello")), policy=POLICY)
    house.customer()

    def delivered() -> None:
        with house.db.transaction() as tx:
            tx.conn.execute(update(messages).values(state="delivered", provider_id="theirs"))

    house.providers.meanwhile = delivered
    house.launch("j")
    [row] = house.rows()
    assert (row.state, row.provider_id) == ("delivered", "theirs")


def test_people_move_on_when_their_message_has_gone(house: House) -> None:
    house.open(sending(Email("hello"), Push("hello", after="10m"), then=(Wait("1h"),)))
    house.customer()
    house.launch("j")
    house.later("10m")
    [person] = house.people()
    assert (person.step, person.arrived_at) == ("wait 1h", MONDAY + 10 * MINUTE)


# What the provider says --------------------------------------------------------------------------

ONE = {"email": Email("hello"), "sms": SMS("hello"), "push": Push("hello")}


def answered(house: House, channel: Channel, *answers: httpx.Response | Exception) -> list[Any]:
    """What becomes of one message when the provider answers so, as far as this moment."""
    house.open(sending(ONE[channel]), policy=POLICY)
    house.customer("ann")
    house.providers.answer(channel, *answers)
    house.launch("j")
    return house.rows()


def test_a_record_that_comes_late_ends_no_later_wait(house: House) -> None:
    """The process hung at the hand-over; its people have long gone on."""
    house.open(sending(Email("hello"), then=(Wait("2d"),)))
    house.customer()
    house.launch("j")
    [person] = house.people()
    assert (person.step, person.due_at) == ("wait 2d", MONDAY + 2 * DAY)
    with house.db.transaction() as tx:
        CatalogJourneys(house.segue.catalog).settled(tx, [person.id])
    assert house.people()[0].due_at == MONDAY + 2 * DAY


def test_later_means_later(house: House) -> None:
    busy = httpx.Response(429, headers={"retry-after": "120"}, json={})
    [row] = answered(house, "sms", busy, httpx.Response(503))
    assert (row.state, row.attempts) == ("planned", 1)
    assert str(row.reason).startswith("twilio 429")
    # never earlier than the provider asks, and up to half as much again
    first = row.send_at
    assert MONDAY + 120 <= first < MONDAY + 180
    house.until(first - 1)
    assert len(house.providers.requests) == 1
    house.until(first)
    # no time named: half a minute, doubled each time, and up to half as much again
    [row] = house.rows()
    assert (row.state, row.attempts) == ("planned", 2)
    again = row.send_at
    assert first + 60 <= again < first + 90
    house.until(again)
    [row] = house.rows()
    assert (row.state, row.send_at, row.attempts) == ("sent", again, 3)
    assert row.reason is None


def test_a_retry_is_looked_at_again(house: House) -> None:
    answered(house, "sms", httpx.Response(429, headers={"retry-after": "600"}, json={}))
    [row] = house.rows()
    house.say(row.profile_id, "sms", "*", granted=False)
    house.later("1h")
    assert told(house) == [("sms", "skipped", "no_consent")]
    assert len(house.providers.requests) == 1


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (httpx.ConnectError("refused"), "planned"),  # nothing has left
        (httpx.ConnectTimeout("slow"), "planned"),
        (httpx.ReadError("cut"), "unknown"),  # after it was accepted, perhaps
        (httpx.ReadTimeout("slow"), "unknown"),
        (httpx.RemoteProtocolError("cut"), "unknown"),
        (httpx.Response(500), "unknown"),
        (httpx.Response(504), "unknown"),
        (httpx.Response(503), "planned"),
        (httpx.Response(400, json={}), "failed"),
    ],
    ids=repr,
)
def test_what_surely_was_not_accepted_is_tried_again(
    house: House, answer: httpx.Response | Exception, state: str
) -> None:
    [row] = answered(house, "email", answer)
    assert row.state == state
    assert row.reason
    house.later("2d")
    [row] = house.rows()
    assert row.state == ("sent" if state == "planned" else state)
    assert len(house.providers.requests) == (2 if state == "planned" else 1)
    assert house.people()[0].end_reason == "completed"


def test_what_may_have_gone_counts(house: House) -> None:
    answered(house, "email", httpx.ReadError("cut"))
    again = journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", Email("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert told(house)[1] == ("email", "skipped", "capped")


def test_what_surely_failed_does_not_count(house: House) -> None:
    answered(house, "email", httpx.Response(400, json={}))
    again = journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", Email("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert told(house) == [
        ("email", "failed", "sendgrid 400"),
        ("email", "sent", None),
    ]


def test_credentials_refused_stop_a_channel_and_the_others_go_on(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = Email("hello"), SMS("hello")
    house.open(sending(*wanted), policy=POLICY)
    for _ in range(3):
        house.customer()
    house.providers.answer("email", *[httpx.Response(401, json={})] * 3)

    async def work(dispatcher: Dispatcher) -> None:
        async def everything() -> None:
            while await dispatcher.run():
                await asyncio.to_thread(house.segue.engine.advance_due)

        with house.db.transaction() as tx:
            enter_people(tx, house.segue.catalog.journey("j"), [1, 2, 3], None)
        await asyncio.to_thread(house.segue.engine.advance_due)
        await everything()
        refused = [one for one in house.providers.requests if "mail" in one.url.path]
        asked.append(len(refused))
        assert [row.state for row in house.rows() if row.channel == "sms"] == ["sent"] * 3
        mails = [row for row in house.rows() if row.channel == "email"]
        assert [(row.state, row.attempts) for row in mails] == [("planned", 0)] * 3
        # while it is stopped nothing is even tried
        house.db.now = MONDAY + REFUSED_PAUSE - 1
        await everything()
        asked.append(len([one for one in house.providers.requests if "mail" in one.url.path]))
        house.providers._answers.clear()
        house.db.now = MONDAY + REFUSED_PAUSE
        await everything()

    asked: list[int] = []
    house.dispatching(work)
    assert 1 <= asked[0] == asked[1] <= 3
    assert {row.state for row in house.rows()} == {"sent"}
    assert any("refuses our credentials" in record.message for record in caplog.records)


def test_a_reply_of_stop_that_the_provider_knows_of(house: House) -> None:
    said = {"code": 21610, "message": "Attempt to send to unsubscribed recipient"}
    [row] = answered(house, "sms", httpx.Response(400, json=said))
    assert (row.state, row.reason) == ("failed", "twilio 21610: the recipient replied STOP")
    with house.db.transaction() as tx:
        stop = tx.conn.execute(select(consents.c.granted).where(consents.c.channel == "sms"))
        assert list(stop.scalars()) == [False]
    again = journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", SMS("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert told(house)[1] == ("sms", "skipped", "no_consent")


def test_an_app_that_is_gone(house: House) -> None:
    detail = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError"}
    body = {"error": {"code": 404, "details": [detail | {"errorCode": "UNREGISTERED"}]}}
    [row] = answered(house, "push", httpx.Response(404, json=body))
    assert row.state == "failed"
    with house.db.transaction() as tx:
        state = select(identifiers.c.state).where(identifiers.c.kind == "push_token")
        assert tx.conn.execute(state).scalar_one() == "unregistered"
    again = journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", Push("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert told(house)[1] == ("push", "skipped", "suppressed")


def test_what_a_template_lacks_is_named(house: House) -> None:
    texts = {**TEXTS, "hello.sms.txt": "Hello {{ profile.first_name }}"}
    house.open(sending(SMS("hello"), then=(Send("t", Push("hello")),)), policy=POLICY, texts=texts)
    ann, bob = house.customer(attributes={"first_name": "Ann"}), house.customer()
    house.launch("j")
    assert [(row.profile_id, row.state, row.reason) for row in house.rows()] == [
        (ann, "sent", None),
        (bob, "skipped", "missing_data: profile.first_name"),
        (ann, "sent", None),
        (bob, "sent", None),
    ]
    # it did not go, so it does not count
    again = journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", SMS("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert [row.reason for row in house.rows()[4:]] == ["capped", None]


def test_odd_data_of_one_does_not_stop_the_others(house: House) -> None:
    texts = {**TEXTS, "hello.sms.txt": "{{ profile.n | date: '%d' }}"}
    house.open(sending(SMS("hello")), policy=POLICY, texts=texts)
    for number in (1, "soon", 10**18):
        house.customer(attributes={"n": number})
    house.launch("j")
    rows = house.rows()
    assert [row.state for row in rows] == ["sent", "skipped", "skipped"]
    assert all(row.reason.startswith("render_error: hello.sms.txt") for row in rows[1:])


# Many in one request ------------------------------------------------------------------------------


def in_one_request(house: House, number: int, after: Callable[[], None] | None = None) -> None:
    house.open(sending(Email("hello")), policy=POLICY, sendgrid_template_id="d-1")
    for _ in range(number):
        house.customer()
    if after:
        after()
    house.launch("j")


def test_many_mails_in_one_request(house: House) -> None:
    in_one_request(house, 30)
    assert len(house.providers.requests) == 1
    assert {row.state for row in house.rows()} == {"sent"}
    assert {one.message_id for one in house.providers.accepted} == {row.id for row in house.rows()}


def test_a_request_refused_for_one_of_its_mails(house: House) -> None:
    wrong = {
        "message": "Does not contain a valid address.",
        "field": "personalizations.1.to.0.email",
    }
    house.providers.answer("email", httpx.Response(400, json={"errors": [wrong]}))
    in_one_request(house, 3)
    assert [(row.state, row.attempts) for row in house.rows()] == [
        ("planned", 1), ("failed", 1), ("planned", 1),
    ]  # fmt: skip
    house.later("1m")
    assert [row.state for row in house.rows()] == ["sent", "failed", "sent"]
    with house.db.transaction() as tx:
        bounced = select(identifiers.c.value).where(identifiers.c.state == "bounced")
        assert list(tx.conn.execute(bounced).scalars()) == ["c2@example.com"]


def test_one_address_twice_makes_two_requests(house: House) -> None:
    """SendGrid refuses a request whole that names an address twice."""
    policy = Policy()
    steps = [Send("s", Email("hello"), Email("offer"))]
    house.open(
        journey("j", entry=OnLaunch(), topic="n", steps=steps),
        policy=policy,
        sendgrid_template_id="d-1",
    )
    for _ in range(3):
        house.customer()
    house.launch("j")
    sizes = [request.content.count(b'"message_id"') for request in house.providers.requests]
    assert sum(sizes) == 6
    assert len(house.providers.accepted) == len(
        {one.message_id for one in house.providers.accepted}
    )
    for request in house.providers.requests:
        addresses = [part.split(b'"')[0] for part in request.content.split(b'"to":[{"email":"')[1:]]
        assert len(set(addresses)) == len(addresses)
    assert {row.state for row in house.rows()} == {"sent"}
