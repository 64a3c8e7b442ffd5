"""Providers and databases in trouble: what waits, what goes on meanwhile, and how it ends."""

import asyncio
import logging
import socket
import sqlite3
import ssl
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import respx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError

import channels.dispatch
from channels.breaker import FIRST_PAUSE, TRIPS_AT, UNKNOWN_TRIPS_AT
from channels.claiming import CLAIM_LASTS, LOST_AFTER, Claimed, claim, settle_lost
from channels.dispatch import Dispatcher
from channels.pace import allowance, spend
from channels.provider import Outcome, Outgoing, Provider, outcomes
from channels.providers.fcm import QUOTA_WAIT, SERVER_WAIT
from channels.providers.twilio import Twilio
from channels.recording import FIRST_RETRY
from channels.tables import channel_paces, messages
from channels.transport import Transport
from config.database import Database, Tx
from config.policy import Channel, Policy
from config.times import DAY, HOUR, MINUTE, format_instant
from config.trouble import of_the_database
from flows.worker import Worker
from journeys.attendance import last_seen, sign_in
from journeys.engine import Engine
from journeys.entry import enter_people
from journeys.journey import Journey, OnEvent, OnLaunch, journey
from journeys.outbox import CatalogJourneys
from journeys.steps import SMS, Email, Message, Push, Send, Update, Wait
from tests.house import MONDAY, House, read_request
from tests.provider_samples import CHANNELS, SANDBOX, in_a_minute, outgoing

ONE = {"email": Email("hello"), "sms": SMS("hello"), "push": Push("hello")}
DAYTIME = {"windows": [{"days": "mon-sun", "from": "08:00", "to": "20:00"}]}


def sending(*wanted: Message, name: str = "j", **options: Any) -> Journey:
    return journey(name, entry=OnLaunch(), topic="news", steps=[Send("s", *wanted)], **options)


def at(house: House, channel: Channel) -> int:
    """How many requests there were on a channel."""
    path = {"email": "mail", "sms": "Messages", "push": "messages:send"}[channel]
    return sum(path in request.url.path for request in house.providers.requests)


# Later --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["email", "sms", "push"])
@pytest.mark.parametrize(
    "named",
    [
        {"retry-after": "90"},
        {
            "retry-after": "Mon, 02 Mar 2026 03:01:30 GMT",  # by a clock that is not ours
            "date": "Mon, 02 Mar 2026 03:00:00 GMT",
        },
    ],
    ids=["seconds", "date"],
)
def test_the_provider_says_when(house: House, channel: Channel, named: dict[str, str]) -> None:
    house.open(sending(ONE[channel]))
    house.customer()
    house.providers.answer(channel, httpx.Response(429, headers=named), httpx.Response(503))
    house.launch("j")
    [row] = house.rows()
    assert row.state == "planned"
    assert MONDAY + 90 <= row.send_at < MONDAY + 135
    house.later("89s")
    assert at(house, channel) == 1
    house.later("1h")
    assert at(house, channel) == 3
    assert [row.state for row in house.rows()] == ["sent"]


@pytest.mark.parametrize(
    ("channel", "answer", "first", "then"),
    [
        ("email", httpx.Response(503), FIRST_RETRY, 2 * FIRST_RETRY),
        ("sms", httpx.Response(503), FIRST_RETRY, 2 * FIRST_RETRY),
        ("push", httpx.Response(503), SERVER_WAIT, 2 * SERVER_WAIT),
        ("push", httpx.Response(429), QUOTA_WAIT, 2 * QUOTA_WAIT),
        *((one, httpx.Response(429, headers={"retry-after": "90"}), 90, 90) for one in CHANNELS),
    ],
)
def test_what_was_refused_together_does_not_come_back_together(
    house: House, channel: Channel, answer: httpx.Response, first: int, then: int
) -> None:
    """Each waits as long as is due and up to half as much again, and longer each time unless the
    provider names the wait.
    """
    people = 15
    house.open(sending(ONE[channel]))
    for _ in range(people):
        house.customer()
    house.providers.answer(channel, *[answer] * 2 * people)
    house.launch("j")
    for wait in (first, then):
        waits = [row.send_at - house.now for row in house.rows()]
        assert min(waits) >= wait
        assert max(waits) < wait * 3 / 2
        assert len(set(waits)) > 3
        house.db.now = house.now + max(waits)
        house.dispatch()
    house.later("1h")
    assert {row.state for row in house.rows()} == {"sent"}


