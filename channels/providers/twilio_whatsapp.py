"""WhatsApp by Twilio: the Messages resource with `whatsapp:` addresses, and its webhooks.

Authentication and webhooks are those of twilio.py. Free text has a Body; a template has a
ContentSid and ContentVariables. Sources: Twilio's pages "Messages resource", "Send WhatsApp
notification messages with templates" and "Error and warning dictionary".
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from channels.kinds.whatsapp import WhatsAppContent
from channels.providers import twilio
from channels.providers.base import Provider
from channels.providers.sending import (
    Authorize,
    ErrorMeaning,
    Outgoing,
    ProviderRequest,
    SendOutcome,
)
from channels.providers.webhook import Webhook
from config.policy import Policy
from config.required import Need
from config.settings import Settings, Url

# A WhatsApp sender in E.164, or a messaging service that has one.
_SENDER = re.compile(r"\+[1-9]\d{6,14}|MG[0-9a-fA-F]{32}")
# The number of Twilio's own WhatsApp sandbox.
SANDBOX_NUMBER = "+14155238886"

# Error codes of WhatsApp, in addition to those of SMS.
ERRORS: Mapping[int, ErrorMeaning] = {
    **twilio.ERRORS,
    21212: ErrorMeaning("stopped", "SEGUE_TWILIO_WHATSAPP_FROM is not a valid sender"),
    21603: ErrorMeaning("stopped", "SEGUE_TWILIO_WHATSAPP_FROM is missing"),
    21655: ErrorMeaning("failed", "no template has this ContentSid"),
    21656: ErrorMeaning("failed", "the variables do not match the template"),
    63003: ErrorMeaning("failed", "the number is not on WhatsApp", "unregistered"),
    63007: ErrorMeaning("stopped", "SEGUE_TWILIO_WHATSAPP_FROM is not a WhatsApp sender"),
    63016: ErrorMeaning("failed", "free text outside the 24-hour session"),
    63018: ErrorMeaning("retry", "too many requests"),
    63024: ErrorMeaning("failed", "the number can't receive WhatsApp messages", "unregistered"),
    63049: ErrorMeaning("failed", "Meta did not deliver the message, to limit marketing messages"),
}


class TwilioWhatsAppSettings(twilio.TwilioSettings):
    """The account in SEGUE_TWILIO_*, and SEGUE_TWILIO_WHATSAPP_FROM."""

    model_config = SettingsConfigDict(env_prefix="SEGUE_TWILIO_WHATSAPP_")

    url: Url = Field(
        default="https://api.twilio.com",
        validation_alias="SEGUE_TWILIO_URL",
        description="The same as for `twilio`.",
    )
    account_sid: str = Field(
        default="",
        validation_alias="SEGUE_TWILIO_ACCOUNT_SID",
        description="The same as for `twilio`.",
    )
    auth_token: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="SEGUE_TWILIO_AUTH_TOKEN",
        description="The same as for `twilio`.",
    )
    sender: str = Field(
        default="",
        validation_alias="SEGUE_TWILIO_WHATSAPP_FROM",
        description="A WhatsApp sender in E.164, or the SID of a messaging service (MG...).",
    )

    def sandbox_account(self, secret: bytes) -> Mapping[str, Any]:
        return {**super().sandbox_account(secret), "sender": self.sender or SANDBOX_NUMBER}


class TwilioWhatsApp:
    """One WhatsApp message in a request."""

    batch_size = 1
    auth: Authorize | None = None

    def __init__(self, own: TwilioWhatsAppSettings, settings: Settings) -> None:
        self._request = twilio.request_to(own)
        self._sender = (
            {"MessagingServiceSid": own.sender}
            if own.sender.startswith("MG")
            else {"From": twilio.WHATSAPP + own.sender}
        )
        self._callback = f"{settings.public_url}/hooks/twilio_whatsapp/status?message_id="

    def prepare(self, batch: Sequence[Outgoing]) -> ProviderRequest:
        """The StatusCallback has our message id, because Twilio returns no other field of ours."""
        [one] = batch
        if not isinstance(one.content, WhatsAppContent):
            raise TypeError(f"message {one.message_id} is not a WhatsApp message")
        form = {
            "To": twilio.WHATSAPP + one.to,
            **self._sender,
            **_content_fields(one.content),
            "StatusCallback": f"{self._callback}{one.message_id}",
            **twilio.validity(one.ttl),
        }
        return self._request(form)

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[SendOutcome]:
        """By the error code if it is known, else by the HTTP status."""
        return twilio.read_answer(status, headers, body, batch, ERRORS)


def _content_fields(content: WhatsAppContent) -> dict[str, str]:
    if content.template is None:
        return {"Body": content.body}
    variables = orjson.dumps(dict(content.variables)).decode()
    return {"ContentSid": content.template, "ContentVariables": variables}


def webhooks(own: TwilioWhatsAppSettings, _settings: Settings, policy: Policy) -> list[Webhook]:
    """One webhook for delivery reports and one for inbound messages."""
    return twilio.webhooks_of("twilio_whatsapp", "WhatsApp messages", own, policy, ERRORS)


PROVIDER = Provider(
    name="twilio_whatsapp",
    channel="whatsapp",
    default=True,
    settings=TwilioWhatsAppSettings,
    connect=TwilioWhatsApp,
    webhooks=webhooks,
    needs=(
        Need("account_sid", "no WhatsApp message can be sent"),
        Need(
            "auth_token",
            "no WhatsApp message can be sent, and Twilio's webhooks are refused, so every STOP is "
            "lost",
        ),
        Need(
            "sender",
            "it must be a WhatsApp sender in E.164, or a messaging service (MG...) that has one",
            _SENDER.fullmatch,
        ),
    ),
)
