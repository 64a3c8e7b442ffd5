"""The limits on connections, tested with real sockets and small limits."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Network
from typing import Any

import httpx
import orjson
import pytest

from flows.http import serving
from flows.http.limits.clients import client_of
from flows.http.limits.connections import Connections, Limits
from flows.http.limits.guessing import Guesses
from profiles.calls.record_calls import take_calls
from tests.support.http.receiving import WRITE_KEY, Receiving, receiving, track
from tests.support.patience import PATIENCE
from tests.support.shop import House

# So long that nothing ends by it within a test.
NEVER = 100_000.0
LIMITS = Limits(connections=20, share=5, head_within=NEVER, body_within=NEVER, taken_within=NEVER)
HERE = IPv4Network("127.0.0.1")
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
BODY = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"


@pytest.fixture
def house(sqlite_house: House) -> House:
    sqlite_house.open()
    return sqlite_house


@contextmanager
def within(house: House, *, proxied: bool = True, **limits: Any) -> Iterator[Receiving]:
    """A receiver with small limits, which counts connections from 127.0.0.1 by no client."""
    proxies = (HERE,) if proxied else ()
    with receiving(house.segue, LIMITS._replace(**limits), proxies=proxies) as receiver:
        yield receiver


def address(receiver: Receiving) -> tuple[str, int]:
    url = httpx.URL(receiver.url)
    assert url.port is not None
    return url.host, url.port


def connect(receiver: Receiving, source: str = "127.0.0.1") -> socket.socket:
    port = httpx.URL(receiver.url).port
    assert port is not None
    return socket.create_connection(
        ("127.0.0.1", port), timeout=PATIENCE, source_address=(source, 0)
    )


def rest(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    got = b""
    try:
        while some := sock.recv(65536):
            got += some
    except ConnectionResetError:
        pass
    return got


def refusal(sock: socket.socket) -> tuple[int, str, str | None]:
    """The status, code and field of the answer, after which the connection is closed."""
    head, _, body = rest(sock).partition(b"\r\n\r\n")
    said = orjson.loads(body)
    return int(head.split()[1]), said["code"], said.get("field")


def until(what: Callable[[], object]) -> None:
    """Wait for something that happens in the server's thread."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


# How many -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"GET", HEAD, BODY, BODY + b"{"])
def test_incomplete_requests_do_not_block_others(house: House, sent: bytes) -> None:
    with within(house) as receiver, ExitStack() as held:
        for _ in range(100):
            held.enter_context(connect(receiver)).sendall(sent)
        for _ in range(3):
            assert httpx.get(f"{receiver.url}/healthz", timeout=PATIENCE).status_code == 200
        assert receiver.connections.count <= LIMITS.connections


def test_a_client_has_a_limited_share_of_connections(house: House) -> None:
    with within(house) as receiver, ExitStack() as held:
        other = held.enter_context(connect(receiver))
        other.sendall(HEAD)
        for _ in range(50):
            held.enter_context(connect(receiver, "127.0.0.2")).sendall(HEAD)
        last = held.enter_context(connect(receiver, "127.0.0.2"))
        last.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert b"200 OK" in rest(last)
        assert receiver.connections.count <= 1 + LIMITS.share
        # Whoever was there before is not pushed out by another client.
        other.sendall(b"Connection: close\r\n\r\n")
        assert b"200 OK" in rest(other)


def test_proxies_are_exempt_from_the_share(house: House) -> None:
    with within(house) as receiver, ExitStack() as held:
        for _ in range(2 * LIMITS.share):
            held.enter_context(connect(receiver)).sendall(HEAD)
        until(lambda: receiver.connections.count == 2 * LIMITS.share)


