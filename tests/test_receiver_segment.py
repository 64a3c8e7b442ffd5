"""Segment's API over real HTTP, with the real client and by hand."""

import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from segment.analytics.client import Client
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

import flows.receiver.segment
from config.database import Database
from config.errors import SegueError
from config.settings import Settings
from config.times import DAY, HOUR
from flows.receiver import backlog
from flows.receiver.answers import Refusal
from flows.receiver.backlog import Backlog
from flows.receiver.keys import refuse_defaults
from flows.receiver.segment import BATCH_LIMIT, EVENT_LIMIT, UNFOLDED_LIMIT
from journeys.journey import OnEvent, journey
from journeys.steps import Push, Send
from profiles.calls import MODELS
from profiles.conditions import did
from profiles.events import PROFILE_CHANGED
from profiles.tables import events, identifiers, profiles
from profiles.tracking import take_calls
from tests.house import MONDAY, House
from tests.receiving import WRITE_KEY, Receiving, receiving


@pytest.fixture
def house(db: Database) -> House:
    house = House(db)
    house.open()
    return house


@pytest.fixture
def receiver(house: House) -> Iterator[Receiving]:
    with receiving(house.segue) as receiver:
        yield receiver


def happened(house: House) -> list[Any]:
    with house.db.transaction(write=False) as tx:
        return list(tx.conn.execute(select(events).order_by(events.c.id)))


def names(house: House) -> list[str]:
    return [event.name for event in happened(house) if event.name != PROFILE_CHANGED]


def keys(house: House) -> list[str]:
    return [event.dedupe_key for event in happened(house)]


def track(number: int = 1, **said: Any) -> dict[str, Any]:
    return {"type": "track", "userId": f"u{number}", "event": "x", "messageId": f"m{number}"} | said


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The JSON of an answer that is no success."""
    said: dict[str, Any] = answer.json()
    assert (answer.status_code, said["success"], said["code"]) == (status, False, code)
    return said


# The real client ----------------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [False, True])
def test_a_client_library_works_with_only_its_host_changed(
    house: House, receiver: Receiving, packs: bool
) -> None:
    house.db.now = None
    trouble: list[object] = []
    client = Client(
        WRITE_KEY,
        host=receiver.url,
        gzip=packs,
        on_error=lambda error, _items: trouble.append(error),
        upload_interval=0.05,
    )
    client.identify("u1", {"email": "Ann@example.com", "firstName": "Ann", "plan": "b"})
    client.track("u1", "cart_abandoned", {"cart_id": "c1", "items": [{"sku": 1}]})
    client.track(None, "product_viewed", anonymous_id="a1")
    client.page("u1", "Shop", "Cart", {"url": "https://shop.example/cart"})
    client.screen("u1", "Shop", "Basket")
    client.group("u1", 77, {"name": "Acme"})
    client.alias("a1", "u1")
    client.track("u1", "long ago", timestamp=datetime.now(UTC) - timedelta(days=1))
    client.shutdown()

    assert trouble == []
    with house.db.transaction(write=False) as tx:
        [person] = tx.conn.execute(select(profiles)).all()
        known = {row.kind: row.value for row in tx.conn.execute(select(identifiers))}
    assert person.attributes == {
        "first_name": "Ann",
        "plan": "b",
        "group_id": "77",
        "group_name": "Acme",
    }
    assert known == {"user_id": "u1", "anonymous_id": "a1", "email": "ann@example.com"}
    by_name = {event.name: event for event in happened(house)}
    assert set(by_name) == {
        *("cart_abandoned", "product_viewed", "page_viewed", "screen_viewed", "long ago"),
        PROFILE_CHANGED,
    }
    assert by_name["cart_abandoned"].properties == {"cart_id": "c1", "items": [{"sku": 1}]}
    ago = by_name["long ago"].received_at - by_name["long ago"].occurred_at
    assert abs(ago - DAY) <= 1
    assert receiver.told > 0


@pytest.mark.parametrize("worked", [True, False], ids=["worked", "not yet worked"])
def test_who_buys_while_a_push_is_planned_never_gets_it(db: Database, worked: bool) -> None:
    house = House(db)
    push = Send("remind", Push("hello", after="1h"))
    entry, bought = OnEvent("cart_abandoned"), did("order_completed")
    house.open(journey("cart", entry=entry, exit_when=bought, topic="news", steps=[push]))
    house.customer("ann")
    with receiving(house.segue) as receiver:
        receiver.post("/v1/track", json={"userId": "ann", "event": "cart_abandoned"})
        house.run()
        assert [(row.channel, row.state) for row in house.outbox()] == [("push", "planned")]
        receiver.post("/v1/track", json={"userId": "ann", "event": "order_completed"})
        if worked:
            house.run()
            assert [row.state for row in house.outbox()] == ["cancelled"]
        house.db.now = MONDAY + HOUR
        house.dispatch()
    [row] = house.outbox()
    assert (row.state, row.reason) == ("cancelled", "exited: exit rule")
    assert house.providers.accepted == []


def test_the_time_of_receipt_counts_however_long_it_takes_to_write_it_down(
    house: House, receiver: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when everybody waits for SQLite's one lock: the order of events stays what it was."""
    sent = {"timestamp": "2026-03-02T17:00:00Z", "sentAt": "2026-03-02T17:00:02Z"}
    receiver.post("/v1/track", json=track(1) | sent)
    slow = SimpleNamespace(monotonic=lambda: time.monotonic() - 60)
    monkeypatch.setattr("flows.receiver.intake.time", slow)
    receiver.post("/v1/track", json=track(2) | sent)
    receiver.post("/v1/batch", json={"batch": [track(3)]})
    assert [MONDAY - event.occurred_at for event in happened(house)] == [2, 62, 60]


