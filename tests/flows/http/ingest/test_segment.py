"""Segment's API over real HTTP: accepted calls, refused calls, and the responses."""

import json
import time
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.clock.times import HOUR
from config.database.engine import Database
from flows.http.ingest.segment import BATCH_LIMIT, EVENT_LIMIT
from journeys.dsl import Journey, OnEvent, Push, Send, Wait, WaitUntil, attribute, did, has_address
from profiles.calls.segment_calls import MODELS
from tests.support.http.receiving import (
    Receiving,
    happened,
    keys,
    names,
    packed,
    problem,
    receiving,
    track,
)
from tests.support.proof import cases
from tests.support.shop import MONDAY, House


@pytest.mark.parametrize("short", [False, True], ids=["word", "letter"])
def test_each_kind_of_call_has_its_path(house: House, receiver: Receiving, short: bool) -> None:
    for path, body in (
        ("identify", {"traits": {"plan": "a"}}),
        ("track", {"event": "x"}),
        ("page", {"name": "Cart"}),
        ("screen", {"name": "Cart"}),
        ("group", {"groupId": "g1"}),
        ("alias", {"previousId": "a1"}),
    ):
        name = path[0] if short else path
        answer = receiver.post(f"/v1/{name}", json={"userId": "u1", **body})
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert names(house) == ["x", "page_viewed", "screen_viewed"]
    assert receiver.told == 6


# As the libraries for Ruby, for Java, for apps and RudderStack's for browsers post it.
@pytest.mark.parametrize("path", ["/v1/import", "/v1/import/", "/v1/b", "/beacon/v1/batch"])
def test_a_batch_has_further_names(house: House, receiver: Receiving, path: str) -> None:
    batch = orjson.dumps({"batch": [track(1), track(2)]})
    problem(receiver.client.post(path, content=batch), 401, "not_signed_in")
    assert names(house) == []
    answer = receiver.post(path, **packed(batch))
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert keys(house) == ["m1", "m2"]
    problem(receiver.post(path, content=b" " * (BATCH_LIMIT + 1)), 413, "too_large")


def test_ignored_values_are_reported_as_warnings(house: House, receiver: Receiving) -> None:
    said = {"userId": "u1", "traits": {"email": "nobody", "plan": "a"}}
    answer = receiver.post("/v1/identify", json=said)
    assert answer.status_code == 200
    [warning] = answer.json()["warnings"]
    assert warning.startswith("traits.email is left out: 'nobody' is not an e-mail address")
    [warning] = receiver.post(
        "/v1/batch", json={"batch": [track(), {"type": "identify", **said, "messageId": "m9"}]}
    ).json()["warnings"]
    assert warning.startswith("batch.1: traits.email is left out")


def test_an_invalid_call_is_refused(house: House, receiver: Receiving) -> None:
    said = problem(receiver.post("/v1/track", json={"userId": "u1"}), 400, "invalid")
    assert (said["field"], said["message"]) == ("event", "event: the field is missing")


def test_a_second_customer_on_a_device_is_taken_in_with_a_warning(receiver: Receiving) -> None:
    receiver.post("/v1/identify", json={"userId": "ann", "anonymousId": "a1"})
    answer = receiver.post("/v1/identify", json={"userId": "bob", "anonymousId": "a1"})
    assert answer.status_code == 200
    assert answer.json()["warnings"] == ["anonymousId is left out: it belongs to another customer"]


def test_an_invalid_call_does_not_affect_the_rest_of_the_batch(
    house: House, receiver: Receiving
) -> None:
    large = track(4, properties={"text": "x" * EVENT_LIMIT})
    receiver.post("/v1/identify", json={"userId": "ann"})
    batch = [
        track(1),
        {"type": "track", "userId": "u2"},
        None,
        large,
        {"type": "identify", "userId": "undefined"},
        track(5),
    ]
    said = problem(receiver.post("/v1/batch", json={"batch": batch}), 400, "invalid")
    assert [one["field"] for one in said["errors"]] == [
        "batch.1.event",
        "batch.2",
        "batch.3",
        "batch.4.userId",
    ]
    assert (said["field"], said["accepted"]) == ("batch.1.event", 2)
    assert keys(house)[1:] == ["m1", "m5"]
    # corrected and sent again
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
def test_an_invalid_body_is_refused(receiver: Receiving, body: bytes, field: str | None) -> None:
    said = problem(receiver.post("/v1/batch", content=body), 400, "invalid")
    assert said.get("field") == field