@pytest.fixture
def stuck(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Calls are not written before the end."""
    released = threading.Event()

    def take(*given: Any) -> Any:
        released.wait()
        return take_calls(*given)

    monkeypatch.setattr("flows.http.ingest.segment.take_calls", take)
    yield
    released.set()


CALL = orjson.dumps(track())
WHOLE = b"".join(
    [
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic ",
        httpx.BasicAuth(WRITE_KEY, "")._auth_header.split()[1].encode(),
        b"\r\nContent-Length: %d\r\n\r\n" % len(CALL),
        CALL,
    ]
)


@pytest.mark.usefixtures("stuck")
def test_a_request_in_progress_is_not_closed_to_make_room(house: House) -> None:
    with within(house) as receiver, ExitStack() as held:

        def fill(number: int, source: str) -> None:
            for _ in range(number):
                held.enter_context(connect(receiver, source)).sendall(WHOLE)

        fill(LIMITS.share, "127.0.0.2")
        until(lambda: receiver.connections.working == LIMITS.share)
        more = held.enter_context(connect(receiver, "127.0.0.2"))
        assert refusal(more) == (429, "too_many", None)
        fill(LIMITS.connections - LIMITS.share, "127.0.0.1")
        until(lambda: receiver.connections.working == LIMITS.connections)
        more = held.enter_context(connect(receiver))
        assert refusal(more) == (503, "too_many", None)


def test_a_client_is_an_address_or_a_network_of_ipv6() -> None:
    assert client_of("203.0.113.7") == client_of("::ffff:203.0.113.7") != client_of("203.0.113.8")
    assert client_of("2001:db8:1:2::7") == client_of("2001:db8:1:2:ffff::")
    assert client_of("2001:db8:1:2::7") != client_of("2001:db8:1:3::7")
    assert client_of("fe80::1%eth0") == client_of("fe80::2%eth1")
    assert (client_of(""), client_of("nonsense")) == ("", "nonsense")


@pytest.mark.parametrize(
    ("files", "connections"), [(256, 128), (1024, 512), (65_536, 512), (-1, 512)]
)
def test_half_of_the_file_descriptors_stay_free(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    """-1 is no limit."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert serving.limits_here() == Limits()._replace(connections=connections)


# How slow -----------------------------------------------------------------------------------------


def test_a_head_must_come_in_time(house: House) -> None:
    with within(house, head_within=0.3) as receiver:
        for sent in (b"G", HEAD):
            with connect(receiver) as sock:
                sock.sendall(sent)
                assert refusal(sock) == (408, "too_slow", "headers")


def test_a_body_must_come_in_time(house: House) -> None:
    signed = b"X-Twilio-Signature: aaaaaaaaaaaaaaaaaaaaaaaaaaa=\r\n"
    hook = b"POST /hooks/twilio/inbound HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
    with within(house, body_within=0.3) as receiver:
        with connect(receiver) as sock:
            sock.sendall(hook + signed + b"\r\nBody=")
            assert refusal(sock) == (408, "too_slow", "body")
        # One that was refused before its body came is closed all the same.
        with connect(receiver) as sock:
            sock.sendall(hook + b"\r\nBody=")
            assert rest(sock).startswith(b"HTTP/1.1 403")
        until(lambda: receiver.connections.count == 0)


@pytest.mark.parametrize(
    "start", [b"", b"\r\n", HEAD + b"X: ", BODY], ids=["idle", "lines", "head", "body"]
)
def test_a_trickle_of_bytes_does_not_extend_the_time_limit(house: House, start: bytes) -> None:
    with within(house, head_within=0.5, body_within=0.5) as receiver, connect(receiver) as sock:
        sock.settimeout(0.01)
        end = time.monotonic() + PATIENCE
        sock.sendall(start)
        with suppress(ConnectionError):
            while time.monotonic() < end:
                with suppress(TimeoutError):
                    if not sock.recv(65536):
                        return
                sock.sendall(start[:1])
        assert time.monotonic() < end


def test_an_idle_connection_is_closed(house: House) -> None:
    with within(house, head_within=0.3) as receiver, connect(receiver) as sock:
        assert rest(sock) == b""


def test_a_client_that_does_not_read_the_response_is_closed(house: House) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * LIMITS.ahead
    with within(house, taken_within=0.3) as receiver, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(address(receiver))
        for _ in range(100):  # 100 MB of answers, which no kernel keeps
            try:
                sock.sendall(ask)
            except OSError:
                break
            until(lambda: receiver.connections.working == 0)
            if not receiver.connections.count:
                break
        until(lambda: receiver.connections.count == 0)


def test_a_stalled_event_loop_closes_no_connection() -> None:
    """The bytes of those who seem slow may be there, and not read yet."""
    connections = Connections(LIMITS, ())
    connections.tick(1000.0)
    connections.tick(1000.1)
    connections.tick(2000.0)
    assert connections.clock == pytest.approx(1.1)


def test_time_spent_in_the_server_does_not_count_as_slowness(house: House) -> None:
    """While nothing is read from a connection its deadline moves on."""
    guesses = Guesses(wait=NEVER)
    limits = LIMITS._replace(body_within=0.3)
    with receiving(house.segue, limits, guesses=guesses) as receiver, connect(receiver) as sock:
        sock.sendall(b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d3Jvbmc6\r\n")
        sock.sendall(b"Content-Length: 1000000\r\n\r\n" + b"x" * 200_000)
        until(lambda: guesses.waiting == 1)
        since = receiver.connections.clock
        until(lambda: receiver.connections.clock > since + 1)
        assert receiver.connections.count == 1


# How much -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_head", "status", "field"),
    [
        (b"GET /u/" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "URL"),
        (b"GET /healthz?" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "URL"),
        (b"GET /" + b"x" * 400_000, 414, "URL"),
        (HEAD + b"".join(b"X-%d: x\r\n" % n for n in range(100)) + b"\r\n", 431, "headers"),
        (HEAD + b"".join(b"X-%d: x\r\n" % n for n in range(90_000)), 431, "headers"),
        (HEAD + b"X: " + b"x" * 33_000 + b"\r\n\r\n", 431, "headers"),
        (HEAD + b"X: " + b"x" * 400_000, 431, "headers"),
        (HEAD + b"x" * 400_000, 431, "headers"),
        (HEAD + (b"X: " + b"x" * 9_000 + b"\r\n") * 4 + b"\r\n", 431, "headers"),
        (b"nonsense\r\n\r\n", 400, None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, None),
    ],
    ids=lambda given: f"{given[:20]!r} of {len(given)}" if isinstance(given, bytes) else None,
)
def test_a_head_has_limits(
    house: House, request_head: bytes, status: int, field: str | None
) -> None:
    with within(house) as receiver, connect(receiver) as sock:
        code = "invalid" if status == 400 else "too_large"
        for start in range(0, len(request_head), 10_000):
            try:
                sock.sendall(request_head[start : start + 10_000])
            except ConnectionError:
                return  # closed before all was sent, so the answer may be lost
        got = rest(sock)
        if got or len(request_head) < 50_000:
            assert got.startswith(b"HTTP/1.1 %d " % status)
            said = orjson.loads(got.partition(b"\r\n\r\n")[2])
            assert (said["success"], said["code"], said.get("field")) == (False, code, field)


def test_the_largest_head_allowed_is_taken(house: House) -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 300) for n in range(90))
    with within(house) as receiver, connect(receiver) as sock:
        url = b"/healthz?" + b"x" * 3_000
        sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % url)
        sock.sendall(fields + b"\r\n")
        assert rest(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "without_end",
    [b"1;" + b"x" * 100_000, b"0\r\nX: " + b"x" * 100_000, b"0\r\n" + b"X: x\r\n" * 20_000],
    ids=["a chunk's extension", "a trailer", "many trailers"],
)
def test_the_framing_of_a_body_has_limits(house: House, without_end: bytes) -> None:
    head = b"POST /u/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with within(house) as receiver, connect(receiver) as sock:
        with suppress(ConnectionError):
            sock.sendall(head + without_end)
        until(lambda: receiver.connections.count == 0)


