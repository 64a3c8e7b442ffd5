"""A push is one message: it is sent to every live device of a profile, to each at most once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert, select, update

from channels.explain import history_of
from channels.feedback.apply import apply
from channels.messages import message_devices, messages
from channels.messages.device_transitions import DeviceClaim, DeviceOutcome
from channels.outbox.claims import Claim
from channels.outbox.devices import look_up, state_of, take
from channels.outbox.devices import record as record_devices
from channels.outbox.dispatch import Dispatcher
from channels.outbox.outcomes import record, settled
from channels.outbox.rows import MESSAGE_COLUMNS, MessageRow
from channels.outbox.unknown import settle_lost
from channels.providers.sending import Outgoing, SendOutcome, SendResult
from channels.providers.webhook import Feedback
from channels.rules.loaders import load_recipients
from channels.rules.recipient import Target
from config.policy import Policy
from config.timing import TIMING
from journeys.dsl import SMS, Email, Journey, OnLaunch, Push, Send
from journeys.engine.entry import enter_people
from journeys.engine.hand_over import CatalogJourneys
from journeys.operations.counts import summarise
from journeys.operations.merge import merge
from profiles.identity.mergers import Merger
from profiles.tables import events, identifiers
from tests.support.counting import statements
from tests.support.providers.dispatching import POLICY, reported, sending
from tests.support.providers.suppressing import becomes, suppressed
from tests.support.shop import MONDAY, TEXTS, Answer, House

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


def refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(
        status, json={"error": {"details": [{"@type": FCM_ERROR, "errorCode": code}]}}
    )


ANSWERS: dict[str, Answer] = {
    "sent": httpx.Response(200, json={"name": "projects/p/messages/1"}),
    "later": httpx.Response(503, headers={"retry-after": "60"}),
    "failed": refusal(400, "INVALID_ARGUMENT"),
    "gone": refusal(404, "UNREGISTERED"),
    "unknown": httpx.ReadTimeout("slow"),
}
TOKENS = {"device-a": "ios", "device-b": "android", "device-c": "web"}


def pushing(house: House, devices: int = 2, **options: Any) -> int:
    """One person with so many devices, and a journey that sends a push; returns the person."""
    house.open(sending(Push("hello", **options)), policy=POLICY)
    return house.customer("ann", push_tokens=dict(list(TOKENS.items())[:devices]))


def tries(house: House) -> dict[str, int]:
    """How many requests there were for each device."""
    bodies = [request.content for request in house.providers.requests]
    return {token: sum(token.encode() in body for body in bodies) for token in TOKENS}


def change_device(house: House, token: str, **values: Any) -> None:
    """Change its row; `suppressed` is why nothing is sent to it any more."""
    if "suppressed" in values:
        becomes(house.db, "push", token, values["suppressed"])
        return
    with house.db.transaction() as tx:
        tx.conn.execute(update(identifiers).where(identifiers.c.value == token).values(values))


def add_device(house: House, person: int, token: str) -> None:
    row = {"kind": "push_token", "value": token, "profile_id": person, "platform": "web"}
    with house.db.transaction() as tx:
        tx.conn.execute(insert(identifiers).values(**row, seen_at=MONDAY))


# Which devices ------------------------------------------------------------------------------------


def test_a_push_is_sent_to_every_live_device_as_one_message(house: House) -> None:
    caps = [{"channels": ["push"], "limit": 2, "per": "day"}]
    again = Journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", Push("offer"))])
    third = Journey("l", entry=OnLaunch(), topic="n", steps=[Send("s", Push("offer"))])
    policy = Policy.model_validate({"caps": caps})
    house.open(sending(Push("hello")), again, third, policy=policy)
    house.customer("ann", push_tokens=TOKENS)
    assert house.launch("j")["sent"]["push"] == 1
    [row] = house.rows()
    assert [(one.message_id, one.to) for one in house.providers.accepted] == [
        (row.id, token) for token in TOKENS
    ]
    assert (row.state, row.attempts) == ("sent", 1)
    assert house.devices(row.id) == dict.fromkeys(TOKENS, "sent")
    with house.db.transaction(write=False) as tx:
        assert summarise(tx, "j").sent == {"push": 1}
    # Three posts took one of the two places.
    house.launch("k")
    house.launch("l")
    assert [one.reason for one in house.outbox()] == [None, None, "capped"]


def test_each_device_gets_its_platforms_part_and_the_link_of_the_person(house: House) -> None:
    pushing(house, 3)
    house.launch("j")
    parts = {
        token: [part for part in ("android", "apns", "webpush") if f'"{part}"'.encode() in body]
        for token in TOKENS
        for body in [request.content for request in house.providers.requests]
        if token.encode() in body
    }
    assert parts == {"device-a": ["apns"], "device-b": ["android"], "device-c": ["webpush"]}


def test_only_devices_that_are_live_at_the_claim(house: House) -> None:
    """One was added after planning, one went unregistered, one was taken away."""
    ann = pushing(house, 3, after="1h")
    house.launch("j")
    change_device(house, "device-a", suppressed="unregistered")
    change_device(house, "device-b", retired_at=MONDAY)
    add_device(house, ann, "device-d")
    house.later("1h")
    assert [one.to for one in house.providers.accepted] == ["device-c", "device-d"]


@pytest.mark.parametrize(
    ("values", "gets"),
    [
        ({"profile_id": 2}, False),
        ({"suppressed": "unregistered"}, False),
        ({"retired_at": MONDAY}, False),
        ({"seen_at": MONDAY + 1}, True),
    ],
    ids=["another customer's", "unregistered", "taken away", "seen again"],
)
def test_each_device_is_checked_again_before_its_request(
    house: House, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], gets: bool
) -> None:
    """While the first device's request is under way the second one changes."""
    monkeypatch.setattr("channels.outbox.dispatch.IN_FLIGHT", 1)
    house.shorten(claim_is_fresh=-1)  # always past
    pushing(house)
    house.customer("bob", push_tokens={}, consent={("push", "*"): False})

    def meanwhile() -> None:
        if len(house.providers.requests) == 1:
            change_device(house, "device-b", **values)

    house.providers.meanwhile = meanwhile
    house.launch("j")
    assert tries(house) == {"device-a": 1, "device-b": int(gets), "device-c": 0}
    row = house.rows()[0]
    assert row.state == "sent"
    assert house.devices(row.id) == {"device-a": "sent", "device-b": "sent" if gets else "dropped"}