# As the libraries for Ruby, for Java, and for apps post it.
@pytest.mark.parametrize("path", ["/v1/import", "/v1/import/", "/v1/b"])
def test_a_batch_has_further_names(house: House, receiver: Receiving, path: str) -> None:
    batch = orjson.dumps({"batch": [track(1), track(2)], "writeKey": WRITE_KEY})
    problem(receiver.client.post(path, content=batch), 401, "not_signed_in")
    assert names(house) == []
    answer = receiver.post(path, **packed(batch))
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert keys(house) == ["m1", "m2"]
    problem(receiver.post(path, content=b" " * (BATCH_LIMIT + 1)), 413, "too_large")


def test_a_client_that_is_slowed_loses_nothing(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(Database(sqlite_url))
    house.open(backlog_limit=1)
    wait_until_worked(house, 2)
    slowed = Event()
    look = Backlog.check

    async def check(self: Backlog) -> None:
        try:
            await look(self)
        except Refusal:
            slowed.set()
            raise

    monkeypatch.setattr(Backlog, "check", check)
    monkeypatch.setattr(backlog, "_RETRY_AFTER", 1)
    trouble: list[object] = []
    with receiving(house.segue) as receiver:
        client = Client(
            WRITE_KEY,
            host=receiver.url,
            upload_interval=0.05,
            on_error=lambda error, _items: trouble.append(error),
        )
        client.track("u1", "cart_abandoned")
        assert slowed.wait(10)
        assert "cart_abandoned" not in names(house)
        with house.db.transaction() as tx:
            tx.conn.execute(update(events).values(worked_at=tx.now))
        client.shutdown()
    assert trouble == []
    assert names(house)[-1] == "cart_abandoned"
    house.db.close()


def wait_until_worked(house: House, number: int) -> None:
    """Events that nobody has worked."""
    ann = house.customer()
    for _ in range(number):
        house.did(ann, "waiting")


# By hand ------------------------------------------------------------------------------------------


def test_each_kind_of_call_has_its_path(house: House, receiver: Receiving) -> None:
    for path, body in (
        ("identify", {"traits": {"plan": "a"}}),
        ("track", {"event": "x"}),
        ("page", {"name": "Cart"}),
        ("screen", {"name": "Cart"}),
        ("group", {"groupId": "g1"}),
        ("alias", {"previousId": "a1"}),
    ):
        answer = receiver.post(f"/v1/{path}", json={"userId": "u1", **body})
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert names(house) == ["x", "page_viewed", "screen_viewed"]
    assert receiver.told == 6


def test_what_was_left_out_is_said(house: House, receiver: Receiving) -> None:
    said = {"userId": "u1", "traits": {"email": "nobody", "plan": "a"}}
    answer = receiver.post("/v1/identify", json=said)
    assert answer.status_code == 200
    [warning] = answer.json()["warnings"]
    assert warning.startswith("traits.email is left out: 'nobody' is no e-mail address")
    [warning] = receiver.post(
        "/v1/batch", json={"batch": [track(), {"type": "identify", **said, "messageId": "m9"}]}
    ).json()["warnings"]
    assert warning.startswith("batch.1: traits.email is left out")


def test_a_call_that_is_wrong_is_refused(house: House, receiver: Receiving) -> None:
    said = problem(receiver.post("/v1/track", json={"userId": "u1"}), 400, "invalid")
    assert (said["field"], said["message"]) == ("event", "event: it is missing; give it")
    receiver.post("/v1/identify", json={"userId": "ann", "anonymousId": "a1"})
    answer = receiver.post("/v1/identify", json={"userId": "bob", "anonymousId": "a1"})
    assert problem(answer, 400, "invalid")["field"] == "anonymousId"


def test_one_bad_call_costs_nobody_the_rest_of_the_batch(house: House, receiver: Receiving) -> None:
    large = track(4, properties={"text": "x" * EVENT_LIMIT})
    receiver.post("/v1/identify", json={"userId": "ann", "anonymousId": "a1"})
    batch = [
        track(1),
        {"type": "track", "userId": "u2"},
        None,
        large,
        {"type": "identify", "userId": "bob", "anonymousId": "a1"},
        track(5),
    ]
    said = problem(receiver.post("/v1/batch", json={"batch": batch}), 400, "invalid")
    assert [one["field"] for one in said["errors"]] == [
        "batch.1.event",
        "batch.2",
        "batch.3",
        "batch.4.anonymousId",
    ]
    assert (said["field"], said["accepted"]) == ("batch.1.event", 2)
    assert keys(house)[1:] == ["m1", "m5"]
    # mended and sent again
    batch[1:5] = [track(2), track(3)]
    assert receiver.post("/v1/batch", json={"batch": batch}).status_code == 200
    assert keys(house)[1:] == ["m1", "m5", "m2", "m3"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"nothing", None),
        (b'{"batch": {}}', "batch"),
        (b"{}", "batch"),
        (b'{"batch": [], "sentAt": "now"}', "sentAt"),
        (b"[" * 3000 + b"]" * 3000, None),
        (b'{"batch": [' + b"[" * 300 + b"]" * 300 + b"]}", "batch.0"),
        (b'{"batch": ["\\u0000", ' + b"[" * 1000 + b"]" * 1000 + b"]}", None),
        (b'{"batch": "\xff"}', None),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(
    receiver: Receiving, body: bytes, field: str | None
) -> None:
    said = problem(receiver.post("/v1/batch", content=body), 400, "invalid")
    assert said.get("field") == field


@pytest.mark.parametrize("depth", [200, 260, 600, 990, 1100])
@pytest.mark.parametrize("text", ["x", "\\u0000", "\\ud83d"])
def test_of_whatever_depth_a_call_is_taken_or_refused(
    house: House, receiver: Receiving, depth: int, text: str
) -> None:
    deep = (
        f'{{"userId": "u", "event": "{text}x", "properties": {{"p": {"[" * depth + "]" * depth}}}'
    )
    alone = receiver.post("/v1/track", content=f"{deep}}}")
    beside = f'{{"batch": [{deep}, "type": "track"}}, {json.dumps(track())}]}}'
    together = receiver.post("/v1/batch", content=beside)
    wanted = 200 if depth == 200 else 400
    assert (alone.status_code, together.status_code) == (wanted, wanted)
    if depth < 500:
        assert keys(house)[-1] == "m1", "the good call is taken"


def test_an_empty_batch_is_fine(receiver: Receiving) -> None:
    assert receiver.post("/v1/batch", json={"batch": []}).json() == {"success": True}


def test_what_no_database_can_store_is_cleaned(house: House, receiver: Receiving) -> None:
    """NUL characters, halves of an emoji, numbers that are none: clients send them all."""
    body = (
        rb'{"batch": [{"type": "track", "userId": "u\u00001", "event": "x", "messageId": "m1",'
        rb' "properties": {"half": "cut \ud83d", "nul\u0000": "a\u0000b", "nan": NaN,'
        rb' "emoji": "\ud83d\ude00", "big": 123456789012345678901234567890, "huge": 1e999}}]}'
    )
    assert receiver.post("/v1/batch", content=body).status_code == 200
    [event] = happened(house)
    assert event.properties == {
        "half": "cut \ufffd",
        "nul": "ab",
        "nan": None,
        "emoji": "😀",
        "big": 123456789012345678901234567890.0,
        "huge": None,
    }
    # with no need for leniency either
    nul = rb'{"userId": "u1", "event": "a\u0000b", "messageId": "m2"}'
    assert receiver.post("/v1/track", content=nul).status_code == 200
    assert names(house) == ["x", "ab"]


ANY_TEXT = st.text(max_size=12)  # NUL and lone surrogates included
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=8,
)
ANY_OBJECT = st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4)
ID = st.sampled_from(["u1", "u2", "a1", "a2", 7])
ANY_CALL = st.builds(
    lambda wrong, **fields: {**fields, **wrong},
    st.just({}) | st.dictionaries(st.sampled_from(["userId", "event", "sentAt"]), ANY_JSON),
    type=st.sampled_from(list(MODELS)),
    userId=ID | ANY_TEXT,
    anonymousId=st.none() | ID | ANY_TEXT,
    previousId=ID,
    groupId=ID,
    messageId=st.none() | ID | ANY_TEXT,
    timestamp=st.none() | st.just("2026-03-01T10:00:00.123Z"),
    event=st.text(min_size=1, max_size=12),
    properties=ANY_OBJECT,
    traits=ANY_OBJECT
    | st.fixed_dictionaries({"email": ANY_JSON, "phone": ANY_JSON, "address": ANY_JSON}),
    context=ANY_OBJECT
    | st.fixed_dictionaries({"device": ANY_JSON, "timezone": ANY_JSON})
    | st.fixed_dictionaries({"device": st.fixed_dictionaries({"token": ID | ANY_TEXT})}),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ANY_CALL, max_size=6))
