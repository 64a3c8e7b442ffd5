"""Call steps: the request, retries, idempotency, and refused hosts."""

import hmac
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import orjson
import pytest

from config.access.signatures import SIGNATURE, TIMESTAMP
from config.clock.times import HOUR
from journeys.dsl import Call, OnEvent, Update, Wait, did
from journeys.engine.advance import Engine
from journeys.engine.call_step import post_all
from journeys.engine.entry import enter_people
from journeys.operations.migration import migrate_people
from tests.support.shop import MONDAY, House, advance, described


class Endpoint:
    """An endpoint with configured responses, which keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[int | BaseException] = []
        self.got: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, BaseException):
            raise answer
        return httpx.Response(answer)


@pytest.fixture
def crm(house: House, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    monkeypatch.setenv("SEGUE_CALL_HOSTS", '["crm.shop.test"]')
    crm = Endpoint()
    house.providers.hosts["crm.shop.test"] = crm
    return crm


CALL = Call("tell", "https://crm.shop.test/came")


def test_a_call_posts_the_person(house: House, crm: Endpoint) -> None:
    house.open(described(CALL, entry=OnEvent("signed_up")))
    ann = house.customer("ann")
    house.did(ann, "signed_up", plan="gold")
    house.run()
    [request] = crm.got
    [enrollment] = house.people()
    assert orjson.loads(request.content) == {
        "journey": "j",
        "step": "tell",
        "enrollment_id": enrollment.id,
        "user_id": "ann",
        "event": {"plan": "gold"},
    }
    assert request.headers["idempotency-key"] == f"{enrollment.id}:tell"
    assert enrollment.end_reason == "completed"


def test_a_call_is_signed(house: House, crm: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the key for calls, over timestamp, path with query, and body as posted."""
    monkeypatch.setenv("SEGUE_CALL_SECRET", "a secret of the shop's own")
    house.open(described(Call("tell", "https://crm.shop.test/came/%C3%A9?shop=1&from=segue")))
    house.customer("ann")
    house.launch("j")
    [request] = crm.got
    timestamp, signature = (request.headers[name] for name in (TIMESTAMP, SIGNATURE))
    assert timestamp == str(MONDAY)
    text = f"{timestamp}./came/%C3%A9?shop=1&from=segue.".encode() + request.content
    expected = hmac.new(b"a secret of the shop's own", text, "sha256").hexdigest()
    assert signature == expected


def test_the_receiver_in_the_docs_takes_only_our_calls(house: House, crm: Endpoint) -> None:
    """The example of docs/journeys/index.md, run on a call as it is posted."""
    docs = Path(__file__).parents[3] / "docs" / "journeys" / "index.md"
    [example] = re.findall(r"```python\n(import hmac\n.*?)```", docs.read_text(), re.DOTALL)
    receiver: dict[str, Any] = {}
    exec(example, receiver)
    house.open(described(Call("tell", "https://crm.shop.test/came?shop=1")))
    house.customer("ann")
    house.launch("j")
    [request] = crm.got
    path, secret = request.url.raw_path.decode(), b"call-secret-for-the-sandbox-only"
    is_from_segue = receiver["is_from_segue"]

    def taken(
        *, headers: Any = request.headers, path: str = path, body: bytes = request.content,
        secret: bytes = secret, now: int = MONDAY,
    ) -> bool:  # fmt: skip
        return bool(is_from_segue(secret, headers, path, body, now))

    assert taken()
    assert taken(now=MONDAY + 299)
    assert not taken(now=MONDAY + 301)
    assert not taken(path="/came?shop=2")
    assert not taken(body=request.content + b" ")
    assert not taken(secret=b"another secret, also long")
    assert not taken(headers={})
    assert not taken(headers={**request.headers, TIMESTAMP: "soon"})
    assert not taken(headers={**request.headers, TIMESTAMP: str(MONDAY + 1)})


