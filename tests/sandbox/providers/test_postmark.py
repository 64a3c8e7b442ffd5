"""What the sandbox accepts and refuses as Postmark."""

from typing import Any

import httpx
import pytest

from tests.support.providers.sandbox_requests import (
    post_batch,
    postmark_mail,
)

pytestmark = pytest.mark.anyio


async def test_postmark_answers_for_each_mail(client: httpx.AsyncClient) -> None:
    mails = [postmark_mail(str(number)) for number in range(500)]
    mails[7] = postmark_mail("7", To="nobody")
    answer = await post_batch(client, *mails)
    assert answer.status_code == 200
    codes = [one["ErrorCode"] for one in answer.json()]
    assert codes == [300 if number == 7 else 0 for number in range(500)]
    assert len({one.get("MessageID") for one in answer.json()}) == 500
    stats = (await client.get("/stats")).json()
    assert stats["accepted"] == {"email": 499, "sms": 0, "push": 0}
    kept = (await client.get("/message/17")).json()["accepted"][0]
    assert kept["address"] == "customer17@example.com"
    assert kept["provider_id"] == answer.json()[17]["MessageID"]
    assert (kept["content"]["from_name"], kept["content"]["from"]) == (
        *("The Shop", "hello@shop.example"),
    )
    assert kept["content"]["categories"] == ["carts/reminder", "broadcast"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"From": "nobody"}, 300),
        ({"To": "a@example.com, b@example.com"}, 300),
        ({"HtmlBody": "", "TextBody": ""}, 300),
        ({"Metadata": {"k" * 21: "v"}}, 300),
        ({"Metadata": {"message_id": 5}}, 403),
        ({"Tag": "x" * 1001}, 403),
        ({"TrackLinks": "All"}, 300),
        ({"MessageStream": "No Such Stream"}, 1235),
        ({"MessageStream": "inbound"}, 1236),
    ],
)
async def test_postmark_refuses_a_mail(
    client: httpx.AsyncClient, changes: dict[str, Any], code: int
) -> None:
    answer = await post_batch(client, postmark_mail(**changes), postmark_mail("6"))
    assert [one["ErrorCode"] for one in answer.json()] == [code, 0]


async def test_postmark_refuses_a_request(client: httpx.AsyncClient) -> None:
    assert (await client.post("/email/batch", json=[])).json()["ErrorCode"] == 10
    assert (await client.post("/email/batch", json=[])).status_code == 401
    token = {"X-Postmark-Server-Token": "token"}
    answer = await client.post("/email/batch", content=b"{", headers=token)
    assert (answer.status_code, answer.json()["ErrorCode"]) == (422, 402)
    answer = await post_batch(client, *[postmark_mail()] * 501)
    assert (answer.status_code, answer.json()["ErrorCode"]) == (422, 410)


async def test_postmark_refuses_inactive_recipients(client: httpx.AsyncClient) -> None:
    inactive = {"provider": "postmark", "answer": "opted_out", "numbers": ["customer5@example.com"]}
    assert (await client.post("/faults", json=inactive)).status_code == 204
    [answer] = (await post_batch(client, postmark_mail())).json()
    assert answer["ErrorCode"] == 406
