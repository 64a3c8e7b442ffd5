"""The providers' webhook payloads, signed as the providers sign.

Event ids are derived from the message's id, so that a repeated report has the same id.
"""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from twilio.request_validator import RequestValidator

from config.clock.times import Instant, format_instant
from sandbox.providers.twilio import WHATSAPP
from sandbox.simulated_customer import EventKind
from sandbox.store import Accepted

# A link that SendGrid wraps for click tracking.
_LINK = re.compile(r'<a\b(?![^>]*\bclicktracking="off")[^>]*\bhref="(https?://[^"]+)"')
_TRACKED_BY_POSTMARK = re.compile(r'<a\b(?![^>]*\bdata-pm-no-track)[^>]*\bhref="(https?://[^"]+)"')
_EVENTS: Mapping[EventKind, Mapping[str, Any]] = {
    "processed": {"event": "processed"},
    "delivered": {"event": "delivered", "response": "250 OK", "tls": 1},
    "bounce": {
        "event": "bounce",
        "type": "bounce",
        "status": "5.1.1",
        "reason": "550 5.1.1 The email account that you tried to reach does not exist",
        "bounce_classification": "Invalid Address",
    },
    "blocked": {
        "event": "bounce",
        "type": "blocked",
        "status": "4.7.1",
        "reason": "421 4.7.1 Too much mail from here for now",
        "bounce_classification": "Reputation",
    },
    "open": {"event": "open", "sg_machine_open": False, "useragent": "Mozilla/5.0 (a person)"},
    "machine_open": {"event": "open", "sg_machine_open": True, "useragent": "Mozilla/5.0"},
    "click": {"event": "click", "useragent": "Mozilla/5.0 (a person)"},
    "spamreport": {"event": "spamreport"},
}
# By RecordType, with the fields that the kind alone decides.
_POSTMARK: Mapping[EventKind, tuple[str, Mapping[str, Any]]] = {
    "delivered": ("Delivery", {"Details": "250 OK"}),
    "bounce": (
        "Bounce",
        {
            "Type": "HardBounce",
            "TypeCode": 1,
            "Description": "The server was unable to deliver your message",
            "Details": "smtp;550 5.1.1 The email account that you tried to reach does not exist",
            "Inactive": True,
        },
    ),
    "blocked": (
        "Bounce",
        {
            "Type": "SoftBounce",
            "TypeCode": 4096,
            "Description": "Unable to temporarily deliver message",
            "Details": "smtp;421 4.7.1 Too much mail from here for now",
            "Inactive": False,
        },
    ),
    "open": ("Open", {"FirstOpen": True, "UserAgent": "Mozilla/5.0 (a person)"}),
    "machine_open": ("Open", {"FirstOpen": True, "UserAgent": "Mozilla/5.0"}),
    "click": ("Click", {"UserAgent": "Mozilla/5.0 (a person)"}),
    "spamreport": (
        "SpamComplaint",
        {"Type": "SpamComplaint", "TypeCode": 100001, "Inactive": True},
    ),
}
_STATUSES: Mapping[EventKind, Mapping[str, str]] = {
    "sent": {"MessageStatus": "sent"},
    "delivered": {"MessageStatus": "delivered"},
    "read": {"MessageStatus": "read"},
    "undelivered": {"MessageStatus": "undelivered", "ErrorCode": "30005"},
}


class Signed(NamedTuple):
    """A request body with its headers."""

    body: bytes
    headers: Mapping[str, str]


def mail_event(word: EventKind, mail: Accepted, at: Instant) -> dict[str, Any]:
    """One of SendGrid's events; our custom argument is returned at the top level."""
    event = {
        "email": mail.address,
        "timestamp": at,
        "smtp-id": f"<{mail.provider_id}@sandbox>",
        "sg_message_id": f"{mail.provider_id}.filter0001",
        "sg_event_id": b64encode(sha256(f"{mail.provider_id} {word}".encode()).digest()).decode(),
        **_EVENTS[word],
    }
    if mail.message_id is not None:
        event["message_id"] = mail.message_id
    if word == "click":
        links = _LINK.findall(mail.content["html"])
        event["url"] = links[0].replace("&amp;", "&") if links else "https://shop.example/"
    return event


