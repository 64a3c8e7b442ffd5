"""Limits of the receiver: sizes, backlog, and guesses of the write key."""

import gzip
from typing import Any

import orjson
import pytest

from config.database.engine import Database
from flows.http.ingest.segment import BATCH_LIMIT, CALLS_LIMIT, DECOMPRESSED_LIMIT, EVENT_LIMIT
from tests.support.http.receiving import (
    Receiving,
    keys,
    leave_unworked,
    names,
    packed,
    problem,
    receiving,
    track,
)
from tests.support.shop import House


def sized(content: bytes, size: int) -> bytes:
    """JSON of exactly so many bytes."""
    return content + b" " * (size - len(content))


def test_the_limits_are_those_of_segment(house: House, receiver: Receiving) -> None:
    one, many = orjson.dumps(track()), orjson.dumps({"batch": [track()]})
    fits = [
        ("/v1/track", {"content": sized(one, EVENT_LIMIT)}),
        ("/v1/track", packed(sized(one, EVENT_LIMIT))),
        ("/v1/batch", {"content": sized(many, BATCH_LIMIT)}),
        ("/v1/batch", packed(sized(many, DECOMPRESSED_LIMIT))),
    ]
    for path, content in fits:
        assert receiver.post(path, **content).status_code == 200
    too_large = [
        ("/v1/track", {"content": sized(one, EVENT_LIMIT + 1)}),
        ("/v1/track", packed(sized(one, EVENT_LIMIT + 1))),
        ("/v1/batch", {"content": sized(many, BATCH_LIMIT + 1)}),
        ("/v1/batch", packed(sized(many, DECOMPRESSED_LIMIT + 1))),
        ("/v1/batch", {"content": iter([b"x" * 65536] * 20)}),  # of no length said beforehand
    ]
    for path, content in too_large:
        problem(receiver.post(path, **content), 413, "too_large")
    large = track(2, properties={"text": "x" * EVENT_LIMIT})
    answer = receiver.post("/v1/batch", json={"batch": [large, track(3)]})
    said = problem(answer, 413, "too_large")
    assert (said["field"], said["accepted"]) == ("batch.0", 1)
    assert keys(house) == ["m1", "m3"]
    described = receiver.client.get("/openapi.json").json()["paths"]["/v1/batch"]["post"]
    assert "the others are recorded (`accepted`)" in described["responses"]["413"]["description"]


def test_a_zip_bomb_is_refused_before_decompression(receiver: Receiving) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000, 9)
    assert len(bomb) < BATCH_LIMIT
    answer = receiver.post("/v1/batch", content=bomb, headers={"Content-Encoding": "gzip"})
    problem(answer, 413, "too_large")


def test_a_batch_of_more_calls_than_anybody_gathers_is_refused_unread(
    house: House, receiver: Receiving
) -> None:
    smallest = b'{"type":"page","userId":"u"}'
    batch = b'{"batch":[%s]}' % b",".join([b"0"] * CALLS_LIMIT + [smallest])
    said = problem(receiver.post("/v1/batch", **packed(batch)), 413, "too_large")
    assert said["message"] == "batch: more than 10000 calls; send fewer in one request"
    assert (said["field"], "errors" in said, names(house)) == ("batch", False, [])


def test_the_first_faults_and_warnings_are_listed(receiver: Receiving) -> None:
    wrong: list[Any] = [0] * (CALLS_LIMIT - 102)
    left_out = {"type": "track", "event": "x", "userId": "u", "context": {"locale": 7}}
    few, many = [left_out] * 100, [left_out] * 102
    said = problem(receiver.post("/v1/batch", json={"batch": wrong + many}), 400, "invalid")
    assert [one["field"] for one in said["errors"]] == [f"batch.{place}" for place in range(100)]
    assert (said["more_errors"], said["accepted"]) == (len(wrong) - 100, 102)
    assert (len(said["warnings"]), said["more_warnings"]) == (100, 2)
    taken = receiver.post("/v1/batch", json={"batch": many}).json()
    assert (len(taken["warnings"]), taken["more_warnings"]) == (100, 2)
    said = problem(receiver.post("/v1/batch", json={"batch": wrong[:100] + few}), 400, "invalid")
    assert (len(said["errors"]), len(said["warnings"])) == (100, 100)
    assert not {"more_errors", "more_warnings"} & said.keys()


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
def test_an_invalid_encoding_is_refused(receiver: Receiving, content: bytes, encoding: str) -> None:
    answer = receiver.post("/v1/batch", content=content, headers={"Content-Encoding": encoding})
    problem(answer, 400, "invalid")


def test_a_flood_is_slowed(db: Database) -> None:
    house = House(db)
    house.open(backlog_limit=3)
    leave_unworked(house, 4)
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
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic d3Jvbmc6"},
        {"Authorization": "Basic OndyaXRlLWtleS1mb3ItdGhlLXNhbmRib3gtb25seQ=="},  # as password
    ],
)
def test_requests_without_the_write_key_are_refused(
    house: House, receiver: Receiving, headers: dict[str, str]
) -> None:
    answer = receiver.client.post("/v1/track", json=track(), headers=headers)
    problem(answer, 401, "not_signed_in")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert names(house) == []


def test_a_configured_write_key_replaces_the_default(db: Database) -> None:
    house = House(db)
    house.open(write_key="a-write-key-of-our-own")
    with receiving(house.segue) as receiver:
        problem(receiver.post("/v1/track", json=track()), 401, "not_signed_in")
        ours = ("a-write-key-of-our-own", "")
        assert receiver.post("/v1/track", json=track(), auth=ours).status_code == 200
