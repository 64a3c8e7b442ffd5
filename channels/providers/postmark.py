"""E-mail by Postmark: `POST /email/batch`, and its webhooks.

Marketing mail uses the broadcast stream, all other mail the transactional stream: Postmark pauses
accounts that send marketing mail through a transactional stream.

Postmark does not sign webhooks; a login in the webhook's URL (HTTP basic auth) authenticates them.

Sources: Postmark's pages "Send batch emails", "API error codes", "Bounce types", "Webhooks
overview", those of each webhook, "Tracking links" and "How to include a List-Unsubscribe header".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from channels.kinds.email import EmailContent
from channels.links import one_click_headers, our_pages, own_anchors
from channels.providers.base import Provider, ProviderSettings
from channels.providers.sending import (
    Authorize,
    DoesNotFit,
    ErrorMeaning,
    Outgoing,
    ProviderRequest,
    SendOutcome,
    Suppress,
    json_object,
    outcomes,
    result_of,
    retry_after,
)
from channels.providers.webhook import (
    Feedback,
    FeedbackKind,
    Refused,
    Unreadable,
    Webhook,
    WebhookRequest,
    check_basic_auth,
    digest,
    our_id,
    text_of,
    without_address,
)
from config.clock.times import Instant, parse_instant
from config.policy import Policy
from config.required import Need
from config.settings import Settings, Url
from config.text.json_input import NoJSON, read_json
from profiles.identity.person import address_of

MAX_BATCH = 500
# Bytes; the limit of a request is 50 MB.
MAX_BYTES = 49_000_000
# The most characters of a Tag.
_LONGEST_TAG = 1000
# Bytes of a webhook's body. It has one event; a bounce may contain the returned mail.
BODY_LIMIT = 1_000 * 1024
# The user name in the URL of the webhook.
WEBHOOK_USER = "segue"

# By ErrorCode of a request or of one message in it.
ERRORS: Mapping[int, ErrorMeaning] = {
    10: ErrorMeaning("stopped", "the server token is not accepted"),
    100: ErrorMeaning("retry", "Postmark is in maintenance"),
    300: ErrorMeaning("failed"),
    400: ErrorMeaning("stopped", "SEGUE_POSTMARK_FROM has no sender signature"),
    401: ErrorMeaning("stopped", "the sender signature of SEGUE_POSTMARK_FROM is not confirmed"),
    405: ErrorMeaning("stopped", "the account may not send more mails"),
    406: ErrorMeaning("failed", "the recipient is inactive on this stream", "bounced"),
    409: ErrorMeaning("stopped", "Postmark does not accept the request as JSON"),
    410: ErrorMeaning("stopped", f"Postmark does not accept {MAX_BATCH} mails in a request"),
    412: ErrorMeaning("stopped", "the account is pending approval: only mail to its own domain"),
    413: ErrorMeaning("stopped", "the account may not send"),
    429: ErrorMeaning("retry", "too many requests"),
    1226: ErrorMeaning("stopped", "the message stream does not exist"),
    1235: ErrorMeaning("stopped", "the message stream does not exist"),
    1236: ErrorMeaning("stopped", "the message stream does not send"),
}
# On a broadcast stream a recipient is also inactive after an unsubscribe, and the answer does not
# distinguish the two. It counts as an unsubscribe, so transactional mail is still sent.
_BROADCAST_INACTIVE = ErrorMeaning("failed", ERRORS[406].words, "opted_out")
_BAD_ADDRESS = ErrorMeaning("failed", "the address is not valid", "bounced")
_BAD_SENDER = ErrorMeaning("stopped", "SEGUE_POSTMARK_FROM or SEGUE_POSTMARK_REPLY_TO is not valid")

# By RecordType.
_KINDS: Mapping[str, FeedbackKind] = {
    "Delivery": "delivered",
    "Open": "opened",
    "Click": "clicked",
}
# By Type of a bounce. Other types do not affect the message (an out-of-office reply).
_BOUNCES: Mapping[str, tuple[FeedbackKind, Suppress | None]] = {
    "HardBounce": ("bounced", "bounced"),
    "BadEmailAddress": ("bounced", "bounced"),
    "SoftBounce": ("bounced", None),
    "Blocked": ("bounced", None),
    "SpamNotification": ("bounced", None),
    "VirusNotification": ("bounced", None),
    "DMARCPolicy": ("bounced", None),
    "Unknown": ("bounced", None),
    "SpamComplaint": ("complained", "complained"),
    "Unsubscribe": ("unsubscribed", None),
    "ManuallyDeactivated": ("failed", None),
    "Unconfirmed": ("failed", None),
    "SMTPApiError": ("failed", None),
    # Postmark retries the delivery.
    "Transient": ("sent", None),
    "DnsError": ("sent", None),
}


class PostmarkSettings(ProviderSettings):
    """SEGUE_POSTMARK_*."""

    model_config = SettingsConfigDict(env_prefix="SEGUE_POSTMARK_")

    url: Url = Field(
        default="https://api.postmarkapp.com", description="The base URL of Postmark's API."
    )
    server_token: SecretStr = Field(
        default=SecretStr(""), description="The API token of a server in Postmark."
    )
    sender: str = Field(
        default="hello@shop.example",
        validation_alias="SEGUE_POSTMARK_FROM",
        description="The From address. Real messages need a sender signature in Postmark.",
    )
    reply_to: str = Field(default="", description="The Reply-To address. Empty: none.")
    broadcast_stream: str = Field(
        default="broadcast", description="The ID of the message stream for marketing mail."
    )
    transactional_stream: str = Field(
        default="outbound", description="The ID of the message stream for transactional mail."
    )
    webhook_password: SecretStr = Field(
        default=SecretStr(""),
        description="The password in the webhook's URL in Postmark, with the user `segue`. "
        "Letters and digits, at least 16.",
    )

    def sandbox_account(self, secret: bytes) -> Mapping[str, Any]:
        """The sandbox posts its events with this password."""
        return {
            "server_token": SecretStr("sandbox"),
            "webhook_password": SecretStr(secret.hex()),
        }


class Postmark:
    """Up to 500 mails in a request, each with its own content."""

    batch_size = MAX_BATCH
    auth: Authorize | None = None

    def __init__(self, own: PostmarkSettings, settings: Settings) -> None:
        self._url = f"{own.url}/email/batch"
        self._headers = {
            "X-Postmark-Server-Token": own.server_token.get_secret_value(),
            "Content-Type": "application/json",
        }
        name = settings.brand.replace("\\", "\\\\").replace('"', '\\"')
        self._from = f'"{name}" <{own.sender}>'
        self._reply_to = own.reply_to
        self._streams = (own.transactional_stream, own.broadcast_stream)
        self._own_anchors = own_anchors(settings)

    def prepare(self, batch: Sequence[Outgoing]) -> ProviderRequest:
        """Raises DoesNotFit if the batch is too large."""
        body = orjson.dumps([self._mail(one) for one in batch])
        if len(body) > MAX_BYTES and len(batch) > 1:
            raise DoesNotFit
        return ProviderRequest("POST", self._url, headers=self._headers, content=body)

    def _mail(self, one: Outgoing) -> dict[str, Any]:
        content = one.content
        if not isinstance(content, EmailContent):
            raise TypeError(f"message {one.message_id} is not an e-mail")
        mail: dict[str, Any] = {
            "From": self._from,
            "To": one.to,
            "Subject": content.subject,
            "HtmlBody": self._own_anchors.sub("<a data-pm-no-track", content.html),
            "TextBody": content.text,
            "Tag": f"{one.journey}/{one.step}"[:_LONGEST_TAG],
            "Metadata": {"message_id": str(one.message_id)},
            "TrackOpens": True,
            # Links in the text part can't be excluded from tracking one by one.
            "TrackLinks": "HtmlOnly",
            "MessageStream": self._streams[one.kind == "marketing"],
        }
        if self._reply_to:
            mail["ReplyTo"] = self._reply_to
        if one.unsubscribe_url:
            # Postmark replaces these headers on a stream whose unsubscribes it manages.
            headers = one_click_headers(one.unsubscribe_url)
            mail["Headers"] = [{"Name": name, "Value": value} for name, value in headers.items()]
        return {name: value for name, value in mail.items() if value != ""}

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[SendOutcome]:
        """An accepted request has an answer for each mail, in order."""
        if result_of(status) != "sent":
            answer = json_object(body)
            found = [_outcome(one, answer, status, headers) for one in batch]
            # The error does not name the address it is about.
            return found if len(batch) == 1 else [replace(one, suppress=None) for one in found]
        try:
            answers = orjson.loads(body)
        except orjson.JSONDecodeError:
            answers = None
        if not isinstance(answers, list) or len(answers) != len(batch):
            return outcomes(batch, "unknown", "postmark: the answer lacks some of the mails")
        return [
            _outcome(one, answer, status, headers)
            if isinstance(answer, dict)
            else SendOutcome(one.message_id, "unknown", reason="postmark: no answer about it")
            for one, answer in zip(batch, answers, strict=True)
        ]


def _outcome(
    one: Outgoing, answer: Mapping[str, Any], status: int, headers: Mapping[str, str]
) -> SendOutcome:
    code, words = answer.get("ErrorCode"), text_of(answer, "Message")
    if result_of(status) == "sent" and code == 0:
        return SendOutcome(one.message_id, "sent", provider_id=text_of(answer, "MessageID") or None)
    known = _meaning(one, code, words)
    meaning = known or ErrorMeaning(result_of(status) if status >= 300 else "failed")
    text = meaning.words or without_address(words, one.to)
    return SendOutcome(
        one.message_id,
        meaning.result,
        reason=f"postmark {code if known else status}: {text}"[:300].rstrip(": "),
        retry_after=retry_after(headers) if meaning.result == "retry" else None,
        suppress=meaning.suppress,
    )


def _meaning(one: Outgoing, code: object, words: str) -> ErrorMeaning | None:
    if code == 300 and "'To'" in words:
        return _BAD_ADDRESS
    if code == 300 and ("'From'" in words or "'Reply-To'" in words):
        return _BAD_SENDER
    if code == 406 and one.kind == "marketing":
        return _BROADCAST_INACTIVE
    return ERRORS.get(code) if type(code) is int else None


def webhooks(own: PostmarkSettings, settings: Settings, _policy: Policy) -> list[Webhook]:
    """One webhook for all events."""
    password, pages = own.webhook_password.get_secret_value(), our_pages(settings)

    def admit(headers: Mapping[str, str]) -> None:
        if not password:
            raise Refused("SEGUE_POSTMARK_WEBHOOK_PASSWORD is not set")
        check_basic_auth(f"{WEBHOOK_USER}:{password}", headers)

    def read(request: WebhookRequest) -> list[Feedback]:
        admit(request.headers)
        return read_event(request.body, pages)

    about = "An event of an e-mail, from Postmark"
    return [Webhook("/hooks/postmark", about=about, admit=admit, read=read, limit=BODY_LIMIT)]


def read_event(body: bytes, pages: tuple[str, ...] = ()) -> list[Feedback]:
    """Parse an event; empty for kinds that are not used. Raises Unreadable.

    Parameters
    ----------
    pages: URL prefixes of our own pages. A click on one of their links counts as `sent` only.
    """
    try:
        event = read_json(body)
    except NoJSON as error:
        raise Unreadable(str(error)) from error
    if not isinstance(event, dict):
        raise Unreadable("the body is not a JSON object")
    record, bounce = text_of(event, "RecordType"), text_of(event, "Type")
    kind, suppress = _kind(event, record, bounce)
    if kind is None:
        return []
    url = text_of(event, "OriginalLink").strip()
    if kind == "clicked" and url.startswith(pages):
        kind = "sent"
    given = (text_of(event, "Email") or text_of(event, "Recipient")).strip()
    address = address_of("email", given)
    metadata = event.get("Metadata")
    number = event.get("ID")
    return [
        Feedback(
            # Only bounces and complaints have an id. A repeated request has an equal body.
            id=f"postmark {record} {number if type(number) is int and number else digest(event)}",
            source=f"postmark {bounce if record == 'Bounce' else record}",
            channel="email",
            kind=kind,
            at=_at(event),
            message_id=our_id(metadata.get("message_id")) if isinstance(metadata, dict) else None,
            address=address or None,
            provider_id=text_of(event, "MessageID") or None,
            reason=_reason(event, bounce, given, address)
            if kind in ("bounced", "failed")
            else None,
            suppress=suppress,
            whole_channel=kind == "unsubscribed",
            properties=_properties(kind, url, suppress),
        )
    ]


def _kind(
    event: Mapping[str, Any], record: str, bounce: str
) -> tuple[FeedbackKind | None, Suppress | None]:
    if record == "Bounce":
        return _BOUNCES.get(bounce, (None, None))
    if record == "SpamComplaint":
        return "complained", "complained"
    if record == "SubscriptionChange":
        # Only an unsubscribe by the recipient counts. Bounces and complaints have webhooks of their
        # own; changes by an operator are no statement of the customer; a reactivation does not name
        # a topic, so it gives no consent.
        unsubscribed = (
            event.get("SuppressSending") is True
            and event.get("SuppressionReason") == "ManualSuppression"
            and event.get("Origin") == "Recipient"
        )
        return "unsubscribed" if unsubscribed else None, None
    return _KINDS.get(record), None


def _at(event: Mapping[str, Any]) -> Instant | None:
    for name in ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt"):
        try:
            return parse_instant(event.get(name))
        except ValueError:
            continue
    return None


def _reason(event: Mapping[str, Any], bounce: str, *spellings: str) -> str:
    words = text_of(event, "Details") or text_of(event, "Description")
    return f"postmark {bounce}: {without_address(words, *spellings)}"[:300].rstrip(": ")


def _properties(kind: FeedbackKind, url: str, suppress: Suppress | None) -> dict[str, Any]:
    if kind == "clicked":
        return {"url": url}
    return {"blocked": suppress is None} if kind == "bounced" else {}


PROVIDER = Provider(
    name="postmark",
    channel="email",
    settings=PostmarkSettings,
    connect=Postmark,
    webhooks=webhooks,
    needs=(
        Need("server_token", "no mail can be sent"),
        Need("sender", "no mail can be sent"),
        Need(
            "webhook_password",
            "Postmark's events are refused, so unsubscribes, spam reports and bounces are lost "
            "(letters and digits, at least 16; part of the webhook's URL in Postmark)",
            re.compile(r"[A-Za-z0-9]{16,}").fullmatch,
        ),
    ),
)