def test_whatever_a_batch_holds_it_is_taken_or_refused(
    house: House, receiver: Receiving, batch: list[Any]
) -> None:
    body = json.dumps({"batch": batch}).encode()
    answer = receiver.post("/v1/batch", content=body)
    assert answer.status_code in (200, 400)
    said = answer.json()
    if answer.status_code == 200:
        before = len(happened(house))
        assert receiver.post("/v1/batch", content=body).status_code == 200
        assert len(happened(house)) == before
    else:
        assert said["accepted"] + len(said["errors"]) == len(batch)


# Limits -------------------------------------------------------------------------------------------


def sized(content: bytes, size: int) -> bytes:
    """JSON of exactly so many bytes."""
    return content + b" " * (size - len(content))


def packed(content: bytes) -> dict[str, Any]:
    return {"content": gzip.compress(content), "headers": {"Content-Encoding": "gzip"}}


def test_the_limits_are_those_of_segment(house: House, receiver: Receiving) -> None:
    one, many = orjson.dumps(track()), orjson.dumps({"batch": [track()]})
    fits = [
        ("/v1/track", {"content": sized(one, EVENT_LIMIT)}),
        ("/v1/track", packed(sized(one, EVENT_LIMIT))),
        ("/v1/batch", {"content": sized(many, BATCH_LIMIT)}),
        ("/v1/batch", packed(sized(many, UNFOLDED_LIMIT))),
    ]
    for path, content in fits:
        assert receiver.post(path, **content).status_code == 200
    too_large = [
        ("/v1/track", {"content": sized(one, EVENT_LIMIT + 1)}),
        ("/v1/track", packed(sized(one, EVENT_LIMIT + 1))),
        ("/v1/batch", {"content": sized(many, BATCH_LIMIT + 1)}),
        ("/v1/batch", packed(sized(many, UNFOLDED_LIMIT + 1))),
        ("/v1/batch", {"content": iter([b"x" * 65536] * 20)}),  # of no length said beforehand
    ]
    for path, content in too_large:
        problem(receiver.post(path, **content), 413, "too_large")
    large = track(2, properties={"text": "x" * EVENT_LIMIT})
    answer = receiver.post("/v1/batch", json={"batch": [large, track(3)]})
    assert problem(answer, 413, "too_large")["field"] == "batch.0"
    assert keys(house) == ["m1", "m3"]


