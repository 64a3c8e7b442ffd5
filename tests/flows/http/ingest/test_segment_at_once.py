"""Accepted events are stored, under concurrent requests and failures of a database or process."""

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

import flows.http.ingest.segment
from config.database.engine import Database
from profiles.calls.record_calls import take_calls
from profiles.tables import events
from tests.support.http.receiving import WRITE_KEY, Receiving, keys, names, packed, problem, track
from tests.support.patience import PATIENCE
from tests.support.shop import House


def test_concurrent_requests_are_committed_before_the_response(
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


def test_a_database_failure_is_answered_with_an_error(
    house: House, receiver: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception("the server closed the connection"))

    with monkeypatch.context() as patched:
        patched.setattr(flows.http.ingest.segment, "take_calls", fail)
        answer = receiver.post("/v1/track", json=track())
    said = problem(answer, 503, "try_again")
    assert int(answer.headers["Retry-After"]) > 0
    assert said["message"].startswith("database error; send the request again")
    assert "secret" not in answer.text
    assert "closed" not in answer.text
    assert receiver.post("/v1/track", json=track()).status_code == 200
    assert names(house) == ["x"]


def test_a_batch_of_which_a_part_was_taken_can_be_sent_again(
    house: House, receiver: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [track(number) for number in range(500)]
    pieces = 0

    def take_one_piece(*given: Any) -> Any:
        nonlocal pieces
        pieces += 1
        if pieces > 1:
            raise OperationalError("SELECT", {}, Exception("the server closed the connection"))
        return take_calls(*given)

    with monkeypatch.context() as patched:
        patched.setattr(flows.http.ingest.segment, "take_calls", take_one_piece)
        said = problem(receiver.post("/v1/batch", json={"batch": batch}), 503, "try_again")
    assert 0 < len(keys(house)) < 500
    assert "nothing was taken" not in said["message"]
    assert "accepted parts count only once" in said["message"]
    assert receiver.post("/v1/batch", json={"batch": batch}).status_code == 200
    assert keys(house) == [call["messageId"] for call in batch]


SERVE = """
import sys
import uvicorn
from config.settings import Settings
from flows.app import open_segue
from flows.http.app import create_app
segue = open_segue(Settings(database_url=sys.argv[1]))
app = create_app(segue, lambda _: None)
uvicorn.run(app, fd=int(sys.argv[2]), lifespan="off", ws="none", log_level="critical")
"""


def test_killing_the_process_loses_nothing_that_was_accepted(sqlite_url: str) -> None:
    accepted: list[str] = []

    def post(client: httpx.Client, process: int) -> None:
        for turn in range(10_000):
            batch = [track(0, messageId=f"{process} {turn} {one}") for one in range(5)]
            try:
                client.post("/v1/batch", json={"batch": batch}, timeout=PATIENCE).raise_for_status()
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
