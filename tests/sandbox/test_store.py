"""What the sandbox stores and counts."""

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from sandbox.store import Accepted, Store
from tests.support.providers.sandbox_requests import (
    mail,
    post_mail,
    post_push,
    post_sms,
    push,
    sms,
)

pytestmark = pytest.mark.anyio


async def test_stats_count_each_id_once_and_the_duplicates(client: httpx.AsyncClient) -> None:
    await post_mail(client, mail("1", "2"))
    await post_sms(client, sms("7"))
    await post_sms(client, sms("7"))
    await post_sms(client, sms("8", StatusCallback=""))
    await post_push(client, push("9"))
    await post_push(client, push("9", token="gone"))
    # Another device of the same person; and one that got it twice.
    await post_push(client, push("9", token="token-2"))
    for _ in range(2):
        await post_push(client, push("10", token="token-2"))
    assert (await client.get("/stats")).json() == {
        "requests": 9,
        "accepted": {"email": 2, "sms": 1, "push": 2},
        "duplicates": 2,
        "refused": 1,
        "without_id": 1,
    }
    assert len((await client.get("/message/7")).json()["accepted"]) == 2
    assert (await client.get("/message/8")).status_code == 404


def test_the_store_keeps_accepted_messages(tmp_path: Path) -> None:
    one = Accepted(
        channel="sms",
        message_id="1",
        provider_id="SM1",
        address="+447700900001",
        title="Hello",
        content={"body": "Hello"},
    )
    first = Store(tmp_path / "sandbox.db")
    first.record([one], refused=False)
    first.close()
    again = Store(tmp_path / "sandbox.db")
    again.record([one], refused=False)
    assert [kept.seq for kept in again.with_ids(["1", "2"])] == [1, 2]
    assert again.stats()["duplicates"] == 1
    again.close()


def test_a_file_without_arrivals_gets_them(tmp_path: Path) -> None:
    """A file from before the sandbox stored the arrival time of a request."""
    with closing(sqlite3.connect(tmp_path / "sandbox.db")) as file, file:
        file.execute(
            "CREATE TABLE accepted (seq INTEGER PRIMARY KEY, channel, message_id, provider_id,"
            " address, title, content, accepted_at INTEGER NOT NULL)"
        )
        file.execute("INSERT INTO accepted VALUES (1, 'sms', '1', 'SM1', '+4477', 'x', '{}', 9)")
    store = Store(tmp_path / "sandbox.db")
    one = Accepted(
        channel="sms",
        message_id="1",
        provider_id="SM1",
        address="+447700900001",
        title="Hello",
        content={"body": "Hello"},
    )
    store.record([one], refused=False, arrived=2.5)
    assert [kept.arrived for kept in store.with_ids(["1"])] == [None, 2.5]
    store.close()
