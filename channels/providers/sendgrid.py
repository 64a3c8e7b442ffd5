"""E-mail by SendGrid: `POST /v3/mail/send`, and its signed event webhook.

A request has the same content for all recipients, so each mail is a request of its own. With a
pass-through dynamic template (`{{{subject}}}`, `{{{html}}}`, `{{{text}}}`) in
SEGUE_SENDGRID_TEMPLATE_ID a request has up to 1000 mails.

Sources: SendGrid's pages "Mail Send", "Errors", "Limitations", "Event Webhook Reference", "Event
Webhook Security Features" and "Troubleshooting", and from the checks in its SDK.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence, Set
from typing import Any

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from sendgrid.helpers.eventwebhook import EventWebhook

from channels.kinds.email import EmailContent
from channels.links import one_click_headers, our_pages, own_anchors
from channels.providers.base import Provider, ProviderSettings
from channels.providers.sending import (
    Authorize,
    DoesNotFit,
    Outgoing,
    ProviderRequest,
    SendOutcome,
    Suppress,
    bounded,
    json_object,
    outcomes,
    result_of,
    retry_after,
    server_time,
)
from channels.providers.webhook import (
    Feedback,
    FeedbackKind,
    Refused,
    Unreadable,
    Webhook,
    WebhookRequest,
    digest,
    our_id,
    text_of,
    without_address,
)
from config.clock.times import MINUTE, Seconds
from config.errors import SegueError
from config.policy import Policy
from config.required import Need
from config.settings import Settings, Url
from config.text.json_input import NoJSON, read_json
from profiles.identity.person import address_of

MAX_BATCH = 1000
# Bytes; the limit of a request is 30 MB.
MAX_BYTES = 29_000_000
# Links in the text part can't be excluded from tracking one by one, so tracking is off there. The
# API requires both fields.
_TRACKING = {"click_tracking": {"enable": True, "enable_text": False}}
# Fields of the request that come from settings.
_FROM_SETTINGS = ("from", "reply_to", "template_id")

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
# The largest difference between the time of the signature and now. SendGrid documents no limit; it
# retries a request for 24 hours.
TOLERANCE: Seconds = 5 * MINUTE
# Bytes; SendGrid posts at most 768 KB.
BODY_LIMIT = 1_000 * 1024
# Characters of an ECDSA signature in base64: at most 96 for P-256, 188 for the largest curve.
_LONGEST_SIGNATURE = 200

_KINDS: Mapping[str, FeedbackKind] = {
    "processed": "sent",
    "deferred": "sent",
    "delivered": "delivered",
    "open": "opened",
    "click": "clicked",
    "bounce": "bounced",
    "dropped": "failed",
    "spamreport": "complained",
    "unsubscribe": "unsubscribed",
    "group_unsubscribe": "unsubscribed",
    "group_resubscribe": "resubscribed",
}
# By reason of a `dropped` event.
_DROPPED: Mapping[str, Suppress] = {
    "bounced address": "bounced",
    "invalid": "bounced",
    "spam reporting address": "complained",
    "unsubscribed address": "opted_out",
}


class SendGridSettings(ProviderSettings):
    """SEGUE_SENDGRID_*."""

    model_config = SettingsConfigDict(env_prefix="SEGUE_SENDGRID_")

    url: Url = Field(
        default="https://api.sendgrid.com",
        description="The base URL of SendGrid's API; https://api.eu.sendgrid.com for an account in "
        "the EU.",
    )
    api_key: SecretStr = Field(
        default=SecretStr(""), description="An API key with the right to send mail."
    )
    sender: str = Field(
        default="hello@shop.example",
        validation_alias="SEGUE_SENDGRID_FROM",
        description="The From address. Real messages need a verified sender in SendGrid.",
    )
    reply_to: str = Field(default="", description="The Reply-To address. Empty: none.")
    template_id: str = Field(
        default="",
        description="ID of a pass-through dynamic template; allows 1000 mails a request.",
    )
    webhook_key: str = Field(
        default="", description="The verification key of SendGrid's signed event webhook."
    )

    def sandbox_account(self, secret: bytes) -> Mapping[str, Any]:
        """The sandbox signs its events with `sandbox_key`."""
        public = sandbox_key(secret).public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {"api_key": SecretStr("SG.sandbox"), "webhook_key": b64encode(der).decode()}


def sandbox_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The private key with which the sandbox signs, from the secret of the installation."""
    # 31 bytes keep the number below the order of P-256, which is a little less than 2 ** 256.
    return ec.derive_private_key(int.from_bytes(secret[:31]) + 1, ec.SECP256R1())


