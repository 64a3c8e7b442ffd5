"""Sample messages, and ways to send them, for the tests of the providers."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import respx

from channels.kinds.email import EmailContent
from channels.kinds.push import PushContent
from channels.kinds.sms import SMSContent
from channels.kinds.whatsapp import WhatsAppContent
from channels.providers.base import ConnectedProvider
from channels.providers.registry import known_providers, sandbox_settings
from channels.providers.sending import Outgoing, SendOutcome
from channels.providers.transport import Transport
from config.channels import ChannelName, Content
from config.settings import Settings

SANDBOX = Settings(providers="sandbox", sandbox_port=8025)
# All settings that live providers need.
LIVE: dict[str, Any] = {
    "providers": "live",
    "public_url": "https://journeys.your.shop",
    "secret_key": "a secret key of our own, which is long",
    "write_key": "a write key of our own, which is long",
    "hook_secret": "a hook secret of our own, which is long",
    "call_secret": "a call secret of our own, which is long",
    "sendgrid_api_key": "SG.key",
    "sendgrid_from": "hello@your.shop",
    # from the tests of SendGrid's own SDK
    "sendgrid_webhook_key": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8"
    "kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
    "twilio_account_sid": "AC1",
    "twilio_auth_token": "secret",
    "twilio_from": "+15005550006",
    "whatsapp_provider": "twilio_whatsapp",
    "twilio_whatsapp_from": "+14155238886",
    "fcm_credentials_file": "firebase.json",
}
CONTENT: dict[ChannelName, Content] = {
    "email": EmailContent("Hello", "<p>Hello</p>", "Hello"),
    "sms": SMSContent("Hello – reply STOP to end"),
    "push": PushContent(
        "Hello", "World", link="https://shop.example/cart", image="https://i.example/a.png"
    ),
    "whatsapp": WhatsAppContent("Hello"),
}
TO: dict[ChannelName, str] = {
    "email": "ann@example.com",
    "sms": "+4915112345678",
    "push": "token-1",
    "whatsapp": "+4915112345678",
}
CHANNELS: tuple[ChannelName, ...] = ("email", "sms", "push", "whatsapp")
PROVIDERS = tuple(known_providers())
CHANNEL_OF = {name: one.channel for name, one in known_providers().items()}


def outgoing(channel: ChannelName, message_id: int = 7, **changes: Any) -> Outgoing:
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


def connected(name: str, settings: Settings = SANDBOX, **own: Any) -> ConnectedProvider:
    """A provider that sends to the sandbox, with some of its own settings changed."""
    provider = known_providers()[name]
    account = sandbox_settings(provider, settings).model_copy(update=own)
    return ConnectedProvider(
        name=name, channel=provider.channel, sender=provider.connect(account, settings)
    )


async def may_leave() -> bool:
    """A check before the request that always allows it."""
    return True


def post(
    provider: ConnectedProvider, batch: Sequence[Outgoing], settings: Settings = SANDBOX
) -> list[SendOutcome]:
    async def run() -> list[SendOutcome]:
        async with Transport(settings) as transport:
            return await transport.post(provider, batch, may_leave)

    return asyncio.run(run())


def answered(name: str, response: httpx.Response | type[Exception]) -> SendOutcome:
    """The outcome of one message when the provider answers so."""
    with respx.mock() as mock:
        mock.post(host="127.0.0.1").mock(side_effect=[response])
        [outcome] = post(connected(name), [outgoing(CHANNEL_OF[name])])
    assert outcome.message_id == 7
    return outcome


def refused(status: int, *fields: str | None, message: str = "words") -> httpx.Response:
    errors = [{"message": message, "field": field, "help": None} for field in fields]
    return httpx.Response(status, json={"errors": errors})