# What the message is by them ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "state", "devices"),
    [
        (("sent", "later"), "sent", ("sent", "dropped")),
        (("later", "sent"), "sent", ("dropped", "sent")),
        (("failed", "sent"), "sent", ("failed", "sent")),
        (("unknown", "sent"), "sent", ("unknown", "sent")),
        (("unknown", "later"), "unknown", ("unknown", "dropped")),
        (("failed", "unknown"), "unknown", ("failed", "unknown")),
        (("later", "failed"), "planned", ("later", "failed")),
        (("later", "later"), "planned", ("later", "later")),
        (("gone", "failed"), "failed", ("failed", "failed")),
        (("sent", "later", "unknown"), "sent", ("sent", "dropped", "unknown")),
        (("failed", "unknown", "later"), "unknown", ("failed", "unknown", "dropped")),
        (("failed", "gone", "later"), "planned", ("failed", "failed", "later")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value,
)
def test_the_state_of_a_push_follows_from_its_devices(
    house: House, answers: Sequence[str], state: str, devices: Sequence[str]
) -> None:
    pushing(house, len(answers))
    tokens = list(TOKENS)[: len(answers)]
    for token, answer in zip(tokens, answers, strict=True):
        house.providers.answer_to(token, ANSWERS[answer])
    house.launch("j")
    [row] = house.rows()
    assert row.state == state
    assert house.devices(row.id) == dict(zip(tokens, devices, strict=True))
    assert (row.claimed_by, row.not_after) == (None, None)
    assert (row.reason is None) == (state == "sent")
    # Only who asked for it is tried again, and only where the message was not taken.
    house.later("1d")
    [row] = house.rows()
    assert row.state == ("sent" if state == "planned" else state)
    assert tries(house) == {
        token: 0 if token not in tokens else 2 if before == "later" else 1
        for token, before in zip(TOKENS, [*devices, "none"], strict=False)
    } | {token: 0 for token in TOKENS if token not in tokens}
    assert house.people()[0].end_reason == "completed"


def test_a_push_is_retried_when_every_device_may_be_retried(house: House) -> None:
    pushing(house, 3)
    for token, wait in (("device-a", "60"), ("device-b", "900"), ("device-c", "120")):
        house.providers.answer_to(token, httpx.Response(429, headers={"retry-after": wait}))
    house.launch("j")
    [row] = house.rows()
    assert row.reason == "fcm 429"
    assert MONDAY + 900 <= row.send_at < MONDAY + 1350
    house.until(row.send_at - 1)
    assert tries(house) == dict.fromkeys(TOKENS, 1)
    house.until(row.send_at)
    assert tries(house) == dict.fromkeys(TOKENS, 2)
    assert house.rows()[0].attempts == 2


def test_a_retry_includes_a_new_device(house: House) -> None:
    """The app was installed again: its token is another one."""
    ann = pushing(house)
    house.providers.answer_to("device-a", ANSWERS["later"])
    house.providers.answer_to("device-b", ANSWERS["failed"])
    house.launch("j")
    change_device(house, "device-a", suppressed="unregistered")
    add_device(house, ann, "device-c")
    house.later("1h")
    [row] = house.rows()
    assert row.state == "sent"
    assert house.devices(row.id) == {
        "device-a": "dropped",
        "device-b": "failed",
        "device-c": "sent",
    }
    assert tries(house) == dict.fromkeys(TOKENS, 1)


def test_a_push_fails_when_every_remaining_device_refused_it(house: House) -> None:
    pushing(house)
    house.providers.answer_to("device-a", ANSWERS["later"])
    house.providers.answer_to("device-b", ANSWERS["failed"])
    house.launch("j")
    change_device(house, "device-a", retired_at=MONDAY)
    house.later("1h")
    [row] = house.rows()
    assert (row.state, row.reason) == ("failed", "every device has refused it")
    assert house.devices(row.id) == {"device-a": "dropped", "device-b": "failed"}
    assert tries(house) == {"device-a": 1, "device-b": 1, "device-c": 0}
    assert house.people()[0].end_reason == "completed"


def test_a_push_that_was_not_posted_is_sent_later_without_a_counted_attempt(house: House) -> None:
    ann = pushing(house)
    for token in ("device-a", "device-b"):
        house.providers.answer_to(token, httpx.Response(401))
    house.launch("j")
    [row] = house.rows()
    assert (row.state, row.attempts, row.send_at) == ("planned", 0, MONDAY)
    house.providers.accept_again()
    add_device(house, ann, "device-c")
    house.later("10m")
    [row] = house.rows()
    assert (row.state, row.attempts) == ("sent", 1)
    assert house.devices(row.id) == dict.fromkeys(TOKENS, "sent")


def test_a_push_that_can_not_be_rendered_is_sent_to_no_device(house: House) -> None:
    texts = {**TEXTS, "hello.push.txt": "Title: Hello\n\n{{ profile.first_name }}"}
    house.open(sending(Push("hello")), policy=POLICY, texts=texts)
    house.customer("ann", push_tokens=TOKENS)
    house.launch("j")
    [row] = house.rows()
    assert (row.state, row.reason) == ("skipped", "missing_data: profile.first_name")
    assert house.devices(row.id) == dict.fromkeys(TOKENS, "dropped")
    assert house.providers.requests == []


def test_an_unregistered_device_is_removed_alone(house: House) -> None:
    ann = pushing(house)
    house.providers.answer_to("device-a", ANSWERS["gone"])
    house.launch("j")
    [row] = house.rows()
    assert row.state == "sent"
    named = select(events.c.name).where(events.c.profile_id == ann)
    with house.db.transaction(write=False) as tx:
        assert suppressed(house.db) == {("push", "device-a"): "unregistered"}
        # The message did not fail.
        assert list(tx.conn.execute(named).scalars()) == ["profile_changed"]


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
def test_when_no_device_is_registered_the_push_failed_once(house: House, together: bool) -> None:
    ann = pushing(house)
    house.providers.answer_to("device-a", ANSWERS["gone"])
    waits = [] if together else [ANSWERS["later"]]
    house.providers.answer_to("device-b", *waits, ANSWERS["gone"])
    house.launch("j")
    house.later("1h")
    assert reported(house) == [("push", "failed", "fcm UNREGISTERED")]
    named = select(events.c.name, func.count()).where(events.c.profile_id == ann)
    with house.db.transaction(write=False) as tx:
        counts = dict(tx.conn.execute(named.group_by(events.c.name)).tuples().all())
    assert counts == {"push_failed": 1, "profile_changed": 2}
    again = Journey("k", entry=OnLaunch(), topic="n", steps=[Send("s", Push("offer"))])
    house.open(again, policy=POLICY)
    house.launch("k")
    assert reported(house)[1] == ("push", "skipped", "suppressed")


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"delivered", "failed"}, "delivered"),
        ({"sent", "sending"}, "sent"),
        ({"sending", "unknown", "later"}, "sending"),
        ({"unknown", "later", "failed"}, "unknown"),
        ({"later", "failed", "dropped"}, "planned"),
        ({"failed", "dropped"}, "failed"),
    ],
)
def test_the_state_of_a_push_by_the_states_of_its_devices(states: set[str], message: str) -> None:
    assert state_of(states) == message