class SendGrid:
    """One mail in a request, or up to 1000 with a pass-through template."""

    auth: Authorize | None = None

    def __init__(self, own: SendGridSettings, settings: Settings) -> None:
        self.batch_size = MAX_BATCH if own.template_id else 1
        self._url = f"{own.url}/v3/mail/send"
        self._headers = {
            "Authorization": f"Bearer {own.api_key.get_secret_value()}",
            "Content-Type": "application/json",
        }
        self._template_id = own.template_id
        self._from = {"email": own.sender, "name": settings.brand}
        self._reply_to = own.reply_to
        self._own_anchors = own_anchors(settings)

    def prepare(self, batch: Sequence[Outgoing]) -> ProviderRequest:
        """Raises DoesNotFit if the batch is too large, has an address twice, or has messages of
        different steps.
        """
        # Categories apply to the whole request and must be unique.
        categories = list(dict.fromkeys((batch[0].journey, batch[0].step)))
        if len({(one.journey, one.step) for one in batch}) > 1:
            raise DoesNotFit
        # SendGrid refuses a request that has an address twice.
        if len({one.to.lower() for one in batch}) < len(batch):
            raise DoesNotFit
        mail: dict[str, Any] = {
            "from": self._from,
            "categories": categories,
            "tracking_settings": _TRACKING,
        }
        if self._reply_to:
            mail["reply_to"] = {"email": self._reply_to}
        if self._template_id:
            mail["template_id"] = self._template_id
            mail["personalizations"] = [
                {**_personalization(one), "dynamic_template_data": self._template_data(one)}
                for one in batch
            ]
        else:
            [one] = batch
            content = _content(one)
            mail["subject"] = content.subject
            mail["personalizations"] = [_personalization(one)]
            # SendGrid refuses empty parts and requires the plain text first.
            mail["content"] = [
                {"type": kind, "value": value}
                for kind, value in (
                    ("text/plain", content.text),
                    ("text/html", self._html(content)),
                )
                if value
            ]
        body = orjson.dumps(mail)
        if len(body) > MAX_BYTES and len(batch) > 1:
            raise DoesNotFit
        return ProviderRequest("POST", self._url, headers=self._headers, content=body)

    def _template_data(self, one: Outgoing) -> dict[str, str]:
        content = _content(one)
        return {"subject": content.subject, "html": self._html(content), "text": content.text}

    def _html(self, content: EmailContent) -> str:
        """The HTML part. Links to our own pages are not tracked: these clicks do not count."""
        return self._own_anchors.sub(r'<a clicktracking="off"', content.html)

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[SendOutcome]:
        """SendGrid accepts or refuses a request as a whole."""
        result = result_of(status)
        if result == "sent":
            # All mails of a request have the same id; the custom argument distinguishes them.
            request_id = headers.get("x-message-id")
            return [SendOutcome(one.message_id, "sent", provider_id=request_id) for one in batch]
        errors = _errors(body)
        words = "; ".join(_words(error) for error in errors)
        reason = f"sendgrid {status}: {words}"[:300].rstrip(": ")
        if result != "failed":
            return outcomes(batch, result, reason, _wait(status, headers))
        if any(_field(error)[0] in _FROM_SETTINGS for error in errors):
            return outcomes(batch, "stopped", reason)
        return _refused(status, errors, batch) or outcomes(batch, "failed", reason)


def _personalization(one: Outgoing) -> dict[str, Any]:
    to: dict[str, Any] = {
        "to": [{"email": one.to}],
        "custom_args": {"message_id": str(one.message_id)},
    }
    if one.unsubscribe_url:
        to["headers"] = one_click_headers(one.unsubscribe_url)
    return to


def _content(one: Outgoing) -> EmailContent:
    if not isinstance(one.content, EmailContent):
        raise TypeError(f"message {one.message_id} is not an e-mail")
    return one.content


