"""The claim: it is committed before the request, and each claim gets exactly one outcome."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout

from channels.messages import messages
from channels.outbox.dispatch import Dispatcher
from channels.outbox.unknown import settle_lost
from channels.providers import fcm
from channels.providers.base import ConnectedProvider
from channels.providers.fcm import FCM, FCMSettings
from channels.providers.sending import Outgoing, SendOutcome
from channels.providers.transport import MayLeave, Transport
from config.clock.times import DAY, HOUR, MINUTE
from config.settings import Settings
from config.timing import TIMING
from journeys.dsl import SMS, Email, Journey, OnLaunch, Push, Send, Wait, did
from journeys.engine.entry import enter_people
from journeys.engine.hand_over import CatalogJourneys
from journeys.operations import control
from journeys.operations.merge import merge
from profiles.consent.changes import ConsentChange, change_consent
from profiles.consent.preferences import Changes, read_chosen, save
from profiles.events import NewEvent, record_events
from profiles.identity.mergers import Merger
from tests.support.providers.dispatching import POLICY, reported, sending
from tests.support.shop import MONDAY, House


def test_the_claim_is_committed_before_the_post(house: House) -> None:
    house.open(sending(Email("hello")), policy=POLICY)
    house.customer()
    seen = []
    house.providers.meanwhile = lambda: seen.extend(house.rows())
    house.launch("j")
    [row] = seen
    assert (row.state, row.attempts, row.send_at) == ("sending", 1, MONDAY)
    assert row.not_after == MONDAY + TIMING.claim_lasts
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


def test_a_claimed_message_is_posted_before_its_window_closes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transport checks the window directly before each request."""
    house.open(sending(Email("hello")), policy=POLICY)
    ann = house.customer()
    clock = [1000.0]
    monkeypatch.setattr("channels.outbox.dispatch.time.monotonic", lambda: clock[0])
    answers = []

    async def connect_slowly(
        _transport: Transport, _provider: ConnectedProvider, _batch: object, may_leave: MayLeave
    ) -> list[SendOutcome]:
        for _ in range(2):
            answers.append(await may_leave())
            clock[0] += 20
        return []

    monkeypatch.setattr(Transport, "post", connect_slowly)
    house.db.now = MONDAY + 10 * HOUR - 20
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
    house.advance()

    async def once(dispatcher: Dispatcher) -> None:
        claims = dispatcher._claim(["email"], None).claims
        await dispatcher._hand_over(claims, taken=clock[0])

    house.dispatching(once)
    assert answers == [True, False]
    assert [(row.state, row.attempts) for row in house.rows()] == [("planned", 0)]


class Killed(BaseException):
    """The process died here."""


def dying() -> None:
    raise Killed


def test_a_crash_during_the_request_leaves_the_message_unknown_and_unsent_again(
    house: House,
) -> None:
    house.open(sending(Email("hello")), sending_again := Journey(
        "again", entry=OnLaunch(), topic="news", steps=[Send("s", Email("offer"))]
    ), policy=POLICY)  # fmt: skip
    house.customer()
    house.providers.meanwhile = dying
    with pytest.raises((Killed, BaseExceptionGroup)):
        house.launch("j")
    assert reported(house) == [("email", "sending", None)]

    # It comes up again. The message is nobody's to send, and while it may have gone it counts.
    house.providers.meanwhile = lambda: None
    house.later("1m")
    house.launch(sending_again.name)
    assert reported(house)[1] == ("email", "skipped", "capped")
    house.db.now = MONDAY + TIMING.claim_lasts + TIMING.lost_after
    with house.db.transaction() as tx:
        assert settle_lost(tx) == 0
    house.db.now += 1
    with house.db.transaction() as tx:
        assert settle_lost(tx) == 1
        assert settle_lost(tx) == 0
    [row, _] = house.rows()
    assert (row.state, row.reason) == ("unknown", "the process died around the hand-over")
    assert (row.not_after, bool(row.claimed_by)) == (MONDAY + TIMING.claim_lasts, True)
    house.later("3d")
    assert [len(house.providers.requests), len(house.providers.accepted)] == [1, 0]
    assert {person.end_reason for person in house.people()} == {"completed"}