def test_a_call_is_tried_again_later(house: House, crm: Endpoint) -> None:
    crm.answers = [503, httpx.ConnectError("no"), 200]
    house.open(described(CALL))
    house.customer()
    house.launch("j")
    house.later("1d")
    [person] = house.people()
    # after a minute, then after two
    assert (person.ended_at - MONDAY, person.end_reason) == (180, "completed")
    assert len({request.headers["idempotency-key"] for request in crm.got}) == 1


@pytest.mark.parametrize(
    ("on_error", "ended", "passed"),
    [
        ("continue", "completed", [("tell", "failed"), ("u", "next")]),
        (
            "exit",
            "exit: call failed, status 500",
            [("tell", "exit: call failed, status 500")],
        ),
    ],
)
def test_a_failed_call_continues_at_its_on_error(
    house: House, crm: Endpoint, on_error: str, ended: str, passed: list[tuple[str, str]]
) -> None:
    crm.answers = [500, 500]
    call = Call("tell", "https://crm.shop.test/", tries=2, on_error=on_error)
    house.open(described(call, Update("u", x=1)))
    house.customer()
    house.launch("j")
    house.later("1d")
    [person] = house.people()
    assert person.end_reason == ended
    assert house.passed() == passed
    assert len(crm.got) == 2


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[2002:7f00:1::]", "[64:ff9b::7f00:1]", "224.0.0.1"),
    ],
)
def test_our_own_network_is_not_called(house: House, crm: Endpoint, host: str) -> None:
    house.providers.hosts[host.strip("[]")] = crm
    house.open(described(Call("tell", f"http://{host}/", tries=1), Update("u", x=1)))
    ann = house.customer()
    house.launch("j")
    assert crm.got == []
    assert house.providers.requests == []
    assert house.passed(ann) == [("tell", "failed"), ("u", "next")]


def test_a_host_that_resolves_to_a_private_address_later_is_not_called(
    sqlite_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = sqlite_house
    with socket.create_server(("127.0.0.1", 0)) as ours:
        ours.settimeout(30)
        host, port = ours.getsockname()
        call = Call("tell", f"http://shop.example:{port}/", tries=1)
        house.open(described(call, Update("u", x=1)))
        ann = house.customer()
        places = [("93.184.215.14", port), (host, port)]  # as it is looked at, and called
        asked = []

        def resolve(host: str | bytes, *_: Any, **__: Any) -> list[Any]:
            asked.append(host if isinstance(host, str) else host.decode())
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, places[len(asked) - 1])]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        engine, journey = house.segue.engine, house.segue.catalog.journey("j")
        with house.db.transaction() as tx:
            enter_people(tx, journey, [ann], None)
        advance(engine)
        assert asked == ["shop.example", "shop.example"]
        reached, _ = ours.accept()
        assert reached.recv(100) == b""  # the connection was given up before a word was said
        reached.close()
    assert house.passed(ann) == [("tell", "failed"), ("u", "next")]


