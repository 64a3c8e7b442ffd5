"""The faults that the sandbox is told to have."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from sandbox.app import create_app
from sandbox.store import Store
from tests.support.providers.sandbox_requests import (
    AUTH,
    LOGIN,
    mail,
    post_batch,
    post_mail,
    post_push,
    post_sms,
    postmark_mail,
    push,
    sms,
)

pytestmark = pytest.mark.anyio


async def test_a_fault_applies_to_its_number_of_requests(client: httpx.AsyncClient) -> None:
    fault = {"provider": "sendgrid", "answer": 429, "retry_after": 3, "count": 2}
    await client.post("/faults", json=fault)
    answers = [await post_mail(client, mail(str(n))) for n in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 202]
    assert answers[0].headers["retry-after"] == "3"
    assert answers[0].headers["x-ratelimit-remaining"] == "0"
    assert (await client.get("/stats")).json()["refused"] == 2


async def test_each_provider_has_its_own_error_texts(client: httpx.AsyncClient) -> None:
    for provider in ("sendgrid", "postmark", "twilio", "fcm"):
        for status in (401, 403, 429, 500, 503):
            fault = {"provider": provider, "answer": status, "count": 1}
            await client.post("/faults", json=fault)
    for status in (401, 403, 429, 500, 503):
        by_mail = await post_mail(client, mail("1"))
        assert by_mail.status_code == status
        assert by_mail.json()["errors"][0]["message"]
        by_postmark = await post_batch(client, postmark_mail())
        assert by_postmark.status_code == status
        assert by_postmark.json()["ErrorCode"] == {401: 10, 503: 100}.get(status, status)
        by_sms = await post_sms(client, sms())
        assert by_sms.status_code == by_sms.json()["status"] == status
        assert by_sms.json()["code"] == (20003 if status == 401 else 20000 + status)
        by_push = await post_push(client, push())
        assert by_push.status_code == by_push.json()["error"]["code"] == status
    assert (await post_sms(client, sms())).status_code == 201


async def test_a_share_of_requests_fails_the_same_way_every_time(client: httpx.AsyncClient) -> None:
    async def run() -> list[int]:
        await client.delete("/faults")
        fault = {"provider": "twilio", "answer": 500, "share": 0.4, "seed": 7}
        await client.post("/faults", json=fault)
        return [(await post_sms(client, sms())).status_code for _ in range(40)]

    first = await run()
    assert set(first) == {201, 500}
    assert await run() == first


async def test_a_slow_provider_still_answers(client: httpx.AsyncClient) -> None:
    fault = {"provider": "fcm", "answer": "slow", "seconds": 0.01, "count": 1}
    await client.post("/faults", json=fault)
    assert (await post_push(client, push())).status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"provider": "sendgrid", "answer": 429},
        {"provider": "sendgrid", "answer": 429, "count": 1, "share": 0.5},
        {"provider": "sendgrid", "answer": 418, "count": 1},
        {"provider": "post office", "answer": 500, "count": 1},
        {"provider": "sendgrid", "answer": "opted_out", "numbers": []},
    ],
)
async def test_an_invalid_fault_is_refused(
    client: httpx.AsyncClient, fault: dict[str, Any]
) -> None:
    answer = await client.post("/faults", json=fault)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["msg"]


@pytest.fixture
def server(store: Store) -> Iterator[str]:
    """The URL of a real server on its own port."""
    config = uvicorn.Config(
        create_app(store, login=LOGIN), port=0, access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


async def test_a_provider_hangs_up_after_it_took_the_message(server: str) -> None:
    async with httpx.AsyncClient(base_url=server, auth=AUTH) as client:
        await client.post("/faults", json={"provider": "twilio", "answer": "drop", "count": 2})
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await post_sms(client, sms("7"))
        assert (await post_sms(client, sms("8", To="junk"))).json()["code"] == 21211
        assert (await post_sms(client, sms("8"))).status_code == 201
        assert (await client.get("/stats")).json()["accepted"]["sms"] == 2
