"""Requests as Segue sends them to the providers, for tests of the sandbox."""

from base64 import b64encode
from typing import Any

import httpx
from starlette.applications import Starlette

from config.access.login import basic

MAIL = "/v3/mail/send"
SMS = "/2010-04-01/Accounts/AC1/Messages.json"
PUSH = "/v1/projects/shop/messages:send"
BEARER = {"Authorization": "Bearer key"}


LOGIN = "segue:only-for-tests"
AUTH = basic(LOGIN)
_HEADER = {"Authorization": f"Basic {b64encode(LOGIN.encode()).decode()}"}


def client_of(app: Starlette) -> httpx.AsyncClient:
    """A client of the app, with a login unless a request has its own key."""
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=_HEADER)


def mail(*message_ids: str, **changes: Any) -> dict[str, Any]:
    """SendGrid's body with one mail per message id, for the pass-through template."""
    return {
        "from": {"email": "hello@shop.example", "name": "The Shop"},
        "template_id": "d-pass-through",
        "personalizations": [
            {
                "to": [{"email": f"Customer{number}@example.com"}],
                "custom_args": {"message_id": number},
                "dynamic_template_data": {
                    "subject": f"Subject {number}",
                    "html": f"<p>Mail {number}</p>",
                    "text": f"Text {number}",
                },
            }
            for number in message_ids
        ],
    } | changes


def postmark_mail(message_id: str = "5", **changes: Any) -> dict[str, Any]:
    """One mail of Postmark's batch."""
    return {
        "From": '"The Shop" <hello@shop.example>',
        "To": f"Customer{message_id}@example.com",
        "Subject": f"Subject {message_id}",
        "HtmlBody": "<p>Hello</p>",
        "TextBody": "Hello",
        "Tag": "carts/reminder",
        "Metadata": {"message_id": message_id},
        "MessageStream": "broadcast",
    } | changes


def to(**changes: Any) -> dict[str, Any]:
    """The changes that give a mail one personalization with these fields."""
    return {"personalizations": [{"to": [{"email": "a@example.com"}]} | changes]}


def sms(message_id: str = "7", **changes: str) -> dict[str, str]:
    return {
        "To": "+447700900001",
        "From": "+447700900999",
        "Body": "Hello",
        "StatusCallback": f"http://127.0.0.1:8080/hooks/twilio/status?message_id={message_id}",
    } | changes


def push(message_id: str = "9", **changes: Any) -> dict[str, Any]:
    message = {
        "token": "token-1",
        "notification": {"title": "Hello", "body": "There"},
        "data": {"message_id": message_id},
    }
    return {"message": message | changes}


async def post_mail(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post(MAIL, json=body, headers=BEARER)


async def post_batch(client: httpx.AsyncClient, *mails: Any) -> httpx.Response:
    token = {"X-Postmark-Server-Token": "token"}
    return await client.post("/email/batch", json=mails, headers=token)


async def post_sms(client: httpx.AsyncClient, form: dict[str, str]) -> httpx.Response:
    return await client.post(SMS, data=form, auth=("AC1", "token"))


async def post_push(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post(PUSH, json=body, headers=BEARER)
