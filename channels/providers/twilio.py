"""SMS by Twilio: `POST /2010-04-01/Accounts/{sid}/Messages.json`, and its webhooks.

Webhooks are signed with HMAC-SHA1 over the URL and the form's fields. For a JSON body the URL has a
hash of the body, and only the URL is signed.

Sources: Twilio's Messages resource and error dictionary, its pages "Webhooks security", "Twilio's
request to your webhook", "Track outbound message status" and "Opt-out keywords", and from its SDK.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode, urlparse

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from twilio.request_validator import RequestValidator

from channels.feedback.replies import Reply, StopWordForms, read_reply, stop_words_of
from channels.kinds.sms import SMSContent
from channels.providers.base import Provider, ProviderSettings
from channels.providers.sending import (
    Authorize,
    ErrorMeaning,
    Outgoing,
    ProviderRequest,
    SendOutcome,
    json_object,
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
    our_id,
)
from config.channels import ChannelName
from config.clock.times import Seconds
from config.policy import Policy
from config.required import Need
from config.settings import Settings, Url
from config.text.json_input import NoJSON, read_json
from profiles.identity.person import address_of

# The range of ValidityPeriod, in seconds.
_SHORTEST, _LONGEST = 1, 36_000
# The senders that customers can reply STOP to: a number, a short code or a messaging service.
_SENDER = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|MG[0-9a-fA-F]{32}")
# The prefix of WhatsApp addresses.
WHATSAPP = "whatsapp:"
# Twilio's test sender.
TEST_NUMBER = "+15005550006"

# Error codes that are more specific than the HTTP status, or that concern the number. Codes from
# 30000 arrive in status webhooks.
ERRORS: Mapping[int, ErrorMeaning] = {
    20003: ErrorMeaning("stopped", "the credentials are not accepted"),
    20429: ErrorMeaning("retry", "too many requests"),
    21211: ErrorMeaning("failed", "the phone number is not valid", "bounced"),
    21212: ErrorMeaning("stopped", "SEGUE_TWILIO_FROM is not a valid sender"),
    21408: ErrorMeaning("failed", "texts to this country are not enabled"),
    21603: ErrorMeaning("stopped", "SEGUE_TWILIO_FROM is missing"),
    21610: ErrorMeaning("failed", "the recipient replied STOP", "opted_out"),
    21614: ErrorMeaning("failed", "not a mobile number", "bounced"),
    21701: ErrorMeaning("stopped", "the messaging service of SEGUE_TWILIO_FROM does not exist"),
    21703: ErrorMeaning("stopped", "the messaging service of SEGUE_TWILIO_FROM has no sender"),
    30003: ErrorMeaning(
        "failed", "the handset can't be reached"
    ),  # perhaps switched off, so not suppressed
    30005: ErrorMeaning("failed", "the number is unknown", "unregistered"),
    30006: ErrorMeaning("failed", "a landline, or a network without SMS", "bounced"),
    30007: ErrorMeaning("failed", "filtered as spam"),
}


SIGNATURE = "x-twilio-signature"
# Bytes and fields. Twilio documents no limit. A text has at most 1,600 characters (20 KB of emoji,
# urlencoded) and ten media files with two fields each, besides about thirty fields.
BODY_LIMIT = 64 * 1024
FIELDS_LIMIT = 200
# Characters of a SHA-1 in base64.
_SIGNATURE_LENGTH = 28
# An empty response: Twilio itself confirms a STOP, so Segue sends no reply.
SILENCE = b'<?xml version="1.0" encoding="UTF-8"?><Response></Response>'

_STATUSES: Mapping[str, FeedbackKind] = {
    "accepted": "sent",
    "scheduled": "sent",
    "queued": "sent",
    "sending": "sent",
    "sent": "sent",
    "delivered": "delivered",
    "read": "opened",  # RCS and WhatsApp only
    "undelivered": "failed",
    "failed": "failed",
    "canceled": "failed",
}
_OPT_OUT_TYPES: Mapping[str, Reply] = {
    "STOP": Reply("stopped", "STOP"),
    "START": Reply("started", "START"),
}


class TwilioSettings(ProviderSettings):
    """SEGUE_TWILIO_*."""

    model_config = SettingsConfigDict(env_prefix="SEGUE_TWILIO_")

    url: Url = Field(default="https://api.twilio.com", description="The base URL of Twilio's API.")
    account_sid: str = Field(default="", description="The account SID from Twilio's console.")
    auth_token: SecretStr = Field(
        default=SecretStr(""),
        description="The account's auth token; Twilio also signs its webhooks with it.",
    )
    sender: str = Field(
        default="",
        validation_alias="SEGUE_TWILIO_FROM",
        description="A number in E.164, a short code, or the SID of a messaging service (MG...).",
    )

    def sandbox_account(self, secret: bytes) -> Mapping[str, Any]:
        """The sandbox signs its webhooks with this auth token."""
        return {
            "account_sid": "AC" + "0" * 32,
            "auth_token": SecretStr(secret.hex()),
            "sender": self.sender or TEST_NUMBER,
        }


def request_to(own: TwilioSettings) -> Callable[[Mapping[str, str]], ProviderRequest]:
    """Return the function that makes a request to the account's Messages resource from a form."""
    url = f"{own.url}/2010-04-01/Accounts/{own.account_sid}/Messages.json"
    login = f"{own.account_sid}:{own.auth_token.get_secret_value()}"
    headers = {
        "Authorization": f"Basic {b64encode(login.encode()).decode()}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return lambda form: ProviderRequest(
        "POST", url, headers=headers, content=urlencode(form).encode()
    )


