"""The lines of docs/start/clients.md, as they stand there, against a running receiver."""

import gzip
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from config.access.user_tokens import fault_of
from config.settings import ROOT
from profiles.tables import identifiers, profiles
from tests.support.http.receiving import Receiving, happened, made_key, names, receiving
from tests.support.patience import PATIENCE
from tests.support.shop import House

# `npm ci --prefix tests/flows/http/ingest/clients` installs them; .ci/run does.
CLIENTS = Path(__file__).parent / "clients"
NODE, PHP = shutil.which("node"), shutil.which("php")
PAGE = (ROOT / "docs" / "start" / "clients.md").read_text(encoding="utf-8")
HOST = "https://segue.shop.example"
SECRET = "a-secret-of-the-shop"
Run = Callable[[str], str]


class Block(NamedTuple):
    """A block of code of the page."""

    language: str
    code: str


BLOCKS = [Block(*found) for found in re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)]


def block(language: str, part: str) -> str:
    """The one block in this language with this part."""
    [found] = [one.code for one in BLOCKS if one.language == language and part in one.code]
    return found


def node(code: str, kind: str = "module") -> str:
    """Run a program in Node, where the clients are installed; returns what it prints."""
    command = [str(NODE), f"--input-type={kind}", "--eval", code]
    run = subprocess.run(
        command, cwd=CLIENTS, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def python(code: str) -> None:
    exec(compile(code, "docs/start/clients.md", "exec"), {"__name__": "example"})


def need_node_client(package: str) -> None:
    if NODE is None or not (CLIENTS / "node_modules" / package).is_dir():
        pytest.skip(f"no {package}: npm ci --prefix tests/flows/http/ingest/clients")


def check(house: House, run: Callable[[str], object], code: str) -> None:
    """Run the lines of a server's client: they make one customer with an event."""
    house.open()
    house.db.now = None  # the client has a clock of its own
    key = made_key(house, "crm", public=False)
    with receiving(house.segue) as receiver:
        run(code.replace(HOST, receiver.url).replace("sk_…", key))
        assert names(house) == ["cart_abandoned"], "sent before the program ended"
    with house.db.transaction(write=False) as tx:
        [row] = tx.conn.execute(select(profiles)).all()
        known = {(one.kind, one.value) for one in tx.conn.execute(select(identifiers))}
    assert known == {("user_id", "u-1042"), ("anonymous_id", "a-77"), ("email", "ann@example.com")}
    assert row.attributes == {}
    [event] = [event for event in happened(house) if event.name == "cart_abandoned"]
    assert event.properties == {"cart_id": "c-9"}


def test_the_lines_for_python(sqlite_house: House) -> None:
    check(sqlite_house, python, block("python", "from segment.analytics "))


@pytest.mark.parametrize("package", ["@segment/analytics-node", "@rudderstack/rudder-sdk-node"])
def test_the_lines_for_node(sqlite_house: House, package: str) -> None:
    need_node_client(package)
    check(sqlite_house, node, block("js", package))


# User tokens --------------------------------------------------------------------------------------


def python_token(user_id: str) -> str:
    named: dict[str, Callable[[str, str], str]] = {}
    exec(block("python", "def user_token"), named)
    return named["user_token"](SECRET, user_id)


def node_token(user_id: str) -> str:
    if NODE is None:
        pytest.skip("Node is not installed")
    code = block("js", "function userToken")
    return node(f"{code}\nconsole.log(userToken({SECRET!r}, {user_id!r}))", "commonjs").strip()


def php_token(user_id: str) -> str:
    if PHP is None:
        pytest.skip("PHP is not installed")
    code = f"{block('php', 'function user_token')}\necho user_token({SECRET!r}, {user_id!r});"
    run = subprocess.run([PHP, "-r", code], capture_output=True, text=True, check=True)
    return run.stdout


@pytest.mark.parametrize("make", [python_token, node_token, php_token])
@pytest.mark.parametrize("user_id", ["u-1042", "1042", "jürgen@example.com"])
def test_user_tokens_of_each_language_are_accepted(make: Run, user_id: str) -> None:
    token = make(user_id)
    expiry = int(token.partition(".")[0])
    assert fault_of(token, SecretStr(SECRET), user_id, expiry - 1) is None
    assert fault_of(token, SecretStr(SECRET), user_id, expiry) == "context.userToken has expired"
    assert fault_of(token, SecretStr(SECRET), "u-1043", expiry - 1) is not None


# What each client sends ---------------------------------------------------------------------------


class Wire(NamedTuple):
    """How a client posts: where it puts the key, and what it says of the body."""

    path: str
    place: str
    kind: str
    packed: bool = False


WIRES = {
    "Segment, browser, standard": Wire("/v1/t", "basic", "text/plain"),
    "Segment, browser, batching": Wire("/v1/b", "basic", "text/plain"),
    "Segment, Kotlin, React Native, C#": Wire("/v1/b", "body", "text/plain", packed=True),
    "Segment, Swift": Wire("/v1/b", "body", "application/json; charset=utf-8"),
    "Segment, Node, Go, PHP": Wire("/v1/batch", "basic", "application/json", packed=True),
    "Segment, bearer": Wire("/v1/batch", "bearer", "application/json"),
    "Segment, Ruby": Wire("/v1/import", "basic", "application/json"),
    "Segment, Java": Wire("/v1/import/", "basic", "application/json", packed=True),
    "RudderStack, Node": Wire(
        "/v1/batch", "basic", "application/x-www-form-urlencoded", packed=True
    ),
    "RudderStack, Python": Wire("/v1/batch", "basic", "application/json"),
    "RudderStack, browser": Wire("/v1/track", "basic", "application/json"),
    "RudderStack, browser, batch": Wire("/v1/batch", "basic", "application/json"),
    "RudderStack, browser, beacon": Wire("/beacon/v1/batch", "query", "text/plain"),
    "Hightouch, Python": Wire("/v1/batch", "body", "application/json"),
}


@pytest.mark.parametrize("client", WIRES)
@pytest.mark.parametrize("public", [True, False], ids=["public", "server"])
def test_calls_of_every_client_are_accepted(house: House, client: str, public: bool) -> None:
    wire = WIRES[client]
    house.open()
    key = made_key(house, public=public, origins=())
    call = {
        "type": "track",
        "event": "x",
        "anonymousId": "a1",
        "messageId": "m1",
        "originalTimestamp": "2026-03-02T09:59:58.000Z",
        "context": {"timezone": "GMT+0000", "traits": {"plan": "b"}},
    }
    outer = {"sentAt": "2026-03-02T09:59:59.000Z"}
    if wire.place == "body":
        outer["writeKey"] = key
    single = wire.path in ("/v1/t", "/v1/track")
    body = orjson.dumps(call | outer if single else {"batch": [call], **outer})
    headers = {"Content-Type": wire.kind, "AnonymousId": "a1"}
    if wire.place == "basic":
        headers["Authorization"] = f"Basic {b64encode(f'{key}:'.encode()).decode()}"
    elif wire.place == "bearer":
        headers["Authorization"] = f"Bearer {key}"
    if wire.packed:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body)
    query = f"?writeKey={key}" if wire.place == "query" else ""
    with receiving(house.segue) as receiver:
        for _ in range(2):
            answer = _post(receiver, f"{wire.path}{query}", body, headers)
            assert answer == (200, {"success": True})
    events = [event for event in happened(house) if event.name == "x"]
    assert [(event.dedupe_key, event.received_at - event.occurred_at) for event in events] == [
        ("m1", 1)
    ]
    with house.db.transaction(write=False) as tx:
        assert tx.conn.execute(select(profiles.c.attributes)).scalar_one() == {"plan": "b"}


def _post(
    receiver: Receiving, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, object]:
    answer = receiver.client.post(path, content=body, headers=headers)
    return answer.status_code, answer.json()


def test_the_time_of_sending_may_stand_in_a_header(house: House, receiver: Receiving) -> None:
    """RudderStack's browser library sends both; the body's counts."""
    call = {"type": "track", "event": "x", "userId": "u1", "timestamp": "2026-03-02T09:00:00Z"}
    header = {"SentAt": "2026-03-02T09:00:05Z"}
    receiver.post("/v1/track", json=call | {"messageId": "1"}, headers=header)
    receiver.post("/v1/batch", json={"batch": [call | {"messageId": "2"}]}, headers=header)
    own = {"messageId": "3", "sentAt": "2026-03-02T09:00:07Z"}
    receiver.post("/v1/track", json=call | own, headers=header)
    receiver.post("/v1/track", json=call | {"messageId": "4"}, headers={"SentAt": "now"})
    ages = [event.received_at - event.occurred_at for event in happened(house)]
    assert ages == [5, 5, 7, 3600]
