"""Webhook requests as the providers build and sign them, for tests of the receiver.

The signing follows the providers' documentation and shares no code with the product.
"""

import asyncio
import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping
from itertools import count
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import Message, Scope

from channels.providers import postmark, sendgrid, twilio, twilio_whatsapp
from channels.providers.registry import sandbox_settings
from config.access.sandbox_keys import sandbox_secret
from config.clock.times import Instant
from config.settings import Settings
from flows.app import Segue
from flows.http.app import create_app

FORM = {"content-type": "application/x-www-form-urlencoded"}
_numbers = count(1)


def sendgrid_key(settings: Settings) -> ec.EllipticCurvePrivateKey:
    """The key with which this installation's sandbox signs as SendGrid."""
    return sendgrid.sandbox_key(sandbox_secret(settings, "sendgrid"))


def twilio_token(settings: Settings) -> str:
    """The token with which this installation's sandbox signs as Twilio."""
    return sandbox_settings(twilio.PROVIDER, settings).auth_token.get_secret_value()


def logged_in_as_postmark(settings: Settings) -> dict[str, str]:
    """The headers of events that this installation's sandbox posts as Postmark."""
    password = sandbox_settings(postmark.PROVIDER, settings).webhook_password.get_secret_value()
    login = b64encode(f"segue:{password}".encode()).decode()
    return {"content-type": "application/json", "authorization": f"Basic {login}"}


def signed_by_sendgrid(
    key: ec.EllipticCurvePrivateKey, body: bytes, timestamp: Instant | str
) -> dict[str, str]:
    """The headers of SendGrid's signed event webhook."""
    signature = key.sign(str(timestamp).encode() + body, ec.ECDSA(hashes.SHA256()))
    return {
        "content-type": "application/json",
        "x-twilio-email-event-webhook-signature": b64encode(signature).decode(),
        "x-twilio-email-event-webhook-timestamp": str(timestamp),
    }


def signed_by_twilio(token: str, url: str, form: Mapping[str, str]) -> dict[str, str]:
    """The headers of Twilio's form posts."""
    text = url + "".join(name + form[name] for name in sorted(form))
    mac = hmac.digest(token.encode(), text.encode(), hashlib.sha1)
    return {**FORM, "x-twilio-signature": b64encode(mac).decode()}


def mail_event(
    event: str, message_id: int | None, email: str | None, at: Instant | None = None, **more: Any
) -> dict[str, Any]:
    """An event of SendGrid's webhook, with a field that is not documented."""
    given = {
        "email": email,
        "timestamp": at,
        "message_id": None if message_id is None else str(message_id),
        "event": event,
        "sg_event_id": f"event-{next(_numbers)}",
        "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0",
        "smtp-id": "<14c5d75ce93.dfd.64b469@ismtpd-555>",
        "category": "a category",
        "a field of tomorrow": {"nested": [1, None]},
        **more,
    }
    return {name: value for name, value in given.items() if value is not None}


class FromProviders:
    """Posts to one Segue's receiver as the sandbox's providers do."""

    def __init__(self, segue: Segue) -> None:
        self.settings: Settings = segue.settings
        self.woken = 0
        self._app = create_app(segue, self._wake)

    def _wake(self, _buckets: object) -> None:
        self.woken += 1

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """Post a body unchanged."""

        async def posting() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://in") as client:
                return await client.post(path, content=body, headers=headers)

        return asyncio.run(posting())

    def unread(self, path: str, headers: Mapping[str, str]) -> tuple[int, int]:
        """Send a request. Returns the answer's status and how often its body was read."""
        statuses: list[int] = []
        asked = 0

        async def receive() -> Message:
            nonlocal asked
            asked += 1
            return {"type": "http.request", "body": b"[]", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": raw,
        }
        asyncio.run(self._app(scope, receive, send))
        [status] = statuses
        return status, asked

    def mail(self, *events: dict[str, Any], signed_at: Instant = 0) -> httpx.Response:
        """Post a batch of events as SendGrid."""
        body = orjson.dumps(events) + b"\r\n"
        headers = signed_by_sendgrid(sendgrid_key(self.settings), body, signed_at)
        return self.post("/hooks/sendgrid", body, headers)

    def event(self, record: str, message_id: int | None, **fields: Any) -> httpx.Response:
        """Post an event as Postmark."""
        metadata = {} if message_id is None else {"message_id": str(message_id)}
        event = {"RecordType": record, "Metadata": metadata, "OfTomorrow": [None], **fields}
        headers = logged_in_as_postmark(self.settings)
        return self.post("/hooks/postmark", orjson.dumps(event), headers)

    def status(self, message_id: int, status: str, to: str, **more: str) -> httpx.Response:
        """Post the status of a text message as Twilio."""
        form = {
            "MessageSid": f"SM{message_id:032}",
            "MessageStatus": status,
            "To": to,
            "From": "+15005550006",
            "ApiVersion": "2010-04-01",
            "SmsStatus": status,
            "AFieldOfTomorrow": "",
            **more,
        }
        return self._form(f"status?message_id={message_id}", form, to)

    def text(self, sender: str, body: str, sid: str | None = None, **more: str) -> httpx.Response:
        """Post a text message of a customer as Twilio."""
        form = {
            "MessageSid": sid or f"SM{next(_numbers):032}",
            "From": sender,
            "To": "+15005550006",
            "Body": body,
            "NumMedia": "0",
            "FromCity": "",
            **more,
        }
        return self._form("inbound", form, sender)

    def _form(self, hook: str, form: Mapping[str, str], customer: str) -> httpx.Response:
        """Post to the webhook of the provider that the customer's address belongs to."""
        provider = twilio_whatsapp if customer.startswith("whatsapp:") else twilio
        token = sandbox_settings(provider.PROVIDER, self.settings).auth_token.get_secret_value()
        path = f"/hooks/{provider.PROVIDER.name}/{hook}"
        url = f"{self.settings.public_url}{path}"
        headers = signed_by_twilio(token, url, form)
        return self.post(path, urlencode(form).encode(), headers)
