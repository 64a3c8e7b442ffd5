"""SendGrid's event webhook: a JSON array of events, signed with ECDSA (P-256, SHA-256).

Facts from SendGrid's pages "Event Webhook Reference", "Event Webhook Security Features" and
"Troubleshooting", and from the checks in its own SDK.
"""

import hashlib
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence, Set
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from channels.links import our_pages
from channels.providers.base import Suppress
from channels.providers.webhook import Feedback, Hook, Kind, Posted, Refused, Unreadable, our_id
from config.access.sandbox_keys import sendgrid_key
from config.errors import SegueError
from config.json_input import NoJSON, read_json
from config.policy import Policy
from config.settings import Settings
from config.times import MINUTE, Seconds
from profiles.identity.person import address_of

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
# How far the moment of the signature may lie from now. SendGrid names no limit, and tries again for
# 24 hours; the events of a request refused for its age are those of a replay, or are lost.
TOLERANCE: Seconds = 5 * MINUTE
# Bytes: SendGrid posts at most 768 KB at a time.
BODY_LIMIT = 1_000 * 1024
# An ECDSA signature in base64: of P-256 it has 96 characters at most, of the largest curve 188.
_LONGEST_SIGNATURE = 200

_KINDS: Mapping[str, Kind] = {
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
# Why SendGrid did not even try: what it knows of the address.
_DROPPED: Mapping[str, Suppress] = {
    "bounced address": "bounced",
    "invalid": "bounced",
    "spam reporting address": "complained",
    "unsubscribed address": "opted_out",
}


def hooks(settings: Settings, _policy: Policy) -> list[Hook]:
    """The one address for all events."""
    keys, own = _keys(settings), our_pages(settings)

    def admit(headers: Mapping[str, str]) -> None:
        signed_headers(keys, headers)

    def checked(posted: Posted) -> list[Feedback]:
        verify(keys, posted)
        return read(posted.body, own)

    return [Hook("/hooks/sendgrid", "Events of e-mails, from SendGrid", admit, checked, BODY_LIMIT)]


def _keys(settings: Settings) -> list[ec.EllipticCurvePublicKey]:
    keys = []
    if settings.sendgrid_webhook_key:
        keys.append(_public_key(settings.sendgrid_webhook_key))
    if settings.providers == "sandbox":
        keys.append(sendgrid_key(settings).public_key())
    return keys


def _public_key(text: str) -> ec.EllipticCurvePublicKey:
    """The key as SendGrid shows it, with or without the lines around it."""
    try:
        key = load_der_public_key(b64decode(re.sub(r"-----[A-Z ]+-----|\s", "", text)))
    except (ValueError, UnsupportedAlgorithm) as error:
        key, why = None, str(error)
    else:
        why = "it is a key of another kind"
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SegueError(
            f"SEGUE_SENDGRID_WEBHOOK_KEY is no verification key ({why}). Copy it from SendGrid: "
            "Settings, Mail Settings, Event Webhook, Signature Verification"
        )
    return key


def signed_headers(
    keys: Sequence[ec.EllipticCurvePublicKey], headers: Mapping[str, str]
) -> tuple[str, str]:
    """The signature and its time, still to be checked. Raises Refused."""
    if not keys:
        raise Refused(
            "there is no key to check it with; set SEGUE_SENDGRID_WEBHOOK_KEY to the verification "
            "key of SendGrid's signed event webhook"
        )
    signature, timestamp = headers.get(SIGNATURE), headers.get(TIMESTAMP)
    if signature is None or timestamp is None:
        raise Refused("it is not signed; switch on the signature of SendGrid's event webhook")
    if len(signature) > _LONGEST_SIGNATURE:
        raise Refused("its signature is too long to be one")
    if not (len(timestamp) < 15 and timestamp.isascii() and timestamp.isdecimal()):
        raise Refused("the time of its signature is no number")
    return signature, timestamp


def verify(keys: Sequence[ec.EllipticCurvePublicKey], posted: Posted) -> None:
    """Raise Refused unless the request is SendGrid's, and of now."""
    signature, timestamp = signed_headers(keys, posted.headers)
    signed = timestamp.encode() + posted.body
    if not any(_signed_by(key, signature, signed) for key in keys):
        raise Refused("its signature is wrong; is SEGUE_SENDGRID_WEBHOOK_KEY the key of this hook?")
    if posted.now is not None and abs(posted.now - int(timestamp)) > TOLERANCE:
        raise Refused(f"it was signed {posted.now - int(timestamp)} s ago; {TOLERANCE} are allowed")


def _signed_by(key: ec.EllipticCurvePublicKey, signature: str, signed: bytes) -> bool:
    try:
        key.verify(b64decode(signature, validate=True), signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def read(body: bytes, own: tuple[str, ...] = ()) -> list[Feedback]:
    """What the events say; kinds that we have no use for are left out. Raises Unreadable.

    own: what the links to customers' own pages begin with. A click on one of them is no
    click: it only says that SendGrid has the mail.

    Half an emoji in one of them must not cost the others.
    """
    try:
        events = read_json(body)
    except NoJSON as error:
        raise Unreadable(str(error)) from error
    if not isinstance(events, list):
        raise Unreadable("it is no JSON array of events")
    found = (_feedback(event, own) for event in events if isinstance(event, dict))
    return [one for one in found if one is not None]


def _feedback(event: Mapping[str, Any], own: tuple[str, ...]) -> Feedback | None:
    name = event.get("event")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return None
    if kind == "clicked" and _text(event, "url").strip().startswith(own):
        kind = "sent"
    machine = event.get("sg_machine_open") is True
    if kind == "opened" and machine:
        kind = "machine_opened"
    written = _text(event, "email").strip()
    address = address_of("email", written)
    return Feedback(
        id=f"sendgrid {_text(event, 'sg_event_id')[:100] or _digest(event)}",
        source=f"sendgrid {name}",
        channel="email",
        kind=kind,
        at=_timestamp(event),
        message_id=our_id(event.get("message_id")),
        address=address or None,
        provider_id=_text(event, "sg_message_id") or None,
        reason=_reason(event, kind, {written, address} - {""}),
        suppress=_suppress(event, kind),
        whole_channel=name == "unsubscribe",
        properties=_properties(event, kind),
    )


def _suppress(event: Mapping[str, Any], kind: Kind) -> Suppress | None:
    if kind == "complained":
        return "complained"
    if kind == "bounced":
        # A block is of this mail (its content, our reputation, a full mailbox), not of the address.
        return None if event.get("type") == "blocked" else "bounced"
    if kind == "failed":
        return _DROPPED.get(_text(event, "reason").strip().lower())
    return None


def _reason(event: Mapping[str, Any], kind: Kind, spellings: Set[str]) -> str | None:
    """The mail server's words, without the address: it has no place in a reason."""
    if kind not in ("bounced", "failed"):
        return None
    words = " ".join(filter(None, (_text(event, "status"), _text(event, "reason"))))
    for address in spellings:
        words = re.sub(re.escape(address), "…", words, flags=re.IGNORECASE)
    what = _text(event, "type") or _text(event, "event")
    return f"sendgrid {what}: {words}"[:300].rstrip(": ")


def _properties(event: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    if kind == "clicked":
        return {"url": _text(event, "url")}
    if kind == "machine_opened":
        return {"machine": True}
    if kind == "bounced":
        return {"blocked": event.get("type") == "blocked"}
    return {}


def _text(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""


def _timestamp(event: Mapping[str, Any]) -> int | None:
    value = event.get("timestamp")
    return value if type(value) is int and value > 0 else None


def _digest(event: Mapping[str, Any]) -> str:
    """In the place of an id: the same words are the same event."""
    packed = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(packed).hexdigest()[:32]
