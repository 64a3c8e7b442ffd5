"""The transport: which errors leave a request unknown, and the reuse of connections and tokens."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import google.auth.exceptions
import httpx
import pytest
import respx
from google.auth.credentials import Credentials

from channels.kinds.email import EmailContent
from channels.providers.base import ConnectedProvider
from channels.providers.fcm import FCM, TOKEN_WITHIN, GoogleToken
from channels.providers.sending import SendOutcome
from channels.providers.transport import Transport
from config.timing import TIMING, Timing
from tests.support.providers.provider_samples import (
    PROVIDERS,
    SANDBOX,
    answered,
    connected,
    may_leave,
    outgoing,
    post,
)


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("error", "result"),
    [
        (httpx.ConnectError, "retry"),
        (httpx.ConnectTimeout, "retry"),
        (httpx.PoolTimeout, "retry"),
        (httpx.ProxyError, "retry"),
        (httpx.ReadTimeout, "unknown"),
        (httpx.WriteTimeout, "unknown"),
        (httpx.ReadError, "unknown"),
        (httpx.WriteError, "unknown"),
        (httpx.CloseError, "unknown"),
        (httpx.RemoteProtocolError, "unknown"),
        (httpx.LocalProtocolError, "unknown"),
        (httpx.DecodingError, "unknown"),
        (httpx.UnsupportedProtocol, "stopped"),
    ],
)
def test_errors_before_and_after_the_request_left(
    name: str, error: type[Exception], result: str
) -> None:
    outcome = answered(name, error)
    assert outcome.result == result
    assert outcome.reason is not None
    assert outcome.reason.startswith(error.__name__)


@asynccontextmanager
async def server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]


async def hand_over(url: str, number: int = 1, timing: Timing = TIMING) -> list[SendOutcome]:
    twilio = connected("twilio", url=url)
    async with Transport(SANDBOX, timing) as transport:
        found = []
        for i in range(number):
            found += await transport.post(twilio, [outgoing("sms", i)], may_leave)
        return found


def test_refused_connections_and_handshakes_are_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)

    async def run() -> None:
        [outcome] = await hand_over(f"http://127.0.0.1:{port}")
        assert outcome.result == "retry"
        async with server(hang_up) as plain:
            [outcome] = await hand_over(f"https://127.0.0.1:{plain}")
            assert outcome.result == "retry"
        [outcome] = await hand_over("127.0.0.1:8025")
        assert outcome.result == "stopped"
        [outcome] = await hand_over("http://127.0.0.1:port")
        assert outcome.result == "stopped"

    asyncio.run(run())


def test_a_connection_dropped_after_the_request_leaves_its_fate_unknown() -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"no http at all\r\n\r\n")
        await writer.drain()

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{")
        await writer.drain()

    async def run() -> None:
        for talk in (drop, garble, break_off):
            async with server(talk) as port:
                [outcome] = await hand_over(f"http://127.0.0.1:{port}")
                assert outcome.result == "unknown"

    asyncio.run(run())


def test_a_response_that_trickles_times_out() -> None:
    """Each byte comes in time, and the whole never does."""
    hung_up = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 9999\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        hung_up.set()

    async def run() -> None:
        async with server(trickle) as port:
            url = f"http://127.0.0.1:{port}"
            [outcome] = await hand_over(url, timing=Timing(post_within=2.0))
            await hung_up.wait()
        assert outcome.result == "unknown"
        assert outcome.reason == "ReadTimeout: not done within 2.0 s"

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_connection_is_used_again() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
            assert b"user-agent: segue" in head.lower()
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()

    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await talk(reader, writer)

    async def run() -> None:
        async with server(patient) as port:
            found = await hand_over(f"http://127.0.0.1:{port}", 5)
        assert [one.result for one in found] == ["sent"] * 5

    asyncio.run(run())
    assert connections == 1


@pytest.mark.parametrize(
    ("providers", "exempt", "result"),
    [("live", "", "sent"), ("live", "shop.invalid", "retry"), ("sandbox", "", "retry")],
)
def test_the_proxy_of_the_environment_is_for_real_providers(
    monkeypatch: pytest.MonkeyPatch, providers: str, exempt: str, result: str
) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async def run() -> SendOutcome:
        async with server(proxy) as port:
            monkeypatch.setenv("http_proxy", f"127.0.0.1:{port}")
            monkeypatch.setenv("no_proxy", exempt)
            async with Transport(SANDBOX.model_copy(update={"providers": providers})) as transport:
                twilio = connected("twilio", url="http://shop.invalid")
                [outcome] = await transport.post(twilio, [outgoing("sms", 1)], may_leave)
                return outcome

    assert asyncio.run(run()).result == result
    assert bool(asked) == (result == "sent")
    assert all(line.startswith(b"POST http://shop.invalid/2010") for line in asked)


def test_a_batch_that_is_too_large_is_sent_in_parts() -> None:
    sendgrid = connected("sendgrid", template_id="d-1")
    large = EmailContent("s", "x" * 12_000_000, "t")
    batch = [outgoing("email", i, to=f"p{i}@example.com", content=large) for i in range(5)]
    twice = [outgoing("email", i, to=to) for i, to in enumerate(["a@x.example", "A@x.example"])]
    for messages, requests in ((batch, 3), (twice, 2)):
        with respx.mock() as mock:
            route = mock.post(host="127.0.0.1").respond(202)
            found = post(sendgrid, messages)
        assert [one.message_id for one in found] == [one.message_id for one in messages]
        assert {one.result for one in found} == {"sent"}
        assert route.call_count == requests
        assert all(len(call.request.content) < 30_000_000 for call in route.calls)


class Token(Credentials):
    """Credentials that count how often they are fetched, or fail to be."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fetched = 0
        self.error = error

    def refresh(self, request: object) -> None:
        self.fetched += 1
        if self.error:
            raise self.error
        self.token = f"token-{self.fetched}"


