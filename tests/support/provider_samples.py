"""Messages to hand over, and ways to hand them over, for the tests of the providers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import respx
from pydantic import SecretStr

from channels.providers.base import Outcome, Outgoing, Provider, providers
from channels.providers.transport import Transport
from channels.templates.content import Content, EmailContent, PushContent, SMSContent
from config.policy import Channel
from config.settings import Settings

SANDBOX = Settings(providers="sandbox", sandbox_port=8025)
# All that real messages need to be set.
LIVE: dict[str, Any] = {
    "providers": "live",
    "public_url": "https://journeys.your.shop",
    "secret_key": SecretStr("a secret key of our own, which is long"),
    "write_key": SecretStr("a write key of our own, which is long"),
    "hook_secret": SecretStr("a hook secret of our own, which is long"),
    "call_secret": SecretStr("a call secret of our own, which is long"),
    "sendgrid_api_key": SecretStr("SG.key"),
    "sendgrid_from": "hello@your.shop",
    # from the tests of SendGrid's own SDK
    "sendgrid_webhook_key": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8"
    "kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
    "twilio_account_sid": "AC1",
    "twilio_auth_token": SecretStr("secret"),
    "twilio_from": "+15005550006",
    "fcm_credentials_file": Path("firebase.json"),
}
CONTENT: dict[Channel, Content] = {
    "email": EmailContent("Hello", "<p>Hello</p>", "Hello"),
    "sms": SMSContent("Hello – reply STOP to end"),
    "push": PushContent("Hello", "World", "https://shop.example/cart", "https://i.example/a.png"),
}
TO: dict[Channel, str] = {"email": "ann@example.com", "sms": "+4915112345678", "push": "token-1"}
CHANNELS: tuple[Channel, ...] = ("email", "sms", "push")


def outgoing(channel: Channel, message_id: int = 7, **changes: Any) -> Outgoing:
    values: dict[str, Any] = {
        "message_id": message_id,
        "to": TO[channel],
        "content": CONTENT[channel],
        "platform": None,
        "unsubscribe_url": None,
        "topic": "promotions",
        "kind": "marketing",
        "journey": "carts",
        "step": "reminder",
        "ttl": None,
        "now": 1_772_426_000,
    }
    return Outgoing(**(values | changes))


def mails(number: int) -> list[Outgoing]:
    return [outgoing("email", i, to=f"p{i}@example.com") for i in range(number)]


def provider(channel: Channel, settings: Settings = SANDBOX) -> Provider:
    return providers(settings)[channel]


async def may_leave() -> bool:
    """Nothing speaks against it."""
    return True


def post(
    provider: Provider, batch: Sequence[Outgoing], settings: Settings = SANDBOX
) -> list[Outcome]:
    async def run() -> list[Outcome]:
        async with Transport(settings) as transport:
            return await transport.post(provider, batch, may_leave)

    return asyncio.run(run())


def answered(channel: Channel, response: httpx.Response | type[Exception]) -> Outcome:
    """What one message of that channel becomes when the provider answers so."""
    with respx.mock() as mock:
        mock.post(host="127.0.0.1").mock(side_effect=[response])
        [outcome] = post(provider(channel), [outgoing(channel)])
    assert outcome.message_id == 7
    return outcome


def refused(status: int, *fields: str | None, message: str = "words") -> httpx.Response:
    errors = [{"message": message, "field": field, "help": None} for field in fields]
    return httpx.Response(status, json={"errors": errors})