def test_a_wait_begins_with_the_answer(house: House) -> None:
    """It took longer to come than the provider asks us to wait."""
    house.open(sending(SMS("hello")))
    house.customer()
    house.providers.answer("sms", httpx.Response(429, headers={"retry-after": "20"}))

    def slow() -> None:
        house.db.now = MONDAY + 30

    house.providers.meanwhile = slow
    house.launch("j")
    [row] = house.rows()
    assert MONDAY + 30 + 20 <= row.send_at < MONDAY + 30 + 30


@contextmanager
def https_server(directory: Path, *, valid: bool) -> Iterator[tuple[int, list[bytes]]]:
    """A provider by TLS, with a certificate that nobody vouches for or one that has expired; gives
    its port and what was said to it.
    """
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=9 if valid else -1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                    said.append(tls.recv(1000))

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield listener.getsockname()[1], said
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


@pytest.mark.parametrize("valid", [True, False], ids=["nobody vouches for it", "expired"])
def test_a_certificate_that_is_not_to_be_trusted(tmp_path: Path, valid: bool) -> None:
    """Nothing is said to such a server; the message waits until somebody has mended it."""
    with https_server(tmp_path, valid=valid) as (port, said):
        [outcome] = posted_to(f"https://127.0.0.1:{port}")
    assert outcome.result == "retry"
    assert "CERTIFICATE_VERIFY_FAILED" in str(outcome.reason)
    assert said == []


def test_a_name_that_does_not_resolve() -> None:
    [outcome] = posted_to("https://provider.invalid")
    assert outcome.result == "retry"
    assert str(outcome.reason).startswith("ConnectError")


def posted_to(url: str) -> list[Outcome]:
    """A real connection, or the lack of one."""

    async def post() -> list[Outcome]:
        twilio = Twilio(SANDBOX, url, "AC1", "secret", "+15005550006")
        async with Transport(SANDBOX) as transport:
            return await transport.post(twilio, [outgoing("sms", 1)], in_a_minute())

    return asyncio.run(post())


def test_a_breaker_opens_says_so_and_closes_by_itself_while_others_go_on(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.open(sending(Email("hello"), Push("hello")))
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
        await asyncio.to_thread(house.segue.engine.advance_due)
        house.providers.answer("email", *[httpx.Response(503)] * (TRIPS_AT + 6))
        await pass_time(0)
        await pass_time(FIRST_PAUSE - 1)
        # long after all of them were to be tried again: one more failure is enough
        await pass_time(HOUR)
        await pass_time(2 * FIRST_PAUSE - 1)
        house.providers._answers.clear()
        await pass_time(HOUR)

    with caplog.at_level(logging.ERROR):
        house.dispatching(hours)
    first, during, after, longer, well = counts
    assert first[1] == len(people)
    assert TRIPS_AT <= first[0] <= len(people)
    assert during == first
    assert during[0] < after[0]
    assert longer == after
    assert "email is stopped for 15 s, its messages stay planned: 20 requests" in caplog.text
    assert "email is stopped for 30 s" in caplog.text
    assert well[0] > longer[0]
    assert {row.state for row in house.rows()} == {"sent"}
    assert "@" not in caplog.text


def entered(house: House, *wanted: Message, people: int, **settings: Any) -> list[int]:
    """So many people whose messages are due, and nobody has sent any yet; their ids."""
    house.open(sending(*wanted), **settings)
    customers = [house.customer() for _ in range(people)]
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), customers, None)
    house.segue.engine.advance_due()
    return customers


