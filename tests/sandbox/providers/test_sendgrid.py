"""What the sandbox accepts and refuses as SendGrid."""

import time
from typing import Any

import httpx
import pytest

from config.clock.times import HOUR
from tests.support.providers.sandbox_requests import (
    BEARER,
    MAIL,
    mail,
    post_mail,
    to,
)

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000


async def test_sendgrid_takes_a_thousand_mails_in_one_request(client: httpx.AsyncClient) -> None:
    answer = await post_mail(client, mail(*map(str, range(1000))))
    assert answer.status_code == 202
    assert answer.content == b""
    assert answer.headers["x-message-id"]
    assert answer.headers["x-ratelimit-remaining"] == "599"
    stats = (await client.get("/stats")).json()
    assert stats["accepted"] == {"email": 1000, "sms": 0, "push": 0}
    kept = (await client.get("/message/17")).json()["accepted"][0]
    assert kept["address"] == "customer17@example.com"
    assert kept["content"]["subject"] == "Subject 17"
    assert kept["content"]["html"] == "<p>Mail 17</p>"


async def test_sendgrid_takes_a_mail_with_its_own_content(client: httpx.AsyncClient) -> None:
    body = to(custom_args={"message_id": "1"}) | {
        "from": {"email": "hello@shop.example"},
        "subject": "For all",
        "content": [
            {"type": "text/plain", "value": "Plain"},
            {"type": "text/html", "value": "<b>Rich</b>"},
        ],
        "send_at": int(time.time()) + 71 * HOUR,
        "categories": ["a", "b"],
        "headers": {"List-Unsubscribe": "<https://shop.example/u/1>"},
    }
    assert (await post_mail(client, body)).status_code == 202
    content = (await client.get("/message/1")).json()["accepted"][0]["content"]
    assert (content["subject"], content["text"], content["html"]) == (
        "For all",
        "Plain",
        "<b>Rich</b>",
    )


async def test_sendgrids_own_sandbox_mode_answers_200_and_keeps_nothing(
    client: httpx.AsyncClient,
) -> None:
    quiet = mail("1", mail_settings={"sandbox_mode": {"enable": True}})
    assert (await post_mail(client, quiet)).status_code == 200
    assert (await client.get("/stats")).json()["accepted"]["email"] == 0


def _content(*parts: tuple[str, str]) -> dict[str, Any]:
    values = [{"type": kind, "value": value} for kind, value in parts]
    return {"template_id": None, "subject": "S", "content": values}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (mail(*map(str, range(1001))), "personalizations"),
        (mail(), "personalizations"),
        (
            mail("1", **to(cc=[{"email": f"c{n}@example.com"} for n in range(1000)])),
            "personalizations",
        ),
        (mail("1", "1"), "personalizations"),
        (mail("1", **to(bcc=[{"email": "A@example.com"}])), "personalizations"),
        (mail("1", **to(to=[])), "personalizations.0.to"),
        (mail("1", **to(to=[{"name": "A"}])), "personalizations.0.to.0.email"),
        (mail("1", **to(to=[{"email": "junk"}])), "personalizations.0.to.0.email"),
        ({k: v for k, v in mail("1").items() if k != "from"}, "from"),
        (mail("1", **{"from": {"email": "junk"}}), "from.email"),
        (mail("1", reply_to={"email": "junk"}), "reply_to.email"),
        (mail("1", template_id=None, content=[{"type": "text/plain", "value": "x"}]), "subject"),
        (mail("1", template_id=None, subject="S"), "content"),
        (mail("1") | _content(), "content"),
        (mail("1") | _content(("text/plain", "")), "content.0.value"),
        (mail("1") | _content(("text/html", "x"), ("text/plain", "x")), "content"),
        (mail("1", subject=""), "subject"),
        (mail("1", headers={"DKIM-Signature": "x"}), "headers"),
        (mail("1", **to(headers={"subject": "x"})), "personalizations.0.headers"),
        (
            mail("1", **to(custom_args={"message_id": "x" * 10_000})),
            "personalizations.0.custom_args",
        ),
        (
            mail("1", **to(custom_args={"message_id": 1})),
            "personalizations.0.custom_args.message_id",
        ),
        (mail("1", custom_args="text"), "custom_args"),
        (mail("1", **to(substitutions={"a": "x" * 10_000})), "personalizations.0.substitutions"),
        (mail("1", categories=[str(n) for n in range(11)]), "categories"),
        (mail("1", categories=["twice", "twice"]), "categories"),
        (mail("1", send_at=NOW * 2), "send_at"),
        (mail("1", **to(send_at=NOW * 2)), "personalizations.0.send_at"),
    ],
)
async def test_sendgrid_refuses(client: httpx.AsyncClient, body: Any, field: str) -> None:
    answer = await post_mail(client, body)
    assert answer.status_code == 400
    errors = answer.json()["errors"]
    assert field in [error["field"] for error in errors]
    assert all(set(error) == {"message", "field", "help"} and error["message"] for error in errors)
    assert (await client.get("/stats")).json() == {
        "requests": 1,
        "accepted": {"email": 0, "sms": 0, "push": 0},
        "duplicates": 0,
        "refused": 1,
        "without_id": 0,
    }


async def test_sendgrid_names_the_type_that_it_wanted(client: httpx.AsyncClient) -> None:
    [error] = (await post_mail(client, mail("1", custom_args="text"))).json()["errors"]
    assert error["message"] == "Invalid type. Expected: object, given: string."
    assert error["help"].endswith("errors.html#message.custom_args")


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "application/json"}, b"{}", 401),
        (BEARER | {"Content-Type": "text/plain"}, b"{}", 415),
        (BEARER | {"Content-Type": "application/json"}, b"{", 400),
        (BEARER | {"Content-Type": "application/json"}, b" " * 30_000_001, 413),
    ],
)
async def test_sendgrid_refuses_the_request_itself(
    client: httpx.AsyncClient, headers: dict[str, str], content: bytes, status: int
) -> None:
    answer = await client.post(MAIL, content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["field"] is None
