"""The breaker: a failing provider pauses only its own channel, and windows and caps still apply."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import respx

from channels.outbox.breaker import TRIPS_AT, UNKNOWN_TRIPS_AT
from channels.outbox.dispatch import Dispatcher
from channels.providers.base import ConnectedProvider
from channels.providers.sending import Outgoing, outcomes
from channels.providers.transport import Transport
from config.clock.times import DAY, HOUR, MINUTE, format_instant
from config.policy import Policy
from config.timing import TIMING
from flows.worker.worker import Worker
from journeys.definition.steps import MessageSpec
from journeys.dsl import SMS, Email, Journey, OnEvent, Push, Send
from journeys.engine.entry import enter_people
from tests.support.failures import at, entered, until
from tests.support.providers.dispatching import DAYTIME
from tests.support.shop import MONDAY, House, described, read_request


def test_a_breaker_opens_logs_and_closes_while_other_channels_send(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.open(described(Send("s", Email("hello"), Push("hello"))))
    people = [house.customer() for _ in range(TRIPS_AT + 5)]
    counts: list[tuple[int, int]] = []

    async def hours(dispatcher: Dispatcher) -> None:
        async def pass_time(seconds: int) -> None:
            house.db.now = house.now + seconds
            while await dispatcher.run():
                pass
            counts.append((at(house, "email"), at(house, "push")))

        with house.db.transaction() as tx:
            enter_people(tx, house.segue.catalog.journey("j"), people, None)
        await asyncio.to_thread(house.advance)
        house.providers.answer("email", *[httpx.Response(503)] * (TRIPS_AT + 6))
        await pass_time(0)
        await pass_time(TIMING.first_pause - 1)
        # long after all of them were to be tried again: one more failure is enough
        await pass_time(HOUR)
        await pass_time(2 * TIMING.first_pause - 1)
        house.providers.accept_again()
        await pass_time(HOUR)

    with caplog.at_level(logging.ERROR):
        house.dispatching(hours)
    first, during, after, longer, well = counts
    assert first[1] == len(people)
    assert TRIPS_AT <= first[0] <= len(people)
    assert during == first
    assert during[0] < after[0]
    assert longer == after
    assert (
        "sendgrid is paused for 15 s, its messages stay planned: 20 consecutive requests failed"
        in caplog.text
    )
    assert "sendgrid is paused for 30 s" in caplog.text
    assert well[0] > longer[0]
    assert {row.state for row in house.rows()} == {"sent"}
    assert "@" not in caplog.text


def test_concurrent_failures_open_the_breaker_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixty requests run when the provider starts to refuse them; the pause is not longer."""
    under_way = 60
    entered(house, SMS("hello"), people=under_way)
    all_there = asyncio.Barrier(under_way)

    async def refuse(
        _: Transport, provider: ConnectedProvider, batch: Sequence[Outgoing], *__: Any
    ) -> Any:
        await all_there.wait()
        return outcomes(batch, "retry", "twilio 503")

    async def twice(dispatcher: Dispatcher) -> None:
        with patch.object(Transport, "post", refuse):
            await dispatcher.run()
        house.db.now = house.now + TIMING.first_pause + MINUTE
        await dispatcher.run()

    with caplog.at_level(logging.ERROR):
        house.dispatching(twice)
    assert caplog.text.count("is paused") == 1
    assert f"twilio is paused for {TIMING.first_pause} s" in caplog.text
    assert {row.state for row in house.rows()} == {"sent"}