def test_a_zip_bomb_is_not_unfolded(receiver: Receiving) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000, 9)
    assert len(bomb) < BATCH_LIMIT
    answer = receiver.post("/v1/batch", content=bomb, headers={"Content-Encoding": "gzip"})
    problem(answer, 413, "too_large")


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"{}", "gzip"),
        (gzip.compress(b'{"batch": []}')[:-5], "gzip"),
        (gzip.compress(b'{"batch": []}') + b"more", "gzip"),
        (b"{}", "br"),
    ],
    ids=["no gzip", "cut off", "more behind it", "another"],
)
def test_an_encoding_that_is_none_is_refused(
    receiver: Receiving, content: bytes, encoding: str
) -> None:
    answer = receiver.post("/v1/batch", content=content, headers={"Content-Encoding": encoding})
    problem(answer, 400, "invalid")


def test_a_flood_is_slowed(db: Database) -> None:
    house = House(db)
    house.open(backlog_limit=3)
    wait_until_worked(house, 4)
    with receiving(house.segue) as receiver:
        for path in ("/v1/track", "/v1/batch", "/v1/import"):
            answer = receiver.post(path, json={"batch": [track()]})
            problem(answer, 429, "too_many")
            assert int(answer.headers["Retry-After"]) > 0
    assert "x" not in names(house)


