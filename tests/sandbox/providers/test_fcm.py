"""What the sandbox accepts and refuses as FCM."""

from typing import Any

import httpx
import pytest

from tests.support.providers.sandbox_requests import (
    PUSH,
    post_push,
    push,
)

pytestmark = pytest.mark.anyio


async def test_fcm_answers_with_the_messages_name(client: httpx.AsyncClient) -> None:
    apns = {"headers": {"apns-collapse-id": "1"}, "payload": {"aps": {"sound": "default"}}}
    answer = await post_push(
        client, push("9", apns=apns, android={"collapseKey": "1", "ttl": "3600s"})
    )
    assert answer.status_code == 200
    assert answer.json()["name"].startswith("projects/shop/messages/")
    kept = (await client.get("/message/9")).json()["accepted"][0]
    assert (kept["address"], kept["title"]) == ("token-1", "Hello")
    assert kept["provider_id"] == answer.json()["name"]


async def test_fcms_dry_run_keeps_nothing(client: httpx.AsyncClient) -> None:
    assert (await post_push(client, push() | {"validate_only": True})).status_code == 200
    assert (await client.get("/stats")).json()["accepted"]["push"] == 0


@pytest.mark.parametrize(
    ("body", "status", "canonical", "code"),
    [
        (push(token="gone-1"), 404, "NOT_FOUND", "UNREGISTERED"),
        (push(token="bad-1"), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(token="no token"), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(token=""), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(token=None), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(topic="news"), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(data={"from": "me"}), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(data={"a": "x" * 4096}), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (push(data={"a": 1}), 400, "INVALID_ARGUMENT", None),
        (push(colour="red"), 400, "INVALID_ARGUMENT", None),
        (push(android={"ttl": "soon"}), 400, "INVALID_ARGUMENT", None),
        ({}, 400, "INVALID_ARGUMENT", None),
    ],
)
async def test_fcm_refuses(
    client: httpx.AsyncClient, body: Any, status: int, canonical: str, code: str | None
) -> None:
    answer = await post_push(client, body)
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == status
    assert error["status"] == canonical
    assert error["message"]
    assert [detail.get("errorCode") for detail in error["details"]] == [code]


async def test_fcm_names_the_field_that_it_does_not_know(client: httpx.AsyncClient) -> None:
    body = push(notification={"title": "x", "colour": "red"})
    [detail] = (await post_push(client, body)).json()["error"]["details"]
    [violation] = detail["fieldViolations"]
    assert violation["field"] == "message.notification"
    assert 'Unknown name "colour"' in violation["description"]


async def test_fcm_refuses_strangers(client: httpx.AsyncClient) -> None:
    answer = await client.post(PUSH, json=push())
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