def push_with(
    token: Token, number: int = 1, within: float = TOKEN_WITHIN
) -> tuple[list[SendOutcome], list[str]]:
    fcm = ConnectedProvider(
        name="fcm",
        channel="push",
        sender=FCM("https://fcm.example", "p", auth=GoogleToken(token, within)),
    )

    async def run() -> list[SendOutcome]:
        async with Transport(SANDBOX) as transport:
            batches = [[outgoing("push", i)] for i in range(number)]
            posts = (transport.post(fcm, batch, may_leave) for batch in batches)
            found = await asyncio.gather(*posts)
            return [outcome for [outcome] in found]

    with respx.mock(assert_all_called=False) as mock:
        route = mock.post(host="fcm.example").respond(200, json={"name": "n"})
        found = asyncio.run(run())
    return found, [call.request.headers["authorization"] for call in route.calls]


def test_the_token_is_fetched_once_for_many() -> None:
    token = Token()
    found, used = push_with(token, 20)
    assert {one.result for one in found} == {"sent"}
    assert set(used) == {"Bearer token-1"}
    assert token.fetched == 1


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (google.auth.exceptions.TransportError("no route"), "retry"),  # type: ignore[no-untyped-call]
        (google.auth.exceptions.RefreshError("busy", retryable=True), "retry"),  # type: ignore[no-untyped-call]
        (google.auth.exceptions.RefreshError("invalid_grant"), "stopped"),  # type: ignore[no-untyped-call]
    ],
)
def test_without_an_access_token_nothing_is_posted(error: Exception, result: str) -> None:
    [outcome], used = push_with(Token(error))
    assert (outcome.result, used) == (result, [])


@pytest.mark.parametrize("in_all", [50, 0.1], ids=["it may not go any more", "it takes too long"])
def test_an_access_token_that_arrives_after_the_claim_ended(in_all: float) -> None:
    """Whether something may leave is asked when all is ready."""
    there = False
    said: list[bytes] = []

    async def slow() -> str:
        nonlocal there
        await asyncio.sleep(0.3)
        there = True
        return "Bearer token"

    async def not_any_more() -> bool:
        return not there

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.read(100))

    async def run() -> list[SendOutcome]:
        timing = Timing(post_within=in_all)
        async with server(listen) as port, Transport(SANDBOX, timing) as transport:
            sender = FCM(f"http://127.0.0.1:{port}", "p", auth=slow)
            fcm = ConnectedProvider(name="fcm", channel="push", sender=sender)
            return await transport.post(fcm, [outgoing("push")], not_any_more)

    assert [outcome.result for outcome in asyncio.run(run())] == ["retry"] * (in_all < 1)
    assert b"".join(said) == b""


def test_a_claim_is_checked_again_after_connecting() -> None:
    """Of two concurrent posts, one takes the idle connection and the other opens another."""
    opened = 0
    asked: list[int] = []

    async def slowly() -> bool:
        asked.append(opened)
        await asyncio.sleep(0.05)
        return True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                [length] = re.findall(rb"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(length))
                writer.write(b'HTTP/1.1 201 Created\r\nContent-Length: 13\r\n\r\n{"sid": "SM"}')

    async def run() -> list[str]:
        async with server(serve) as port, Transport(SANDBOX) as transport:
            twilio = connected("twilio", url=f"http://127.0.0.1:{port}")
            found = await transport.post(twilio, [outgoing("sms", 0)], may_leave)
            posts = [transport.post(twilio, [outgoing("sms", i)], slowly) for i in (1, 2)]
            for some in await asyncio.gather(*posts):
                found += some
            return [outcome.result for outcome in found]

    assert asyncio.run(run()) == ["sent"] * 3
    assert asked == [1, 1, 2]


def test_a_token_request_that_hangs_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread waits for a token, and threads are few."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/token"

        class Account(Token):
            def refresh(self, request: Any) -> None:
                request(uri, method="POST")

        [outcome], used = push_with(Account(), within=0.2)
    assert (outcome.result, used) == ("retry", [])
    assert str(outcome.reason).startswith("ConnectError: can't fetch a token from Google")