def test_requests_ahead_of_their_answers_have_a_limit(house: House) -> None:
    with within(house) as receiver, connect(receiver) as sock:
        sock.sendall(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000)
        assert rest(sock).count(b"HTTP/1.1 200") <= 1 + LIMITS.ahead


def test_requests_on_one_connection_are_answered_in_order(house: House) -> None:
    with within(house) as receiver, connect(receiver) as sock:
        paths = [b"/healthz", b"/u/x", b"/docs", b"/healthz", b"/nothing"]
        sock.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths))
        sock.sendall(HEAD + b"Connection: close\r\n\r\n")
        got = rest(sock)
        statuses = [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [200, 404, 200, 200, 404, 200]


def test_a_websocket_is_not_opened(house: House) -> None:
    with within(house) as receiver, connect(receiver) as sock:
        upgrade = b"Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13"
        sock.sendall(HEAD + upgrade + b"\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n")
        assert rest(sock).startswith(b"HTTP/1.1 200")
        assert receiver.connections.count == 0


# Wrong keys ---------------------------------------------------------------------------------------


def test_wrong_keys_are_delayed_and_right_ones_are_not(house: House) -> None:
    guesses = Guesses(wait=NEVER, at_once=3, share=2)
    proxies = (HERE,)
    with (
        receiving(house.segue, LIMITS, proxies=proxies, guesses=guesses) as receiver,
        ExitStack() as held,
    ):

        def guess(client: str) -> socket.socket:
            sock = held.enter_context(connect(receiver))
            sock.sendall(
                b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d3Jvbmc6\r\n"
                b"X-Forwarded-For: %s\r\nContent-Length: 2\r\n\r\n{}" % client.encode()
            )
            return sock

        def refused(client: str) -> bool:
            got = guess(client).recv(65536)
            assert b"retry-after: 1" in got.lower()
            return got.startswith(b"HTTP/1.1 429")

        guess("203.0.113.7"), guess("203.0.113.7")
        until(lambda: guesses.waiting == 2)
        assert refused("203.0.113.7")
        guess("203.0.113.8")
        until(lambda: guesses.waiting == 3)
        assert refused("203.0.113.9")
        for client in ("203.0.113.7", "203.0.113.9"):
            headers = {"X-Forwarded-For": client}
            assert receiver.post("/v1/track", json=track(), headers=headers).status_code == 200


def test_only_trusted_proxies_forward_addresses(house: House) -> None:
    guesses = Guesses(wait=NEVER, share=1)
    with receiving(house.segue, LIMITS, guesses=guesses) as receiver, ExitStack() as held:
        first = held.enter_context(connect(receiver))
        wrong = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nAuthorization: Basic d3Jvbmc6\r\n"
        first.sendall(wrong + b"X-Forwarded-For: 203.0.113.7\r\nContent-Length: 0\r\n\r\n")
        until(lambda: guesses.waiting == 1)
        headers = {"X-Forwarded-For": "203.0.113.8"}
        answer = receiver.post("/v1/track", json={}, auth=("wrong", ""), headers=headers)
        assert answer.status_code == 429


def test_a_closed_connection_leaves_no_state(house: House) -> None:
    guesses = Guesses(wait=0)
    with receiving(house.segue, guesses=guesses) as receiver:
        for _ in range(20):
            answer = receiver.post("/v1/track", json={}, auth=("wrong", ""))
            assert answer.status_code == 401
        # Who names no key has guessed nothing.
        assert receiver.client.post("/v1/track", json={}).status_code == 401
    assert (guesses.waiting, guesses._waiting) == (0, {})
