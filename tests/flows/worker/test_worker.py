"""The worker: a failing part does not stop the others, and the worker stops when asked."""

import asyncio
import logging
import socket
import threading
from contextlib import closing
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from channels.providers.base import ConnectedProvider
from channels.providers.transport import Transport
from config.errors import SegueError
from flows.http.serving import Server
from flows.worker.worker import Worker
from journeys.dsl import (
    SMS,
    Call,
    Email,
    Goal,
    Journey,
    OnEvent,
    OnSegment,
    Send,
    Update,
    Wait,
    did,
)
from journeys.engine.advance import Engine
from journeys.engine.move import Mover
from journeys.engine.reactor import Reactor
from journeys.operations.control import STOPPED, _hold
from tests.support.failures import until, worked
from tests.support.shop import House


@pytest.fixture
def house(sqlite_house: House) -> House:
    sqlite_house.shorten(after_trouble=0.02, housekeeping=0.02)
    steps = [Send("s", Email("hello")), Wait("1d")]
    came = Journey("j", entry=OnEvent("came"), topic="news", steps=steps)
    sqlite_house.open(came)
    return sqlite_house


def states(house: House) -> list[str]:
    return [row.state for row in house.rows()]


def test_a_worker_processes_due_work_and_stops(house: House) -> None:
    async def scenario() -> None:
        house.did(house.customer(), "came")
        # who stands behind a message moves on in the turn after it has gone
        await until(lambda: [person.step for person in house.people()] == ["wait 1d"])

    worked(house, scenario)
    assert states(house) == ["sent"]


def test_a_turn_with_only_exits_or_conversions_is_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    bought = did("bought")
    goal, parts = Goal(did=bought, within="7d"), {"entry": OnEvent("came"), "topic": "news"}
    for_ever = [Wait("9d")]
    house.open(
        Journey("leaves", exit_when=bought, steps=for_ever, **parts),
        Journey("converts", goal=goal, steps=for_ever, **parts),
    )
    ann = house.customer()
    house.did(ann, "came")
    house.run()

    def counted(what: str) -> list[object]:
        return [found for one in caplog.records if (found := getattr(one, what, None))]

    async def scenario() -> None:
        house.did(ann, "bought")
        await until(lambda: counted("exited") and counted("converted"))

    # housekeeping counts goals too, and is not to be the first
    with caplog.at_level(logging.INFO), patch.object(Engine, "count_goals"):
        worked(house, scenario)
    assert (counted("exited"), counted("converted")) == ([{"leaves": 1}], [{"converts": 1}])


def test_a_worker_ends_enrollments_that_a_killed_stop_left(house: House) -> None:
    house.did(house.customer(), "came")
    house.run()

    async def scenario() -> None:
        _hold(house.db, "j", STOPPED)
        await until(lambda: [one.end_reason for one in house.people()] != [None])

    worked(house, scenario)


@pytest.mark.parametrize(
    ("part", "fails"),
    [(Reactor, "work"), (Mover, "move"), (Engine, "count_goals")],
    ids=["reacting", "moving", "housekeeping"],
)
def test_one_part_that_fails_does_not_stop_the_others(
    house: House, caplog: pytest.LogCaptureFixture, part: Any, fails: str
) -> None:
    ann, bob = house.customer(), house.customer()
    house.did(ann, "came")
    with house.db.transaction() as tx:
        house.segue.catalog.register(tx)

    async def scenario() -> None:
        with patch.object(part, fails, side_effect=KeyError("ann@example.com")):
            await until(lambda: "KeyError" in caplog.text)
        house.did(bob, "came")
        await until(lambda: states(house) == ["sent", "sent"])

    worked(house, scenario)
    assert "@" not in caplog.text


def test_due_messages_are_sent_while_reacting_fails(house: House) -> None:
    house.did(house.customer(), "came")
    Reactor(house.segue.engine).work()

    async def scenario() -> None:
        with patch.object(Reactor, "work", side_effect=KeyError):
            await until(lambda: states(house) == ["sent"])

    worked(house, scenario)


def test_enrollments_on_a_version_of_a_dead_process_are_moved(house: House) -> None:
    old = house.segue
    newer = Journey("j", entry=OnEvent("came"), topic="news", steps=[Update("u", x=1)])
    house.open(newer)
    ann = house.customer()
    house.did(ann, "came")
    Reactor(house.segue.engine).work()
    house.segue = old

    async def scenario() -> None:
        await until(lambda: house.attributes(ann) == {"x": 1})

    worked(house, scenario)