# Who may ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic"},
        {"Authorization": "Basic ****"},
        {"Authorization": "Bearer write-key-for-the-sandbox-only"},
        {"Authorization": "Basic d3Jvbmc6"},
        {"Authorization": "Basic OndyaXRlLWtleS1mb3ItdGhlLXNhbmRib3gtb25seQ=="},  # as password
    ],
)
def test_without_the_write_key_nobody_writes(
    house: House, receiver: Receiving, headers: dict[str, str]
) -> None:
    answer = receiver.client.post("/v1/track", json=track(), headers=headers)
    problem(answer, 401, "not_signed_in")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert names(house) == []


def test_a_key_of_ones_own_is_the_only_one(db: Database) -> None:
    house = House(db)
    house.open(write_key="a-write-key-of-our-own")
    with receiving(house.segue) as receiver:
        problem(receiver.post("/v1/track", json=track()), 401, "not_signed_in")
        ours = ("a-write-key-of-our-own", "")
        assert receiver.post("/v1/track", json=track(), auth=ours).status_code == 200


@pytest.mark.parametrize("field", ["write_key", "hook_secret"])
def test_real_providers_demand_keys_of_ones_own(field: str) -> None:
    keys: dict[str, Any] = {"write_key": "x" * 20, "hook_secret": "y" * 20}
    refuse_defaults(Settings(providers="live", **keys))
    del keys[field]
    with pytest.raises(SegueError, match=f"SEGUE_{field.upper()} still has its default"):
        refuse_defaults(Settings(providers="live", **keys))