class Twilio:
    """One text message in a request."""

    batch_size = 1
    auth: Authorize | None = None

    def __init__(self, own: TwilioSettings, settings: Settings) -> None:
        self._request = request_to(own)
        by = "MessagingServiceSid" if own.sender.startswith("MG") else "From"
        self._sender = {by: own.sender}
        self._callback = f"{settings.public_url}/hooks/twilio/status?message_id="

    def prepare(self, batch: Sequence[Outgoing]) -> ProviderRequest:
        """The StatusCallback has our message id, because Twilio returns no other field of ours."""
        [one] = batch
        if not isinstance(one.content, SMSContent):
            raise TypeError(f"message {one.message_id} is not a text message")
        form = {
            "To": one.to,
            **self._sender,
            "Body": one.content.body,
            "StatusCallback": f"{self._callback}{one.message_id}",
            **validity(one.ttl),
        }
        return self._request(form)

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[SendOutcome]:
        """By the error code if it is known, else by the HTTP status."""
        return read_answer(status, headers, body, batch, ERRORS)


def validity(ttl: Seconds | None) -> dict[str, str]:
    """The field that limits how long Twilio may queue the message."""
    return {} if ttl is None else {"ValidityPeriod": str(max(_SHORTEST, min(ttl, _LONGEST)))}


def read_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    batch: Sequence[Outgoing],
    errors: Mapping[int, ErrorMeaning],
) -> list[SendOutcome]:
    """The outcome of the message in a batch of one; a known error code outweighs the status."""
    [one] = batch
    answer = json_object(body)
    if result_of(status) == "sent":
        sid = answer.get("sid")
        named = sid if isinstance(sid, str) else None
        return [SendOutcome(one.message_id, "sent", provider_id=named)]
    code = answer.get("code")
    known = errors.get(code) if isinstance(code, int) else None
    # Twilio's text contains the number, and reasons must hold no personal data.
    words = known.words if known else str(answer.get("message", "")).replace(one.to, "…")
    meaning = known or ErrorMeaning(result_of(status), words)
    return [
        SendOutcome(
            one.message_id,
            meaning.result,
            reason=f"twilio {code if isinstance(code, int) else status}: {words}"[:300].rstrip(
                ": "
            ),
            retry_after=retry_after(headers) if meaning.result == "retry" else None,
            suppress=meaning.suppress,
        )
    ]


def webhooks(own: TwilioSettings, _settings: Settings, policy: Policy) -> list[Webhook]:
    """One webhook for delivery reports and one for inbound texts."""
    return webhooks_of("twilio", "text messages", own, policy, ERRORS)


def webhooks_of(
    provider: str,
    messages: str,
    own: TwilioSettings,
    policy: Policy,
    errors: Mapping[int, ErrorMeaning],
) -> list[Webhook]:
    """The two webhooks below /hooks/`provider`. messages: their name in descriptions."""
    token, words = own.auth_token.get_secret_value(), stop_words_of(policy)
    admit = partial(signature_of, token)

    def status(request: WebhookRequest) -> list[Feedback]:
        return read_status(fields(token, request), request.url, errors)

    def inbound(request: WebhookRequest) -> list[Feedback]:
        return read_inbound(fields(token, request), words)

    return [
        Webhook(
            f"/hooks/{provider}/status",
            about=f"Delivery reports on {messages}, from Twilio",
            admit=admit,
            read=status,
            limit=BODY_LIMIT,
        ),
        Webhook(
            f"/hooks/{provider}/inbound",
            about=f"Inbound {messages}, from Twilio",
            admit=admit,
            read=inbound,
            limit=BODY_LIMIT,
            answer=SILENCE,
            answer_type="text/xml",
        ),
    ]


def signature_of(token: str, headers: Mapping[str, str]) -> str:
    """The signature, not verified yet. Raises Refused if it is missing or malformed."""
    if not token:
        raise Refused("SEGUE_TWILIO_AUTH_TOKEN is not set")
    signature = headers.get(SIGNATURE)
    if signature is None:
        raise Refused("the request is not signed")
    if len(signature) != _SIGNATURE_LENGTH:
        raise Refused(f"the signature does not have {_SIGNATURE_LENGTH} characters")
    return signature