def _refused(
    status: int, errors: Sequence[Mapping[str, Any]], batch: Sequence[Outgoing]
) -> list[SendOutcome]:
    """The outcomes if errors name mails (`personalizations.3.to.0.email`), else empty."""
    named: dict[int, Mapping[str, Any]] = {}
    for error in errors:
        first, *rest = _field(error)
        if first == "personalizations" and rest and rest[0].isdecimal():
            named.setdefault(int(rest[0]), error)
    if not any(number < len(batch) for number in named):
        return []
    return [
        # SendGrid accepted none of the mails, so the others are sent again at once.
        SendOutcome(
            one.message_id,
            "retry",
            reason=f"sendgrid {status}: another mail in the same request was refused",
            retry_after=1,
        )
        if number not in named
        else SendOutcome(
            one.message_id,
            "failed",
            reason=f"sendgrid {status}: {_words(named[number])}"[:300],
            suppress="bounced" if _field(named[number])[-1] == "email" else None,
        )
        for number, one in enumerate(batch)
    ]


def _errors(body: bytes) -> list[Mapping[str, Any]]:
    errors = json_object(body).get("errors")
    return (
        [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    )


def _field(error: Mapping[str, Any]) -> list[str]:
    return str(error.get("field") or "").split(".")


def _words(error: Mapping[str, Any]) -> str:
    field = error.get("field")
    return f"{error.get('message')} ({field})" if field else str(error.get("message"))


def _wait(status: int, headers: Mapping[str, str]) -> Seconds | None:
    """Seconds until a retry: Retry-After, or X-RateLimit-Reset (an instant by SendGrid's clock)."""
    reset, now = headers.get("x-ratelimit-reset", ""), server_time(headers)
    if status == 429 and "retry-after" not in headers and reset.isdecimal() and now is not None:
        return bounded(int(reset) - now)
    return retry_after(headers)


def webhooks(own: SendGridSettings, settings: Settings, _policy: Policy) -> list[Webhook]:
    """One webhook for all events."""
    key = _public_key(own.webhook_key) if own.webhook_key else None
    pages = our_pages(settings)

    def admit(headers: Mapping[str, str]) -> None:
        signed_headers(key, headers)

    def read(request: WebhookRequest) -> list[Feedback]:
        verify(key, request)
        return read_events(request.body, pages)

    about = "Events of e-mails, from SendGrid"
    return [Webhook("/hooks/sendgrid", about=about, admit=admit, read=read, limit=BODY_LIMIT)]


def _public_key(text: str) -> ec.EllipticCurvePublicKey:
    """The key in base64, with or without PEM header lines. Raises SegueError."""
    try:
        key = load_der_public_key(b64decode(re.sub(r"-----[A-Z ]+-----|\s", "", text)))
    except (ValueError, UnsupportedAlgorithm) as error:
        key, why = None, str(error)
    else:
        why = "the key has another type"
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SegueError(
            f"SEGUE_SENDGRID_WEBHOOK_KEY is not a verification key ({why}). Copy it from SendGrid: "
            "Settings, Mail Settings, Event Webhook, Signature Verification"
        )
    return key


def signed_headers(
    key: ec.EllipticCurvePublicKey | None, headers: Mapping[str, str]
) -> tuple[str, str]:
    """The signature and its time, not verified yet. Raises Refused if they are malformed."""
    if key is None:
        raise Refused(
            "SEGUE_SENDGRID_WEBHOOK_KEY is not set; set it to the verification key of SendGrid's "
            "signed event webhook"
        )
    signature, timestamp = headers.get(SIGNATURE), headers.get(TIMESTAMP)
    if signature is None or timestamp is None:
        raise Refused("the request is not signed; enable the signature of SendGrid's event webhook")
    if len(signature) > _LONGEST_SIGNATURE:
        raise Refused("the signature is too long")
    if not (len(timestamp) < 15 and timestamp.isascii() and timestamp.isdecimal()):
        raise Refused("the time of the signature is not a number")
    return signature, timestamp


def verify(key: ec.EllipticCurvePublicKey | None, request: WebhookRequest) -> None:
    """Raises Refused unless SendGrid signed the request, at most TOLERANCE ago."""
    signature, timestamp = signed_headers(key, request.headers)
    if key is None or not _signed_by(key, signature, timestamp, request.body):
        raise Refused(
            "the signature is wrong; check that SEGUE_SENDGRID_WEBHOOK_KEY is this webhook's key"
        )
    if request.now is not None and abs(request.now - int(timestamp)) > TOLERANCE:
        raise Refused(
            f"the signature is {request.now - int(timestamp)} s old; the limit is {TOLERANCE} s"
        )


def _signed_by(key: ec.EllipticCurvePublicKey, signature: str, timestamp: str, body: bytes) -> bool:
    try:
        return bool(EventWebhook().verify_signature(body.decode(), signature, timestamp, key))
    except ValueError:  # the body is not UTF-8 or the signature not base64
        return False


def read_events(body: bytes, pages: tuple[str, ...] = ()) -> list[Feedback]:
    """Parse the events, without kinds that are not used. Raises Unreadable.

    An event with an invalid surrogate does not affect the others.

    Parameters
    ----------
    pages: URL prefixes of our own pages. A click on one of their links counts as `sent` only.
    """
    try:
        events = read_json(body)
    except NoJSON as error:
        raise Unreadable(str(error)) from error
    if not isinstance(events, list):
        raise Unreadable("the body is not a JSON array of events")
    found = (_feedback(event, pages) for event in events if isinstance(event, dict))
    return [one for one in found if one is not None]


def _feedback(event: Mapping[str, Any], pages: tuple[str, ...]) -> Feedback | None:
    name = event.get("event")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return None
    if kind == "clicked" and text_of(event, "url").strip().startswith(pages):
        kind = "sent"
    machine = event.get("sg_machine_open") is True
    if kind == "opened" and machine:
        kind = "machine_opened"
    given = text_of(event, "email").strip()
    address = address_of("email", given)
    return Feedback(
        id=f"sendgrid {text_of(event, 'sg_event_id')[:100] or digest(event)}",
        source=f"sendgrid {name}",
        channel="email",
        kind=kind,
        at=_timestamp(event),
        message_id=our_id(event.get("message_id")),
        address=address or None,
        provider_id=text_of(event, "sg_message_id") or None,
        reason=_reason(event, kind, {given, address}),
        suppress=_suppress(event, kind),
        whole_channel=name == "unsubscribe",
        properties=_properties(event, kind),
    )


def _suppress(event: Mapping[str, Any], kind: FeedbackKind) -> Suppress | None:
    if kind == "complained":
        return "complained"
    if kind == "bounced":
        # `blocked` is about this mail (content, reputation, full mailbox), not the address.
        return None if event.get("type") == "blocked" else "bounced"
    if kind == "failed":
        return _DROPPED.get(text_of(event, "reason").strip().lower())
    return None


def _reason(event: Mapping[str, Any], kind: FeedbackKind, spellings: Set[str]) -> str | None:
    """The mail server's text without the address, because reasons must hold no personal data."""
    if kind not in ("bounced", "failed"):
        return None
    words = " ".join(filter(None, (text_of(event, "status"), text_of(event, "reason"))))
    words = without_address(words, *spellings)
    what = text_of(event, "type") or text_of(event, "event")
    return f"sendgrid {what}: {words}"[:300].rstrip(": ")


def _properties(event: Mapping[str, Any], kind: FeedbackKind) -> dict[str, Any]:
    if kind == "clicked":
        return {"url": text_of(event, "url")}
    if kind == "machine_opened":
        return {"machine": True}
    if kind == "bounced":
        return {"blocked": event.get("type") == "blocked"}
    return {}


def _timestamp(event: Mapping[str, Any]) -> int | None:
    value = event.get("timestamp")
    return value if type(value) is int and value > 0 else None


PROVIDER = Provider(
    name="sendgrid",
    channel="email",
    default=True,
    settings=SendGridSettings,
    connect=SendGrid,
    webhooks=webhooks,
    needs=(
        Need("api_key", "no mail can be sent"),
        Need("sender", "no mail can be sent"),
        Need(
            "webhook_key",
            "SendGrid's events are refused, so unsubscribes, spam reports and bounces are lost "
            "(copy it from Settings, Mail Settings, Event Webhook, Signature Verification)",
        ),
    ),
)