def test_requests_that_fail_together_are_one_reason_to_pause(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixty are under way when the provider begins to refuse them: the pause is as long as said."""
    under_way = 60
    entered(house, SMS("hello"), people=under_way)
    all_there = asyncio.Barrier(under_way)

    async def refuse(_: Transport, provider: Provider, batch: Sequence[Outgoing], *__: Any) -> Any:
        await all_there.wait()
        return outcomes(batch, "retry", "twilio 503")

    async def twice(dispatcher: Dispatcher) -> None:
        with patch.object(Transport, "post", refuse):
            await dispatcher.run()
        house.db.now = house.now + FIRST_PAUSE + MINUTE
        await dispatcher.run()

    with caplog.at_level(logging.ERROR):
        house.dispatching(twice)
    assert caplog.text.count("is stopped") == 1
    assert f"sms is stopped for {FIRST_PAUSE} s" in caplog.text
    assert {row.state for row in house.rows()} == {"sent"}


def test_a_pause_begins_with_the_answer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider answers after half a minute, when a pause from the claim on would be over."""
    entered(house, SMS("hello"), people=TRIPS_AT + 1)
    slowness, clock = 30, [1000.0]
    monkeypatch.setattr("channels.dispatch.IN_FLIGHT", TRIPS_AT)
    monkeypatch.setattr("channels.dispatch.time.monotonic", lambda: clock[0])

    async def refuse(_: Transport, provider: Provider, batch: Sequence[Outgoing], *__: Any) -> Any:
        clock[0] = 1000.0 + slowness
        return outcomes(batch, "retry", "twilio 503")

    async def later(dispatcher: Dispatcher) -> None:
        with patch.object(Transport, "post", refuse):
            await dispatcher.run()
        for seconds in (slowness, slowness + FIRST_PAUSE - 1, slowness + FIRST_PAUSE):
            house.db.now = MONDAY + seconds
            await dispatcher.run()
            went.append(at(house, "sms"))

    went: list[int] = []
    house.dispatching(later)
    assert went[:2] == [0, 0]
    assert went[2] > 0


@pytest.mark.parametrize("together", [1, 10])
def test_a_silent_provider_is_given_few_messages(
    house: House, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Whoever does not answer leaves messages of unknown fate, as many as are in a request. After a
    pause one message goes, and the others only when that one is answered well.
    """
    monkeypatch.setattr("channels.dispatch.CLAIM_BATCH", together)
    template = "d-1" if together > 1 else ""
    entered(house, Email("hello"), people=60, sendgrid_template_id=template)
    house.providers.answer("email", *[httpx.ReadTimeout("silent")] * (UNKNOWN_TRIPS_AT + 2))

    async def hours(dispatcher: Dispatcher) -> None:
        pause = FIRST_PAUSE
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
def test_after_an_outage_windows_and_limits_hold_as_before(
    house: House, wanted: Message, state: str, reason: str | None, when: str | None
) -> None:
    policy = Policy.model_validate(
        {
            "channels": {"email": DAYTIME},
            "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
        }
    )
    house.open(sending(wanted), policy=policy)
    house.customer()
    waits = {"retry-after": "3600"}
    house.providers.answer("email", *[httpx.Response(503, headers=waits)] * 10)
    house.launch("j")
    house.until(MONDAY + 10 * HOUR)
    house.providers._answers.clear()
    house.until(MONDAY + 2 * DAY)
    [row] = house.rows()
    assert row.state == state
    assert (row.reason or "").split(":")[0] == (reason or "")
    assert when is None or format_instant(row.send_at) == when
    assert house.people()[0].end_reason == "completed"


def test_a_cap_that_filled_during_the_outage(house: House) -> None:
    policy = Policy.model_validate({"caps": [{"channels": ["email"], "limit": 1, "per": "day"}]})
    mail = sending(Email("hello"))
    rival = sending(Email("offer"), name="k", priority=90)
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


def test_a_slow_provider_holds_up_nobody_else(house: House) -> None:
    """The text's answer comes only when the mail has gone and somebody else has moved on."""
    house.open(
        journey(
            "j",
            entry=OnEvent("came", key="visit", again="always"),
            topic="news",
            steps=[Send("text", SMS("hello")), Send("mail", Email("hello"))],
        ),
        journey("k", entry=OnEvent("left"), topic="news", steps=[Send("mail", Email("offer"))]),
        receiver_port=0,
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


# Pace ---------------------------------------------------------------------------------------------


def test_a_rate_is_shared_by_all_processes(db: Database) -> None:
    rates: dict[Channel, int] = {"sms": 5}
    channels: list[Channel] = ["email", "sms"]

    def take(wanted: int) -> int:
        """What one process gets in a transaction of its own."""
        with db.transaction() as tx:
            allowed = allowance(tx, rates, channels, 500)
            assert allowed["email"] == 500
            got = min(wanted, allowed.get("sms", 0))
            spend(tx, rates, {"sms": got, "email": 7})
            return got

    db.now = MONDAY
    assert [take(3), take(3), take(3)] == [3, 2, 0]
    db.now = MONDAY + 1
    assert [take(3), take(3), take(3)] == [3, 2, 0]
    with db.transaction(write=False) as tx:
        [row] = tx.conn.execute(select(channel_paces))
    assert (row.channel, row.second, row.used) == ("sms", MONDAY + 1, 5)
    # whose transaction began a second ago, and who waited for the row
    db.now = MONDAY
    assert take(1) == 0
    # the clock was set back
    db.now = MONDAY - HOUR
    assert take(9) == 5


def test_two_dispatchers_keep_a_rate_together(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered(house, SMS("hello"), Email("hello"), people=10, rates={"sms": 4})
    second = text(f"SELECT {MONDAY}")

    async def both(one: Dispatcher) -> None:
        async with house.segue.dispatcher() as other:
            await asyncio.gather(one.run(), other.run())
            # what one of them held while the other looked
            await other.run()

    # a clock that stands still, but is the database's own
    house.db.now = None
    for seconds in range(3):
        second = text(f"SELECT {MONDAY + seconds}")
        monkeypatch.setattr("config.database._NOW", dict.fromkeys(("sqlite", "postgresql"), second))
        house.dispatching(both)
        assert at(house, "sms") == min(10, 4 * (seconds + 1))
    assert at(house, "email") == 10
    assert len({one.message_id for one in house.providers.accepted}) == 20


# The database -------------------------------------------------------------------------------------


async def until(done: Callable[[], Any]) -> None:
    """Wait for something that a worker does."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(0.02)


def worked(house: House, scenario: Callable[[], Awaitable[None]]) -> None:
    """Something happens while a worker is on; it must end by itself when it is told to."""

    async def both() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        await scenario()
        stop.set()
        await working

    with house.providers.listening():
        asyncio.run(both())


@pytest.fixture
def shop(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Five people whose event has come and is not worked yet; a worker that soon tries again."""
    monkeypatch.setattr("flows.worker._AFTER_TROUBLE", 0.05)
    steps = [Send("s", Email("hello")), Wait("1d")]
    house.open(journey("j", entry=OnEvent("came"), topic="news", steps=steps), receiver_port=0)
    for _ in range(5):
        house.did(house.customer(), "came", blob="x" * 3000)
    return house


def recovers(
    shop: House,
    caplog: pytest.LogCaptureFixture,
    trouble: AbstractContextManager[object],
    says: str,
) -> None:
    """The worker says what is wrong, nothing has happened, and when it is over it goes on."""

    async def scenario() -> None:
        # not only housekeeping, which may be the first to meet it
        await until(lambda: says in caplog.text and "the database is in trouble" in caplog.text)
        assert shop.rows() == []
        assert {(one.step, one.phase, one.attempts) for one in shop.people()} <= {("s", 0, 0)}
        assert shop.providers.requests == []
        trouble.__exit__(None, None, None)
        await until(lambda: [row.state for row in shop.rows()] == ["sent"] * 5)
        await until(lambda: {one.step for one in shop.people()} == {"wait 1d"})

    trouble.__enter__()
    worked(shop, scenario)
    assert "the database is in trouble" in caplog.text
    assert len(shop.providers.accepted) == 5
    assert "@" not in caplog.text
    assert "xxx" not in caplog.text


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_connection_lost_in_mid_chunk(shop: House, caplog: pytest.LogCaptureFixture) -> None:
    apply = Engine._apply

    def losing(self: Engine, tx: Tx, *given: Any) -> None:
        apply(self, tx, *given)
        tx.conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    recovers(shop, caplog, patch.object(Engine, "_apply", losing), "AdminShutdown")


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("where", "state"),
    [("claiming", "planned"), ("recording", "sending")],
)
def test_a_connection_lost_at_the_hand_over(
    shop: House, caplog: pytest.LogCaptureFixture, where: str, state: str
) -> None:
    """Before the post the messages are as they were; after it what came of it is kept in mind."""
    function = {"claiming": "claim", "recording": "record"}[where]
    real = getattr(channels.dispatch, function)

    def losing(tx: Tx, *given: Any, **named: Any) -> Any:
        done = real(tx, *given, **named)
        tx.conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return done

    async def scenario() -> None:
        with patch.object(channels.dispatch, function, losing):
            await until(lambda: "AdminShutdown" in caplog.text)
            await until(lambda: len(shop.rows()) == 5)
            assert {row.state for row in shop.rows()} == {state}
        await until(lambda: [row.state for row in shop.rows()] == ["sent"] * 5)

    worked(shop, scenario)
    assert len(shop.providers.requests) == 5
    assert {row.attempts for row in shop.rows()} == {1}


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_a_locked_file(shop: House, caplog: pytest.LogCaptureFixture) -> None:
    engine = shop.db.engine
    engine.dispose()

    @event.listens_for(engine, "connect")
    def impatient(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout = 20")

    @contextmanager
    def locked() -> Iterator[None]:
        file = engine.url.database
        assert file is not None
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    recovers(shop, caplog, locked(), "database is locked")


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_a_full_disk(shop: House, caplog: pytest.LogCaptureFixture) -> None:
    pages = [1]  # less than there are: no more than there are

    @event.listens_for(shop.db.engine, "checkout")
    def small(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages[0]}")

    @contextmanager
    def full() -> Iterator[None]:
        yield
        pages[0] = 2**30

    recovers(shop, caplog, full(), "database or disk is full")


TROUBLE = OperationalError("", {}, sqlite3.OperationalError("disk I/O error"))


def test_what_the_provider_said_is_recorded_when_the_database_is_well_again(
    shop: House, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with patch("channels.dispatch.record", side_effect=TROUBLE):
            await until(lambda: "outcomes can't be recorded yet" in caplog.text)
            assert {row.state for row in shop.rows()} == {"sending"}
        await until(lambda: {row.state for row in shop.rows()} == {"sent"})

    worked(shop, scenario)
    assert len(shop.providers.requests) == 5
    assert "5 outcomes can't be recorded yet: OperationalError: disk I/O error" in caplog.text


def test_told_to_stop_in_trouble_a_worker_ends_and_nothing_goes_twice(
    shop: House, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        await until(lambda: "outcomes can't be recorded yet" in caplog.text)

    with patch("channels.dispatch.record", side_effect=TROUBLE):
        worked(shop, scenario)
    assert {row.state for row in shop.rows()} == {"sending"}
    shop.db.now = MONDAY + CLAIM_LASTS + LOST_AFTER + 1
    with shop.db.transaction() as tx:
        assert settle_lost(tx) == 5
    shop.later("2d")
    assert {row.state for row in shop.rows()} == {"unknown"}
    assert len(shop.providers.requests) == 5


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_rows_that_a_hanging_process_holds_come_free_by_themselves(db: Database) -> None:
    with db.transaction(write=False) as tx:
        held = tx.conn.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
    assert held == "1min"

    def hang() -> None:
        with db.transaction() as tx:
            tx.conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10ms'"))
            time.sleep(0.3)
            tx.conn.execute(select(1))

    with pytest.raises(DBAPIError, match=r"closed the connection|idle-in-transaction") as caught:
        hang()
    assert of_the_database(caught.value)


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_value_that_is_too_large_is_no_trouble_of_the_database(db: Database) -> None:
    """It is the one row's fault: the others need not wait until the database is well."""
    large = Random(1).randbytes(5000).hex()

    def write() -> None:
        with db.transaction() as tx:
            sign_in(tx, large)

    with pytest.raises(DBAPIError, match="index row") as caught:
        write()
    assert not of_the_database(caught.value)


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_what_a_hanging_claim_holds_is_passed_over(house: House) -> None:
    """However many it holds, and though they are the earliest."""
    entered(house, SMS("hello"), people=25)
    outbox = CatalogJourneys(house.segue.catalog)

    def claimed(tx: Tx) -> Claimed:
        return claim(tx, house.segue.engine.planner, outbox, claimed_by="w", limits={"sms": 10})

    with house.db.transaction(keep=False) as hanging:
        first = {one.message_id for one in claimed(hanging).claims}
        with house.db.transaction() as tx:
            second = claimed(tx)
        with house.db.transaction() as tx:
            third = claimed(tx)
    others = {one.message_id for one in (*second.claims, *third.claims)}
    assert (len(first), second.more, third.more, len(others)) == (10, True, False, 15)
    assert not first & others


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_a_claim_waits_for_nobody_who_is_about_to_cancel(house: House) -> None:
    """So that no order of theirs can be a deadlock."""
    people = entered(house, SMS("hello"), people=3)
    cancelling = update(messages).where(messages.c.profile_id == people[0])
    with house.db.transaction(keep=False) as other:
        other.conn.execute(cancelling.values(state="cancelled"))
        with house.db.transaction() as tx:
            tx.conn.execute(text("SET LOCAL lock_timeout = '2s'"))
            outbox = CatalogJourneys(house.segue.catalog)
            claimed = claim(
                tx, house.segue.engine.planner, outbox, claimed_by="w", limits={"sms": 10}
            )
    assert {one.profile_id for one in claimed.claims} == set(people[1:])


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_another_worker_takes_over_what_a_hanging_one_held(house: House) -> None:
    """It hangs with its work done and not committed; what it did is gone, and is done again."""
    house.open(sending(Email("hello")))
    people = [house.customer() for _ in range(3)]
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), people, None)
    hangs, taken_over = threading.Event(), threading.Event()
    apply = Engine._apply

    def hang(self: Engine, tx: Tx, *given: Any) -> None:
        apply(self, tx, *given)
        if self is hanging:
            tx.conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = '500ms'"))
            hangs.set()
            taken_over.wait(60)

    def work() -> None:
        with pytest.raises(DBAPIError):
            hanging.advance_due()

    other = Database(house.db.url, now=MONDAY)
    engine = house.segue.engine
    hanging = Engine(other, house.segue.catalog, engine.planner)
    with patch.object(Engine, "_apply", hang):
        thread = threading.Thread(target=work)
        thread.start()
        assert hangs.wait(60)
        moved = 0
        deadline = time.monotonic() + 60
        while not moved and time.monotonic() < deadline:
            moved = engine.advance_due().total()
        taken_over.set()
        thread.join()
    other.close()
    assert moved == 3
    assert [row.state for row in house.rows()] == ["planned"] * 3
    assert {person.phase for person in house.people()} == {1}


@pytest.mark.parametrize("minutes", [-7, 7, 90])
def test_a_worker_whose_clock_is_wrong_does_no_harm(
    house: House, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """The time is the database's: nobody goes on too early, nothing counts at the wrong time."""
    right = time.time
    monkeypatch.setattr("time.time", lambda: right() + minutes * MINUTE)
    waiting_first = journey("j", entry=OnLaunch(), topic="news", steps=[Wait("1h"), Wait("1d")])
    house.open(waiting_first, sending(Email("hello"), name="k"))
    ann = house.customer()
    house.db.now = None
    before = int(right())
    with house.db.transaction() as tx:
        for name in "jk":
            enter_people(tx, house.segue.catalog.journey(name), [ann], None)
    while house.segue.engine.advance_due():
        pass
    seen: list[Any] = []
    house.providers.meanwhile = lambda: seen.extend(house.rows())
    house.run()
    waiting, done = house.people()
    assert waiting.step == "wait 1h"
    assert before + HOUR <= waiting.due_at <= int(right()) + HOUR
    assert done.end_reason == "completed"
    [claimed] = seen
    assert before <= claimed.send_at <= int(right())
    assert claimed.not_after == claimed.send_at + CLAIM_LASTS


def test_a_version_that_came_after_the_worker_had_started_is_learnt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process enters somebody on it, and nothing else ever happens to that person."""
    monkeypatch.setattr("flows.worker._HOUSEKEEPING", 0.05)
    steps = [Wait("1h", name="w"), Update("u", seen=True)]
    older = house.open(
        journey("j", entry=OnLaunch(), topic="news", steps=steps[:1]), receiver_port=0
    )
    ann = house.customer()

    async def scenario() -> None:
        await until(lambda: signed_in(house))
        house.open(journey("j", entry=OnLaunch(), topic="news", steps=steps), receiver_port=0)
        with house.db.transaction() as tx:
            enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
        house.db.now = MONDAY + HOUR
        await until(lambda: house.attributes(ann) == {"seen": True})

    house.segue = older
    worked(house, scenario)


def signed_in(house: House) -> bool:
    with house.db.transaction(write=False) as tx:
        return last_seen(tx) == house.now