# Crashes ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process died here."""


def lost(house: House) -> int:
    """Time passes until claims are lost, and housekeeping looks."""
    house.db.now = house.now + TIMING.claim_lasts + TIMING.lost_after + 1
    with house.db.transaction() as tx:
        return settle_lost(tx)


def test_every_device_is_claimed_before_the_first_post(house: House) -> None:
    pushing(house, 3)
    seen: list[dict[str, str]] = []
    house.providers.meanwhile = lambda: seen.append(house.devices(house.rows()[0].id))
    house.launch("j")
    assert seen[0] == dict.fromkeys(TOKENS, "sending")


def test_a_crash_during_the_request_leaves_every_claimed_device_unknown(house: House) -> None:
    """It is not known which devices were posted to."""
    pushing(house)

    def dying() -> None:
        raise Killed

    house.providers.meanwhile = dying
    with pytest.raises((Killed, BaseExceptionGroup)):
        house.launch("j")
    house.providers.meanwhile = lambda: None
    before = len(house.providers.requests)
    assert lost(house) == 1
    assert lost(house) == 0
    [row] = house.rows()
    assert (row.state, row.reason) == ("unknown", "the process died around the hand-over")
    assert house.devices(row.id) == {"device-a": "unknown", "device-b": "unknown"}
    house.later("3d")
    assert len(house.providers.requests) == before


