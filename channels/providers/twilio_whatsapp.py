"""WhatsApp by Twilio: the Messages resource with `whatsapp:` addresses, and its webhooks.

Authentication and webhooks are those of twilio.py. Free text has a Body; a template has a
ContentSid and ContentVariables. Sources: Twilio's pages "Messages resource", "Send WhatsApp
notification messages with templates" and "Error and warning dictionary".
"""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from channels.kinds.whatsapp import WhatsAppContent
from channels.outbox.replies import stop_words_of
from channels.providers import twilio
from channels.providers.base import Provider, ProviderSettings
from channels.providers.sending import ErrorMeaning, Outgoing, ProviderRequest, SendOutcome
from channels.providers.webhook import Feedback, Webhook, WebhookRequest
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


class TwilioWhatsAppSettings(ProviderSettings):
    """The account in SEGUE_TWILIO_*, and SEGUE_TWILIO_WHATSAPP_FROM."""

    model_config = SettingsConfigDict(env_prefix="SEGUE_TWILIO_WHATSAPP_")

    url: Url = Field(default="https://api.twilio.com", validation_alias="SEGUE_TWILIO_URL")
    account_sid: str = Field(default="", validation_alias="SEGUE_TWILIO_ACCOUNT_SID")
    auth_token: SecretStr = Field(default=SecretStr(""), validation_alias="SEGUE_TWILIO_AUTH_TOKEN")
    sender: str = Field(
        default="",
        validation_alias="SEGUE_TWILIO_WHATSAPP_FROM",
        description="A WhatsApp sender in E.164, or the SID of a messaging service (MG...).",
    )

    def sandbox_account(self, secret: bytes) -> Mapping[str, Any]:
        """The sandbox signs its webhooks with this auth token."""
        return {
            "account_sid": "AC" + "0" * 32,
            "auth_token": SecretStr(secret.hex()),
            "sender": self.sender or SANDBOX_NUMBER,
        }


class TwilioWhatsApp:
    """One WhatsApp message in a request."""

    batch_size = 1
    auth: httpx.Auth | None = None

    def __init__(self, own: TwilioWhatsAppSettings, settings: Settings) -> None:
        self._url = f"{own.url}/2010-04-01/Accounts/{own.account_sid}/Messages.json"
        login = f"{own.account_sid}:{own.auth_token.get_secret_value()}"
        self._headers = {
            "Authorization": f"Basic {b64encode(login.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
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
        return ProviderRequest(
            "POST", self._url, headers=self._headers, content=urlencode(form).encode()
        )

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
    token, words = own.auth_token.get_secret_value(), stop_words_of(policy)
    admit = partial(twilio.signature_of, token)

    def status(request: WebhookRequest) -> list[Feedback]:
        return twilio.read_status(twilio.fields(token, request), request.url, ERRORS)

    def inbound(request: WebhookRequest) -> list[Feedback]:
        return twilio.read_inbound(twilio.fields(token, request), words)

    return [
        Webhook(
            "/hooks/twilio_whatsapp/status",
            about="Delivery reports on WhatsApp messages, from Twilio",
            admit=admit,
            read=status,
            limit=twilio.BODY_LIMIT,
        ),
        Webhook(
            "/hooks/twilio_whatsapp/inbound",
            about="Inbound WhatsApp messages, from Twilio",
            admit=admit,
            read=inbound,
            limit=twilio.BODY_LIMIT,
            answer=twilio.SILENCE,
            answer_type="text/xml",
        ),
    ]


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