def test_a_slow_provider_delays_no_turn(house: House) -> None:
    house.did(house.customer("ann"), "came")
    house.did(house.customer("bob", email=None), "came")
    gate = asyncio.Event()
    post = Transport.post

    async def slow(self: Transport, provider: ConnectedProvider, *given: Any) -> Any:
        if provider.channel == "email":
            await gate.wait()
        return await post(self, provider, *given)

    async def scenario() -> None:
        await until(lambda: sent() == {"sms"})
        # The mail is under way all the time, and what comes is worked and sent.
        house.did(house.customer("cleo", email=None), "came")
        await until(lambda: states(house).count("sent") == 2)
        assert states(house).count("sending") == 1
        gate.set()
        await until(lambda: sent() == {"email", "sms"})

    def sent() -> set[str]:
        return {row.channel for row in house.rows() if row.state == "sent"}

    steps = [Send("s", Email("hello"), SMS("hello"), mode="first")]
    house.open(Journey("j", entry=OnEvent("came"), topic="news", steps=steps))
    with patch.object(Transport, "post", slow):
        worked(house, scenario)


def test_a_slow_call_delays_no_turn(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    called, answers = threading.Event(), threading.Event()

    def slow(_: httpx.Request) -> httpx.Response:
        called.set()
        assert answers.wait(30)
        return httpx.Response(200)

    async def scenario() -> None:
        house.did(ann, "signed_up")
        await until(called.is_set)
        house.did(house.customer("bob"), "came")
        await until(lambda: states(house) == ["sent"])
        answers.set()

    monkeypatch.setenv("SEGUE_CALL_HOSTS", '["crm.shop.test"]')
    house.providers.hosts["crm.shop.test"] = slow
    call = Call("tell", "https://crm.shop.test/came")
    house.open(
        Journey("calling", entry=OnEvent("signed_up"), topic="news", steps=[call]),
        Journey("j", entry=OnEvent("came"), topic="news", steps=[Send("s", Email("hello"))]),
    )
    ann = house.customer("ann")
    worked(house, scenario)
    # a worker that is told to stop waits for the call
    assert [person.end_reason for person in house.people(ann)] == ["completed"]


def test_housekeeping_enters_profiles_that_joined_a_segment(house: House) -> None:
    entry = OnSegment("everyone")
    steps = [Update("u", x=1)]
    house.open(Journey("j", entry=entry, topic="news", steps=steps))
    ann = house.customer()

    async def scenario() -> None:
        await until(lambda: house.attributes(ann) == {"x": 1})

    worked(house, scenario)


def test_a_port_that_is_taken_is_named_before_anything_is_claimed(house: House) -> None:
    house.did(house.customer(), "came")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        settings = house.segue.settings.model_copy(update={"receiver_port": port})
        object.__setattr__(house.segue, "settings", settings)
        with pytest.raises(SegueError, match=rf"127\.0\.0\.1:{port}: .*SEGUE_RECEIVER_PORT"):
            asyncio.run(Worker(house.segue).run(asyncio.Event()))
    assert house.people() == []


def test_a_receiver_that_dies_ends_the_worker_with_its_error(house: House) -> None:
    async def dies(self: Server, sockets: list[socket.socket]) -> None:
        sockets[0].close()
        await asyncio.sleep(0.05)
        raise RuntimeError("the receiver is gone")

    with (
        patch.object(Server, "serve", dies),
        house.providers.listening(),
        pytest.raises(RuntimeError, match="the receiver is gone"),
    ):
        asyncio.run(Worker(house.segue).run(asyncio.Event()))


def test_housekeeping_logs_the_doctors_findings(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.shorten(large_round=2)
    # a message is unknown for two days
    house.did(house.customer(), "came")
    house.providers.answer("email", httpx.ReadError("cut"))
    house.run()
    assert house.db.now is not None
    house.db.now += 2 * 86400

    async def scenario() -> None:
        await until(lambda: "unknown messages: 1 (email); no delivery report" in caplog.text)
        assert "closed" not in caplog.text
        house.db.now = house.now + 2 * 86400
        await until(lambda: "1 unknown messages are closed" in caplog.text)

    with caplog.at_level(logging.WARNING):
        worked(house, scenario)