@pytest.mark.parametrize(
    ("first", "state", "devices"),
    [
        ("sent", "sent", ("sent", "unknown")),
        ("retry", "unknown", ("dropped", "unknown")),
        ("failed", "unknown", ("failed", "unknown")),
    ],
)
def test_a_crash_after_one_device_was_recorded(
    house: House, first: Any, state: str, devices: Sequence[str]
) -> None:
    pushing(house)

    async def once(dispatcher: Dispatcher) -> None:
        [claim] = dispatcher._claim(["push"], None).claims
        assert [target.address for target in claim.targets] == ["device-a", "device-b"]
        await dispatcher._record([answer(dispatcher, claim, "device-a", first)])

    def answer(dispatcher: Dispatcher, claim: Claim, token: str, result: Any) -> Any:
        [outgoing] = [one for one in dispatcher._outgoing(claim) if one.to == token]
        return settled(claim, outgoing, SendOutcome(claim.message_id, result, reason="so"), TIMING)

    house.db.now = MONDAY
    planned(house)
    house.dispatching(once)
    [row] = house.rows()
    assert row.state == ("sent" if first == "sent" else "sending")
    assert lost(house) == (0 if first == "sent" else 1)
    [row] = house.rows()
    assert row.state == state
    assert house.devices(row.id) == dict(zip(("device-a", "device-b"), devices, strict=True))
    house.later("3d")
    assert house.providers.requests == []
    assert house.people()[0].end_reason == "completed"


def planned(house: House) -> None:
    """Everybody is in the journey, and their messages are due."""
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [1], None)
    house.advance()


def test_an_outcome_recorded_after_the_claim_was_lost(house: House) -> None:
    """The process had hung: its outcomes still count, and nothing is sent twice."""
    pushing(house)
    planned(house)
    held: list[tuple[Claim, list[Outgoing]]] = []

    async def claimed(dispatcher: Dispatcher) -> None:
        [claim] = dispatcher._claim(["push"], None).claims
        held.append((claim, dispatcher._outgoing(claim)))

    house.dispatching(claimed)
    assert lost(house) == 1
    [(claim, outgoing)] = held
    results: tuple[SendResult, ...] = ("sent", "retry")
    done = [
        settled(claim, one, SendOutcome(claim.message_id, result, reason="so"), TIMING)
        for one, result in zip(outgoing, results, strict=True)
    ]
    with house.db.transaction() as tx:
        outcomes = record(tx, CatalogJourneys(house.segue.engine.mover), done)
    assert outcomes.tally == {("j", "push", "sent"): 1}
    [row] = house.rows()
    assert row.state == "sent"
    assert house.devices(row.id) == {"device-a": "sent", "device-b": "dropped"}
    house.later("1d")
    assert house.providers.requests == []


