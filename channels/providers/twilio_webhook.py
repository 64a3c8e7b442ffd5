"""Twilio's call-backs: what became of a text message, and what people text back.

Signed with HMAC-SHA1 over the address and the form's fields, or over the address alone where that
holds the hash of a JSON body. Facts from Twilio's pages "Webhooks security", "Twilio's request to
your webhook", "Track outbound message status" and "Opt-out keywords", and from its own SDK.
"""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import parse_qs, parse_qsl, urlparse

from twilio.request_validator import add_port, remove_port

from channels.outbox.replies import Reply, Words, read_reply, words_of
from channels.providers.twilio import ERRORS
from channels.providers.webhook import Feedback, Hook, Kind, Posted, Refused, Unreadable, our_id
from config.access.sandbox_keys import twilio_token
from config.json_input import NoJSON, read_json
from config.policy import Policy
from config.settings import Settings
from profiles.identity.person import address_of

SIGNATURE = "x-twilio-signature"
# Bytes, and fields. Twilio names no limit of its own. A text has at most 1,600 characters (20 KB of
# emoji, urlencoded) and ten media files with two fields each, beside some thirty fields.
BODY_LIMIT = 64 * 1024
FIELDS_LIMIT = 200
# A SHA-1 in base64.
_SIGNATURE_LENGTH = 28
# An empty answer: Twilio itself confirms a STOP, once, and we say nothing on top of it.
SILENCE = b'<?xml version="1.0" encoding="UTF-8"?><Response></Response>'

_STATUSES: Mapping[str, Kind] = {
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


def hooks(settings: Settings, policy: Policy) -> list[Hook]:
    """Status and inbound."""
    tokens, words = _tokens(settings), words_of(policy)
    admit = partial(signature_of, tokens)

    def status(posted: Posted) -> list[Feedback]:
        return read_status(fields(tokens, posted), posted.url)

    def inbound(posted: Posted) -> list[Feedback]:
        return read_inbound(fields(tokens, posted), words)

    return [
        Hook(
            "/hooks/twilio/status",
            "What became of a text message, from Twilio",
            admit,
            status,
            BODY_LIMIT,
        ),
        Hook(
            "/hooks/twilio/inbound",
            "What somebody texted to our number, from Twilio",
            admit,
            inbound,
            BODY_LIMIT,
            SILENCE,
            "text/xml",
        ),
    ]


def _tokens(settings: Settings) -> list[str]:
    configured = settings.twilio_auth_token.get_secret_value()
    tokens = [configured] if configured else []
    if settings.providers == "sandbox":
        tokens.append(twilio_token(settings))
    return tokens


def signature_of(tokens: Sequence[str], headers: Mapping[str, str]) -> str:
    """The signature, still to be checked. Raises Refused."""
    if not tokens:
        raise Refused("there is no key to check it with; set SEGUE_TWILIO_AUTH_TOKEN")
    signature = headers.get(SIGNATURE)
    if signature is None:
        raise Refused("it is not signed")
    if len(signature) != _SIGNATURE_LENGTH:
        raise Refused("its signature is not as long as Twilio's")
    return signature


def fields(tokens: Sequence[str], posted: Posted) -> Mapping[str, str]:
    """The fields of a request that is Twilio's. Raises Refused or Unreadable."""
    signature = signature_of(tokens, posted.headers)
    is_json = posted.headers.get("content-type", "").startswith("application/json")
    pairs = [] if is_json else _pairs(posted.body)
    if not any(_signed_with(token, signature, posted.url, pairs) for token in tokens):
        raise Refused(
            "its signature is wrong; is SEGUE_TWILIO_AUTH_TOKEN that of the account, and "
            "SEGUE_PUBLIC_URL the address that Twilio knows?"
        )
    if not is_json:
        return dict(pairs)
    if not _hash_matches(posted):
        raise Refused("its body is not the one whose hash its address holds")
    return _json_fields(posted.body)


def _pairs(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form. Blank ones are signed too, and so are those of tomorrow."""
    try:
        return parse_qsl(
            body.decode(errors="replace"), keep_blank_values=True, max_num_fields=FIELDS_LIMIT
        )
    except ValueError:
        raise Refused(f"it has more than {FIELDS_LIMIT} fields") from None


def _hash_matches(posted: Posted) -> bool:
    [named, *_] = parse_qs(urlparse(posted.url).query).get("bodySHA256", [""])
    actual = hashlib.sha256(posted.body).hexdigest()
    return hmac.compare_digest(named.encode(), actual.encode())


def _signed_with(token: str, signature: str, url: str, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether it is the HMAC-SHA1 of the address and the fields in their order, each once.

    Twilio's own package computes the same, in time that is the square of the number of fields.
    """
    signed = "".join(name + value for name, value in sorted(set(pairs)))
    address = urlparse(url)
    # Twilio signs the address now with its port, now without.
    return any(
        hmac.compare_digest(
            b64encode(hmac.digest(token.encode(), f"{one}{signed}".encode(), "sha1")),
            signature.encode(),
        )
        for one in (remove_port(address), add_port(address))
    )


def _json_fields(body: bytes) -> Mapping[str, str]:
    try:
        found = read_json(body)
    except NoJSON as error:
        raise Unreadable(str(error)) from error
    if not isinstance(found, dict):
        raise Unreadable("it is no JSON object")
    return {name: str(value) for name, value in found.items() if value is not None}


def read_status(form: Mapping[str, str], url: str) -> list[Feedback]:
    """What became of the message whose id of ours stands in the address; nothing of other kinds."""
    status, sid = form.get("MessageStatus", "").lower(), _sid(form)
    kind = _STATUSES.get(status)
    if kind is None:
        return []
    [ours, *_] = parse_qs(urlparse(url).query).get("message_id", [""])
    code = _clean(form, "ErrorCode")[:20] if kind == "failed" else ""
    known = ERRORS.get(our_id(code) or 0)
    return [
        Feedback(
            id=f"twilio {sid} {status}",
            source=f"twilio {code if known else status}",
            channel="sms",
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


def read_inbound(form: Mapping[str, str], words: Words) -> list[Feedback]:
    """What somebody texted. With Advanced Opt-Out Twilio says itself what it took it for."""
    text = _clean(form, "Body")
    whatsapp = form.get("From", "").startswith("whatsapp:")
    reply = _OPT_OUT_TYPES.get(form.get("OptOutType", "").upper()) or read_reply(text, words)
    if whatsapp and reply.meaning == "started":
        # A yes on WhatsApp is none to text messages.
        reply = Reply("replied")
    return [
        Feedback(
            id=f"twilio {_sid(form)}",
            source=f"twilio {reply.word or 'reply'}",
            channel="sms",
            kind=reply.meaning,
            address=_address(form, "From"),
            properties={"text": text},
        )
    ]


def _sid(form: Mapping[str, str]) -> str:
    """Twilio's id of the message; where there is none, the same words are the same message."""
    named = _clean(form, "MessageSid") or _clean(form, "SmsSid")
    return named[:100] or hashlib.sha256(repr(sorted(form.items())).encode()).hexdigest()[:32]


def _address(form: Mapping[str, str], name: str) -> str | None:
    return address_of("phone", _clean(form, name)) or None


def _clean(form: Mapping[str, str], name: str) -> str:
    # PostgreSQL keeps no NUL.
    return form.get(name, "").replace("\0", "")