def test_a_message_that_cannot_be_posted_within_its_claim_is_released(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection, and the first post takes longer than a claim lasts."""
    clock = [1000.0]
    monkeypatch.setattr("channels.outbox.dispatch.IN_FLIGHT", 1)
    monkeypatch.setattr("channels.outbox.dispatch.time.monotonic", lambda: clock[0])
    house.open(sending(Email("hello")), policy=POLICY)
    people = [house.customer() for _ in range(3)]

    def slow() -> None:
        clock[0] += TIMING.claim_lasts if len(house.providers.requests) == 1 else 0

    house.providers.meanwhile = slow

    async def once(dispatcher: Dispatcher) -> None:
        claims = dispatcher._claim(["email"], None).claims
        counts.append((await dispatcher._hand_over(claims, taken=clock[0])).outcomes)

    counts: list[Any] = []
    with house.db.transaction() as tx:
        version = house.segue.catalog.journey("j")
        enter_people(tx, version, people, None)
    house.advance()
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
def test_changes_while_claims_wait_for_a_slot_are_checked_before_the_post(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A provider takes one at a time; while it has the first something is heard of the second."""
    monkeypatch.setattr("channels.outbox.dispatch.IN_FLIGHT", 1)
    house.shorten(claim_is_fresh=-1)  # always past
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
                    change_consent(
                        tx,
                        [ConsentChange(profile_id=bob, channel="email", topic="*", granted=False)],
                        "test",
                    )
                case "chosen hours":
                    before = read_chosen(tx, bob, lock=True)
                    assert before is not None
                    save(tx, before, Changes(choices={"opens": 16 * 60, "closes": 18 * 60}), "test")
                case "a purchase":
                    bought = NewEvent(
                        profile_id=bob,
                        name="bought",
                        occurred_at=tx.now,
                        dedupe_key="1",
                        properties={},
                    )
                    record_events(tx, [bought], worked=False)
                case "another profile's":
                    merge(tx, [Merger(from_id=bob, into_id=cleo, why="test")])
                case "trouble":
                    monkeypatch.setattr("channels.outbox.dispatch.outdated", failing)

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


def test_changes_while_a_token_is_fetched_are_checked_before_the_post(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.outbox.dispatch.IN_FLIGHT", 1)
    house.shorten(claim_is_fresh=-1)  # always past
    house.open(sending(Push("hello"), exit_when=did("bought")), policy=POLICY)
    _, bob = house.customer(), house.customer()

    async def fetched() -> str:
        if house.providers.requests:
            await asyncio.to_thread(house.did, bob, "bought")
        return "Bearer token"

    def fetching(own: FCMSettings, _: Settings) -> FCM:
        return FCM(own.url, "p", auth=fetched)

    monkeypatch.setattr(fcm, "PROVIDER", replace(fcm.PROVIDER, connect=fetching))
    house.launch("j")
    assert [row.state for row in house.rows()] == ["sent", "cancelled"]
    assert len(house.providers.accepted) == 1


def test_outcomes_are_recorded_while_a_slow_request_is_under_way(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.shorten(record_every=0.01)
    house.open(sending(SMS("hello")), policy=POLICY)
    slow, *others = (house.customer() for _ in range(3))
    answered = asyncio.Event()
    post = Transport.post

    async def post_slowly(
        self: Transport, provider: ConnectedProvider, batch: Sequence[Outgoing], may_leave: MayLeave
    ) -> list[SendOutcome]:
        if batch[0].message_id == house.rows(slow)[0].id:
            await answered.wait()
        return await post(self, provider, batch, may_leave)

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
    house.advance()
    house.dispatching(scenario)


def test_a_delivery_report_before_the_recorded_outcome_wins(house: House) -> None:
    house.open(sending(Email("hello")), policy=POLICY)
    house.customer()

    def delivered() -> None:
        with house.db.transaction() as tx:
            tx.conn.execute(update(messages).values(state="delivered", provider_id="theirs"))

    house.providers.meanwhile = delivered
    house.launch("j")
    [row] = house.rows()
    assert (row.state, row.provider_id) == ("delivered", "theirs")


def test_an_enrollment_moves_on_when_its_last_message_is_sent(house: House) -> None:
    house.open(sending(Email("hello"), Push("hello", after="10m"), then=(Wait("1h"),)))
    house.customer()
    house.launch("j")
    house.later("10m")
    [person] = house.people()
    assert (person.step, person.arrived_at) == ("wait 1h", MONDAY + 10 * MINUTE)


def test_a_late_outcome_does_not_end_a_later_wait(house: House) -> None:
    """The process hung at the hand-over; its people have long gone on."""
    house.open(sending(Email("hello"), then=(Wait("2d"),)))
    house.customer()
    house.launch("j")
    [person] = house.people()
    assert (person.step, person.due_at) == ("wait 2d", MONDAY + 2 * DAY)
    with house.db.transaction() as tx:
        CatalogJourneys(house.segue.engine.mover).settled(tx, [person.id])
    assert house.people()[0].due_at == MONDAY + 2 * DAY