def test_the_outcome_of_one_device_is_recorded_while_another_is_slow(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.shorten(record_every=0.01)
    pushing(house)
    planned(house)
    answered = asyncio.Event()
    post = Dispatcher._post

    async def post_slowly(self: Dispatcher, channel: Any, batch: Any, look: Any) -> Any:
        if batch[0].outgoing.to == "device-b":
            await answered.wait()
        return await post(self, channel, batch, look)

    async def scenario(dispatcher: Dispatcher) -> None:
        running = asyncio.create_task(dispatcher.run())
        async with asyncio.timeout(600):
            while [row.state for row in house.rows()] != ["sent"]:
                await asyncio.sleep(0.01)
        states.append(house.devices(house.rows()[0].id))
        answered.set()
        assert await running == {("j", "push", "sent"): 1}

    states: list[dict[str, str]] = []
    monkeypatch.setattr(Dispatcher, "_post", post_slowly)
    house.dispatching(scenario)
    assert states == [{"device-a": "sent", "device-b": "sending"}]
    assert house.devices(house.rows()[0].id) == {"device-a": "sent", "device-b": "sent"}


# What providers say later -------------------------------------------------------------------------


def hear(house: House, kind: Any, token: str | None, **said: Any) -> None:
    row = house.rows()[0]
    word = Feedback(
        id=f"{kind} {token}",
        source="test",
        channel="push",
        kind=kind,
        message_id=row.id,
        address=token,
    )
    with house.db.transaction() as tx:
        apply(tx, [replace(word, **said)])


@pytest.mark.parametrize(
    ("answers", "word", "state", "devices"),
    [
        (("sent", "sent"), "failed", "sent", ("failed", "sent")),
        (("unknown", "failed"), "delivered", "delivered", ("delivered", "failed")),
        (("unknown", "unknown"), "failed", "unknown", ("failed", "unknown")),
        (("unknown", "failed"), "failed", "failed", ("failed", "failed")),
        (("later", "later"), "delivered", "delivered", ("delivered", "dropped")),
        (("later", "later"), "failed", "planned", ("failed", "later")),
        (("later", "failed"), "failed", "failed", ("failed", "failed")),
    ],
)
def test_a_late_report_about_one_device(
    house: House, answers: Sequence[str], word: Any, state: str, devices: Sequence[str]
) -> None:
    pushing(house)
    for token, answer in zip(TOKENS, answers, strict=False):
        house.providers.answer_to(token, ANSWERS[answer])
    house.launch("j")
    house.db.now = MONDAY + 10
    hear(house, word, "device-a")
    [row] = house.rows()
    assert row.state == state
    assert house.devices(row.id) == dict(zip(("device-a", "device-b"), devices, strict=True))
    if state != "planned":
        house.later("1d")
        assert len(house.providers.requests) == 2


def test_a_report_about_a_device_that_now_belongs_to_another_profile(house: House) -> None:
    """It names the message that went to it; or the provider's own id alone."""
    pushing(house)
    house.providers.answer_to("device-a", httpx.ReadTimeout("slow"))
    house.providers.answer_to("device-b", httpx.ReadTimeout("slow"))
    house.launch("j")
    bob = house.customer("bob", push_tokens={})
    change_device(house, "device-a", profile_id=bob)
    hear(house, "sent", "device-a", provider_id="theirs")
    [row] = house.rows()
    assert (row.state, row.provider_id) == ("sent", "theirs")
    hear(house, "delivered", None, provider_id="theirs")
    assert house.devices(row.id) == {"device-a": "delivered", "device-b": "unknown"}
    assert house.rows()[0].state == "delivered"


def test_a_merge_moves_the_devices_of_messages(house: House) -> None:
    ann = pushing(house)
    house.launch("j")
    bob = house.customer("bob", push_tokens={})
    with house.db.transaction() as tx:
        merge(tx, [Merger(from_id=ann, into_id=bob, why="test")])
    with house.db.transaction(write=False) as tx:
        theirs = tx.conn.execute(select(message_devices.c.profile_id)).scalars()
        assert set(theirs) == {bob}


# Looking ------------------------------------------------------------------------------------------


def test_explain_names_each_device_without_its_token(house: House) -> None:
    pushing(house, 3)
    house.providers.answer_to("device-a", ANSWERS["gone"])
    house.providers.answer_to("device-b", ANSWERS["later"])
    house.launch("j")
    with house.db.transaction(write=False) as tx:
        [message] = history_of(tx, "ann")
    assert [(one["device"], one["why"]) for one in message["devices"]] == [
        ("ios …ce-a", "refused: fcm UNREGISTERED"),
        ("android …ce-b", "not handed over: fcm 503"),
        ("web …ce-c", "sent"),
    ]
    assert "device-" not in str(message)


def test_a_push_of_an_earlier_release_has_no_devices(house: House) -> None:
    pushing(house)
    house.launch("j")
    with house.db.transaction() as tx:
        tx.conn.execute(message_devices.delete())
        tx.conn.execute(update(messages).values(state="planned", attempts=1, reason="fcm 503"))
    with house.db.transaction(write=False) as tx:
        [message] = history_of(tx, "ann")
    assert "devices" not in message
    # Whoever it was planned again for, all live devices get it.
    house.run()
    assert tries(house) == {"device-a": 2, "device-b": 2, "device-c": 0}
    assert house.rows()[0].attempts == 2


def test_messages_of_other_channels_cost_no_more(house: House) -> None:
    house.open(sending(Email("hello"), SMS("hello")), policy=POLICY)
    house.customer("ann", push_tokens=TOKENS)
    with statements(house.db) as executed:
        house.launch("j")
    assert [row.state for row in house.rows()] == ["sent", "sent"]
    assert [one for one in executed if "message_device" in one] == []


# Statements ---------------------------------------------------------------------------------------


def test_devices_are_looked_up_only_for_pushes_that_were_tried_before(house: House) -> None:
    ann = pushing(house)
    house.providers.answer_to("device-a", ANSWERS["failed"])
    house.providers.answer_to("device-b", ANSWERS["later"])
    house.launch("j")
    with house.db.transaction() as tx:
        [again] = [MessageRow._make(row) for row in tx.conn.execute(select(*MESSAGE_COLUMNS))]
        recipients = load_recipients(tx, POLICY, [ann])
        with statements(house.db) as executed:
            first = look_up(tx, [again._replace(attempts=0)], recipients)
        assert executed == []
        assert [one.address for one in first.open[again.id]] == ["device-a", "device-b"]
        with statements(house.db) as executed:
            second = look_up(tx, [again], recipients)
        assert len(executed) == 1
        assert second == ({again.id: [Target("device-b", "android")]}, [])


def test_claiming_devices_takes_one_statement_or_two_on_a_retry(house: House) -> None:
    ann = pushing(house)
    with house.db.transaction() as tx:
        both = [
            DeviceClaim(
                message_id=1, token=token, profile_id=ann, attempts=1, not_after=MONDAY + 60
            )
            for token in ("device-a", "device-b")
        ]
        with statements(house.db) as executed:
            take(tx, both)
        assert len(executed) == 1
        tx.conn.execute(update(message_devices).values(state="later", attempts=0))
        with statements(house.db) as executed:
            take(tx, both[:1])
        assert len(executed) == 2
    assert house.devices(1) == {"device-a": "sending", "device-b": "dropped"}


@pytest.mark.parametrize(("other", "number"), [("failed", 3), ("later", 4)])
def test_number_of_statements_that_record_a_push(house: House, other: Any, number: int) -> None:
    pushing(house)
    for token in ("device-a", "device-b"):
        house.providers.answer_to(token, ANSWERS["later"])
    house.launch("j")
    [row] = house.rows()
    with house.db.transaction() as tx:
        for table in (messages, message_devices):
            tx.conn.execute(update(table).values(state="sending"))
        answers: dict[str, Any] = {"device-a": "sent", "device-b": other}
        outcomes = [
            DeviceOutcome(
                message_id=row.id,
                token=token,
                state=state,
                reason=None,
                attempts=2,
                retry_at=None,
                provider_id=None,
            )
            for token, state in answers.items()
        ]
        with statements(house.db) as executed:
            assert record_devices(tx, outcomes) == {row.id: "sent"}
        assert len(executed) == number
    [row] = house.rows()
    assert (row.state, row.attempts) == ("sent", 2)