class _Form(dict[str, list[str]]):
    """A form's fields with their values, in the type that RequestValidator expects."""

    getlist = dict.__getitem__


def fields(token: str, request: WebhookRequest) -> Mapping[str, str]:
    """Verify a request and parse its fields. Raises Refused or Unreadable."""
    signature = signature_of(token, request.headers)
    is_json = request.headers.get("content-type", "").startswith("application/json")
    form = _Form() if is_json else _form(request.body)
    if is_json and "bodySHA256" not in parse_qs(urlparse(request.url).query):
        raise Refused("the URL has no hash of the JSON body")
    signed = request.body.decode(errors="replace") if is_json else form
    if not RequestValidator(token).validate(request.url, signed, signature):
        raise Refused(
            "the signature is wrong; check that SEGUE_TWILIO_AUTH_TOKEN is the account's token and "
            "SEGUE_PUBLIC_URL the URL that is set at Twilio"
        )
    if is_json:
        return _json_fields(request.body)
    return {name: values[-1] for name, values in form.items()}


def _form(body: bytes) -> _Form:
    """The fields of a form, including blank and unknown ones, because all fields are signed.

    Their number is limited, because this runs before the signature is checked.
    """
    try:
        text = body.decode(errors="replace")
        return _Form(parse_qs(text, keep_blank_values=True, max_num_fields=FIELDS_LIMIT))
    except ValueError:
        raise Refused(f"the form has more than {FIELDS_LIMIT} fields") from None


def _json_fields(body: bytes) -> Mapping[str, str]:
    try:
        found = read_json(body)
    except NoJSON as error:
        raise Unreadable(str(error)) from error
    if not isinstance(found, dict):
        raise Unreadable("the body is not a JSON object")
    return {name: str(value) for name, value in found.items() if value is not None}


def read_status(
    form: Mapping[str, str], url: str, errors: Mapping[int, ErrorMeaning] = ERRORS
) -> list[Feedback]:
    """A delivery report on the message whose id is in the URL; empty for unknown statuses."""
    status, sid = form.get("MessageStatus", "").lower(), _sid(form)
    kind = _STATUSES.get(status)
    if kind is None:
        return []
    [ours, *_] = parse_qs(urlparse(url).query).get("message_id", [""])
    code = _clean(form, "ErrorCode")[:20] if kind == "failed" else ""
    known = errors.get(our_id(code) or 0)
    return [
        Feedback(
            id=f"twilio {sid} {status}",
            source=f"twilio {code if known else status}",
            channel=_channel(form, "To"),
            kind=kind,
            message_id=our_id(ours),
            address=_address(form, "To"),
            provider_id=sid or None,
            reason=_reason(status, code, known.words if known else "")
            if kind == "failed"
            else None,
            suppress=known.suppress if known else None,
            properties={"error_code": code} if code else {},
        )
    ]


def _reason(status: str, code: str, words: str) -> str:
    return f"twilio {' '.join(filter(None, (status, code)))}: {words}"[:300].rstrip(": ")


def read_inbound(form: Mapping[str, str], words: StopWordForms) -> list[Feedback]:
    """An inbound message. With Advanced Opt-Out, Twilio itself classifies STOP and START."""
    text = _clean(form, "Body")
    reply = _OPT_OUT_TYPES.get(form.get("OptOutType", "").upper()) or read_reply(text, words)
    return [
        Feedback(
            id=f"twilio {_sid(form)}",
            source=f"twilio {reply.word or 'reply'}",
            channel=_channel(form, "From"),
            kind=reply.meaning,
            address=_address(form, "From"),
            properties={"text": text},
        )
    ]


def _sid(form: Mapping[str, str]) -> str:
    """Twilio's id of the message, else a digest of the form."""
    named = _clean(form, "MessageSid") or _clean(form, "SmsSid")
    return named[:100] or hashlib.sha256(repr(sorted(form.items())).encode()).hexdigest()[:32]


def _channel(form: Mapping[str, str], name: str) -> ChannelName:
    """The channel by the customer's address: SMS and WhatsApp may use the same webhook."""
    return "whatsapp" if form.get(name, "").startswith(WHATSAPP) else "sms"


def _address(form: Mapping[str, str], name: str) -> str | None:
    return address_of("phone", _clean(form, name)) or None


def _clean(form: Mapping[str, str], name: str) -> str:
    # PostgreSQL cannot store NUL.
    return form.get(name, "").replace("\0", "")


PROVIDER = Provider(
    name="twilio",
    channel="sms",
    default=True,
    settings=TwilioSettings,
    connect=Twilio,
    webhooks=webhooks,
    needs=(
        Need("account_sid", "no text can be sent"),
        Need(
            "auth_token",
            "no text can be sent, and Twilio's webhooks are refused, so every STOP is lost",
        ),
        Need(
            "sender",
            "customers reply STOP to it, so it must be a number in E.164, a short code or a "
            "messaging service (MG...), not a name",
            _SENDER.fullmatch,
        ),
    ),
)