def test_a_host_in_capitals_is_the_same_host(
    house: House, crm: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_CALL_HOSTS", '["CRM.Shop.test"]')
    house.open(described(Call("tell", "https://crm.SHOP.test/")))
    house.customer()
    house.launch("j")
    assert len(crm.got) == 1


class Server(ThreadingHTTPServer):
    """A real server on this machine with long responses; records requests and bytes sent."""

    PART, PARTS = b"x" * 65_536, 1_000

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.said = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that close the connection."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        for _ in range(Server.PARTS):
            self.wfile.write(Server.PART)
            self.server.said += 1

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


def call(server: Server) -> dict[int, str]:
    step = Call("tell", f"http://localhost:{server.server_port}/came")
    return post_all(step, {1: {}}, MONDAY, within=10)


def test_a_long_answer_is_not_read_to_its_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_CALL_HOSTS", '["localhost"]')
    assert call(server) == {}
    assert server.said < Server.PARTS


def test_a_response_that_trickles_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the whole never does."""
    monkeypatch.setenv("SEGUE_CALL_HOSTS", '["localhost"]')
    said: list[int] = []

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                said.append(connection.send(b"x"))
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        trickling = Thread(target=trickle)
        trickling.start()
        step = Call("tell", f"http://localhost:{listener.getsockname()[1]}/")
        assert post_all(step, {1: {}}, MONDAY, within=2.0) == {1: "TimeoutError"}
        trickling.join()
    assert len(said) > 1


def test_the_proxy_of_the_environment_is_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_CALL_HOSTS", '["localhost"]')
    with Server() as proxy:
        Thread(target=proxy.serve_forever, args=[0.01], daemon=True).start()
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("no_proxy", "")
        assert call(server) == {}
        proxy.shutdown()
    assert (proxy.asked, server.asked) == ([], ["/came"])


def test_an_ended_enrollment_makes_no_call(house: House, crm: Endpoint) -> None:
    bought = did("bought")
    house.open(described(Wait("1h"), CALL, exit_when=bought))
    ann, _bob = house.customer("ann"), house.customer("bob")
    house.launch("j")
    house.db.now = house.now + HOUR
    # it came, and nobody has worked it yet
    house.did(ann, "bought")
    with house.providers.listening():
        house.advance()
    assert [orjson.loads(request.content)["user_id"] for request in crm.got] == ["bob"]
    [anns] = house.people(ann)
    assert anns.end_reason == "exited: exit rule"


def test_a_call_after_a_crash_repeats_the_idempotency_key(house: House, crm: Endpoint) -> None:
    crm.answers = [KeyboardInterrupt()]
    house.open(described(CALL))
    house.customer()
    with pytest.raises(KeyboardInterrupt):
        house.launch("j")
    house.run()
    # leased: nobody else calls for now
    assert len(crm.got) == 1
    house.later("10m")
    assert len(crm.got) == 2
    assert len({request.headers["idempotency-key"] for request in crm.got}) == 1
    [person] = house.people()
    assert person.end_reason == "completed"


@pytest.mark.parametrize(
    ("answer", "step", "passed"),
    [(200, "wait 1d", [("tell", "next"), ("u", "next")]), (500, "tell", [])],
)
def test_a_call_that_outlasts_its_lease_moves_no_enrollment(
    house: House,
    crm: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    answer: int,
    step: str,
    passed: list[tuple[str, str]],
) -> None:
    """While one process sleeps at the call another makes it: what comes of that counts."""
    crm.answers = [answer]
    house.open(described(CALL, Update("u", x=1), Wait("1d")))
    ann = house.customer()

    def post_slowly(*_: Any) -> dict[int, str]:
        monkeypatch.undo()
        monkeypatch.setenv("SEGUE_CALL_HOSTS", '["crm.shop.test"]')
        house.db.now = house.now + HOUR
        advance(Engine(house.db, house.segue.catalog, house.segue.engine.planner))
        return {}

    monkeypatch.setattr("journeys.engine.advance.post_all", post_slowly)
    house.launch("j")
    [person] = house.people(ann)
    assert person.step == step
    assert house.passed(ann) == passed


@pytest.mark.parametrize("answer", [200, 500])
def test_an_enrollment_migrated_during_its_call_continues_in_the_new_version(
    house: House, crm: Endpoint, answer: int
) -> None:
    """It knows nothing of what came next in the old one, and calls by its own rules."""
    house.open(described(Call("tell", CALL.url, tries=1), Update("old", x=1)))
    ann = house.customer()

    def move(request: httpx.Request) -> httpx.Response:
        house.providers.hosts["crm.shop.test"] = crm
        house.open(described(CALL, Update("new", x=2)))
        with house.db.transaction() as tx:
            migrate_people(tx, house.segue.catalog, "j")
        return httpx.Response(answer)

    house.providers.hosts["crm.shop.test"] = move
    house.launch("j")
    [person] = house.people(ann)
    current = house.segue.catalog.journey("j").digest
    assert (person.version, person.step, house.passed(ann)) == (current, "tell", [])
    house.later("10m")
    assert house.passed(ann) == [("tell", "next"), ("new", "next")]
    assert len(crm.got) == 1