def signed_events(
    key: ec.EllipticCurvePrivateKey, events: Sequence[Mapping[str, Any]], now: Instant
) -> Signed:
    """A batch as SendGrid posts it, with a new signature for each attempt, line end included."""
    body = orjson.dumps(events) + b"\r\n"
    signature = key.sign(f"{now}".encode() + body, ec.ECDSA(hashes.SHA256()))
    return Signed(
        body,
        {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": str(now),
        },
    )


def postmark_event(word: EventKind, mail: Accepted, at: Instant) -> dict[str, Any] | None:
    """One event of Postmark; None if Postmark does not report this kind.

    Opens by mail programs look like opens by people.
    """
    record, details = _POSTMARK.get(word, ("", {}))
    if not record:
        return None
    when = format_instant(at)
    event: dict[str, Any] = {
        "RecordType": record,
        "MessageID": mail.provider_id,
        "MessageStream": mail.content["stream"],
        "ServerID": 23,
        "Tag": mail.content["categories"][0],
        "Metadata": {} if mail.message_id is None else {"message_id": mail.message_id},
        **details,
    }
    if record in ("Bounce", "SpamComplaint"):
        number = int.from_bytes(sha256(f"{mail.provider_id} {word}".encode()).digest()[:6])
        return event | {"ID": number, "Email": mail.address, "BouncedAt": when}
    if record == "Delivery":
        return event | {"Recipient": mail.address, "DeliveredAt": when}
    if record == "Click":
        links = _TRACKED_BY_POSTMARK.findall(mail.content["html"])
        url = links[0].replace("&amp;", "&") if links else "https://shop.example/"
        event |= {"ClickLocation": "HTML", "OriginalLink": url}
    return event | {"Recipient": mail.address, "ReceivedAt": when}


def event_with_login(login: str, event: Mapping[str, Any]) -> Signed:
    """An event as Postmark posts it to a URL with a login (HTTP basic auth)."""
    basic = b64encode(login.encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {basic}"}
    return Signed(orjson.dumps(event), headers)


def own_address(text: Accepted) -> str:
    """The customer's address as Twilio writes it."""
    return (WHATSAPP if text.channel == "whatsapp" else "") + text.address


def status_form(word: EventKind, text: Accepted) -> dict[str, str]:
    """The body that Twilio posts to the message's StatusCallback."""
    status = dict(_STATUSES[word])
    if word == "undelivered" and text.channel == "whatsapp":
        status["ErrorCode"] = "63003"
    return {
        "AccountSid": text.content["account"],
        "ApiVersion": "2010-04-01",
        "From": text.content["from"],
        "MessageSid": text.provider_id,
        "SmsSid": text.provider_id,
        "SmsStatus": status["MessageStatus"],
        "To": own_address(text),
        **status,
    }


def inbound_form(sender: str, to: str, body: str, sid: str) -> dict[str, str]:
    """The body that Twilio posts for an incoming text; its place fields are empty."""
    return {
        "AccountSid": "AC" + "0" * 32,
        "ApiVersion": "2010-04-01",
        "Body": body,
        "From": sender,
        "FromCity": "",
        "FromState": "",
        "MessageSid": sid,
        "NumMedia": "0",
        "NumSegments": "1",
        "SmsMessageSid": sid,
        "SmsStatus": "received",
        "To": to,
    }


def signed_form(token: str, url: str, form: Mapping[str, str]) -> Signed:
    """A form as Twilio posts it to an address."""
    signature = RequestValidator(token).compute_signature(url, form)
    return Signed(
        urlencode(form).encode(),
        {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Twilio-Signature": signature,
            "I-Twilio-Idempotency-Token": sha256(signature.encode()).hexdigest()[:36],
        },
    )