def test_a_pause_begins_at_the_time_of_the_response(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider answers after half a minute, when a pause from the claim on would be over."""
    entered(house, SMS("hello"), people=TRIPS_AT + 1)
    slowness, clock = 30, [1000.0]
    monkeypatch.setattr("channels.outbox.dispatch.IN_FLIGHT", TRIPS_AT)
    monkeypatch.setattr("channels.outbox.dispatch.time.monotonic", lambda: clock[0])

    async def refuse(
        _: Transport, provider: ConnectedProvider, batch: Sequence[Outgoing], *__: Any
    ) -> Any:
        clock[0] = 1000.0 + slowness
        return outcomes(batch, "retry", "twilio 503")

    async def later(dispatcher: Dispatcher) -> None:
        with patch.object(Transport, "post", refuse):
            await dispatcher.run()
        for seconds in (slowness, slowness + TIMING.first_pause - 1, slowness + TIMING.first_pause):
            house.db.now = MONDAY + seconds
            await dispatcher.run()
            went.append(at(house, "sms"))

    went: list[int] = []
    house.dispatching(later)
    assert went[:2] == [0, 0]
    assert went[2] > 0


@pytest.mark.parametrize("together", [1, 10])
def test_a_provider_that_times_out_gets_few_messages(
    house: House, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """A provider without a response leaves unknown messages. After a pause one message is sent, and
    the others only after its success."""
    monkeypatch.setattr("channels.outbox.dispatch.CLAIM_BATCH", together)
    template = "d-1" if together > 1 else ""
    entered(house, Email("hello"), people=60, sendgrid_template_id=template)
    house.providers.answer("email", *[httpx.ReadTimeout("silent")] * (UNKNOWN_TRIPS_AT + 2))

    async def hours(dispatcher: Dispatcher) -> None:
        pause = TIMING.first_pause
        for _ in range(4):
            await dispatcher.run()
            states.append(Counter(row.state for row in house.rows()))
            house.db.now = house.now + pause
            pause *= 2

    states: list[Counter[str]] = []
    house.dispatching(hours)
    lost = UNKNOWN_TRIPS_AT * together
    assert [one["unknown"] for one in states] == [lost, lost + 1, lost + 2, lost + 2]
    assert states[-1] == {"unknown": lost + 2, "sent": 60 - lost - 2}
    requests = iter(house.providers.requests[UNKNOWN_TRIPS_AT:])
    assert [len(list(read_request(next(requests)))) for _ in range(3)] == [1, 1, 1]
    assert len(list(read_request(next(requests)))) == together


@pytest.mark.parametrize(
    ("wanted", "state", "reason", "when"),
    [
        # moved to the morning, for it may wait; then there is room again
        (Email("hello", on_cap="defer"), "sent", None, "2026-03-03T08:00:00Z"),
        (Email("hello", max_delay="2h"), "skipped", "expired", None),
    ],
    ids=["moved", "too late"],
)
def test_windows_and_caps_apply_after_an_outage(
    house: House, wanted: MessageSpec, state: str, reason: str | None, when: str | None
) -> None:
    policy = Policy.model_validate(
        {
            "channels": {"email": DAYTIME},
            "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
        }
    )
    house.open(described(Send("s", wanted)), policy=policy)
    house.customer()
    waits = {"retry-after": "3600"}
    house.providers.answer("email", *[httpx.Response(503, headers=waits)] * 10)
    house.launch("j")
    house.until(MONDAY + 10 * HOUR)
    house.providers.accept_again()
    house.until(MONDAY + 2 * DAY)
    [row] = house.rows()
    assert row.state == state
    assert (row.reason or "").split(":")[0] == (reason or "")
    assert when is None or format_instant(row.send_at) == when
    assert house.people()[0].end_reason == "completed"


def test_a_cap_reached_during_an_outage_applies_afterwards(house: House) -> None:
    policy = Policy.model_validate({"caps": [{"channels": ["email"], "limit": 1, "per": "day"}]})
    mail = described(Send("s", Email("hello")))
    rival = described(Send("s", Email("offer")), name="k", priority=90)
    house.open(mail, rival, policy=policy)
    house.customer()
    house.providers.answer("email", httpx.Response(503, headers={"retry-after": "600"}))
    house.launch("j")
    house.later("1m")
    house.launch("k")
    house.later("1h")
    told = [(row.journey, row.state, row.reason) for row in house.rows()]
    assert told == [("j", "skipped", "capped"), ("k", "sent", None)]
    assert len(house.providers.accepted) == 1


def test_a_slow_provider_does_not_delay_others(house: House) -> None:
    """The response for the text comes after the mail was sent and an enrollment has moved on."""
    house.open(
        Journey(
            "j",
            entry=OnEvent("came", key="visit", again="always"),
            topic="news",
            steps=[Send("text", SMS("hello")), Send("mail", Email("hello"))],
        ),
        Journey("k", entry=OnEvent("left"), topic="news", steps=[Send("mail", Email("offer"))]),
    )
    ann, bob = house.customer("ann"), house.customer("bob")
    mailed = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.wait_for(mailed.wait(), 20)
        return httpx.Response(201, json={"sid": "SM1"})

    async def quick(request: httpx.Request) -> httpx.Response:
        mailed.set()
        return httpx.Response(202)

    async def work() -> None:
        worker, stop = Worker(house.segue), asyncio.Event()
        working = asyncio.create_task(worker.run(stop))
        house.did(ann, "came")
        await until(lambda: house.rows() and house.rows()[0].state == "sending")
        house.did(bob, "left")
        await until(lambda: [row.state for row in house.rows()] == ["sent"] * 3)
        stop.set()
        await working

    with respx.mock(assert_all_called=False) as mock:
        mock.route(path__regex="Messages.json").mock(side_effect=slow)
        mock.route(path__regex="mail/send").mock(side_effect=quick)
        asyncio.run(work())