@pytest.mark.parametrize("depth", [200, 260, 600, 990, 1100])
@pytest.mark.parametrize("text", ["x", "\\u0000", "\\ud83d"])
def test_a_call_of_any_depth_is_accepted_or_refused(
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


@pytest.mark.parametrize("kind", ["track", "identify", "group"])
def test_a_call_has_250_levels_at_most(house: House, receiver: Receiving, kind: str) -> None:
    """What Segue stores around it, such as the record of a merge, can still be written."""
    taken = []
    for levels in range(245, 257):
        who = {"type": kind, "userId": f"u{levels}", "event": "x", "groupId": "g"}
        within = json.loads("[" * (levels - 2) + "]" * (levels - 2))
        deep = who | {"properties": {"p": within}, "traits": {"p": within}}
        alone = receiver.post(f"/v1/{kind}", json=deep)
        batch = [deep, {"type": "alias", "userId": "one", "previousId": f"u{levels}"}]
        together = receiver.post("/v1/batch", json={"batch": batch})
        assert alone.status_code == together.status_code
        assert alone.status_code in (200, 400)
        taken += [levels] * (alone.status_code == 200)
    assert taken == list(range(245, 251))


def test_an_empty_batch_is_fine(receiver: Receiving) -> None:
    assert receiver.post("/v1/batch", json={"batch": []}).json() == {"success": True}


def test_characters_that_no_database_stores_are_replaced(house: House, receiver: Receiving) -> None:
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


@settings(max_examples=cases(test=25, prove=1000), suppress_health_check=list(HealthCheck))
@given(st.lists(ANY_CALL, max_size=6))
def test_any_batch_is_accepted_or_refused(
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


@pytest.mark.parametrize("worked", [True, False], ids=["worked", "not yet worked"])
def test_a_purchase_cancels_a_planned_push(db: Database, worked: bool) -> None:
    house = House(db)
    push = Send("remind", Push("hello", after="1h"))
    entry, bought = OnEvent("cart_abandoned"), did("order_completed")
    house.open(Journey("cart", entry=entry, exit_when=bought, topic="news", steps=[push]))
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


def test_traits_in_an_event_end_waits_and_enrollments_at_once(db: Database) -> None:
    house = House(db)
    wait = WaitUntil("has the app", has_address("push"), timeout="7d")
    entry, moved = OnEvent("signed_up"), attribute("timezone") == "Asia/Tokyo"
    house.open(Journey("j", entry=entry, exit_when=moved, topic="news", steps=[wait, Wait("7d")]))
    ann = house.customer("ann", push_tokens={})
    house.did(ann, "signed_up")
    house.run()
    with receiving(house.segue) as receiver:
        for context in ({"device": {"token": "t", "type": "ios"}}, {"timezone": "Asia/Tokyo"}):
            opened = {"userId": "ann", "event": "Application Opened", "context": context}
            receiver.post("/v1/track", json=opened)
            house.run()
    [one] = house.people()
    assert (house.passed(), one.end_reason) == ([("has the app", "next")], "exited: exit rule")


def test_the_time_of_receipt_counts_however_long_it_takes_to_write_it_down(
    house: House, receiver: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when everybody waits for SQLite's one lock: the order of events stays what it was."""
    sent = {"timestamp": "2026-03-02T17:00:00Z", "sentAt": "2026-03-02T17:00:02Z"}
    receiver.post("/v1/track", json=track(1) | sent)
    slow = SimpleNamespace(monotonic=lambda: time.monotonic() - 60)
    monkeypatch.setattr("flows.http.ingest.intake.time", slow)
    receiver.post("/v1/track", json=track(2) | sent)
    receiver.post("/v1/batch", json={"batch": [track(3)]})
    assert [MONDAY - event.occurred_at for event in happened(house)] == [2, 62, 60]