# All at once --------------------------------------------------------------------------------------


def test_whoever_comes_at_once_is_committed_before_the_answer(
    house: House, receiver: Receiving
) -> None:
    """The same people, new ones, the same calls twice, in many requests side by side."""

    def post(number: int) -> int:
        batch = [track(number * 5 + one, userId=f"u{one}") for one in range(5)]
        answer = receiver.post("/v1/batch", json={"batch": [*batch, track(9000)]})
        assert {call["messageId"] for call in batch} <= set(keys(house))
        return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(40))) == {200}
    assert sorted(keys(house)) == sorted([f"m{number}" for number in range(200)] + ["m9000"])


def test_a_large_batch_is_written_in_pieces_and_whole(house: House, receiver: Receiving) -> None:
    batch = [track(number) for number in range(1500)]
    answer = receiver.post("/v1/batch", **packed(orjson.dumps({"batch": batch})))
    assert answer.status_code == 200
    assert keys(house) == [call["messageId"] for call in batch]
    assert receiver.told > 1


def test_when_the_database_is_in_trouble_nothing_is_promised(
    house: House, receiver: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception("the server closed the connection"))

    with monkeypatch.context() as patched:
        patched.setattr(flows.receiver.segment, "take_calls", fail)
        answer = receiver.post("/v1/track", json=track())
    said = problem(answer, 503, "try_again")
    assert int(answer.headers["Retry-After"]) > 0
    assert said["message"].startswith("the database is in trouble; send it again")
    assert "secret" not in answer.text
    assert "closed" not in answer.text
    assert receiver.post("/v1/track", json=track()).status_code == 200
    assert names(house) == ["x"]


def test_a_batch_of_which_a_part_was_taken_can_be_sent_again(
    house: House, receiver: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [track(number) for number in range(60)]
    pieces = 0

    def take_one_piece(*given: Any) -> Any:
        nonlocal pieces
        pieces += 1
        if pieces > 1:
            raise OperationalError("SELECT", {}, Exception("the server closed the connection"))
        return take_calls(*given)

    with monkeypatch.context() as patched:
        patched.setattr(flows.receiver.segment, "take_calls", take_one_piece)
        said = problem(receiver.post("/v1/batch", json={"batch": batch}), 503, "try_again")
    assert 0 < len(keys(house)) < 60
    assert "nothing was taken" not in said["message"]
    assert "what was taken of it counts once" in said["message"]
    assert receiver.post("/v1/batch", json={"batch": batch}).status_code == 200
    assert keys(house) == [call["messageId"] for call in batch]


SERVE = """
import sys
import uvicorn
from config.settings import Settings
from flows.app import open_segue
from flows.receiver.app import create_app
segue = open_segue(Settings(database_url=sys.argv[1]))
app = create_app(segue, lambda: None)
uvicorn.run(app, fd=int(sys.argv[2]), lifespan="off", ws="none", log_level="critical")
"""


def test_killing_the_process_loses_nothing_that_was_accepted(sqlite_url: str) -> None:
    accepted: list[str] = []

    def post(client: httpx.Client, process: int) -> None:
        for turn in range(10_000):
            batch = [track(0, messageId=f"{process} {turn} {one}") for one in range(5)]
            try:
                client.post("/v1/batch", json={"batch": batch}, timeout=20).raise_for_status()
            except httpx.HTTPError:
                return
            accepted.extend(call["messageId"] for call in batch)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, sqlite_url, str(number)], pass_fds=[number]
        )
        port = listener.getsockname()[1]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=(WRITE_KEY, "")) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        posting = [pool.submit(post, client, process) for process in range(4)]
        while len(accepted) < 200 and server.poll() is None:
            time.sleep(0.01)
        server.kill()
        server.wait()
        for one in posting:
            one.result()
    database = Database(sqlite_url)
    with database.transaction(write=False) as tx:
        stored = set(tx.conn.execute(select(events.c.dedupe_key)).scalars())
    database.close()
    assert len(accepted) >= 200
    assert set(accepted) <= stored
