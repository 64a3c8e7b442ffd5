"""Twilio's `POST /2010-04-01/Accounts/{sid}/Messages.json`: its responses and errors.

Facts from the provider's Messages resource, error dictionary and test-credential pages.
"""

import binascii
import re
from base64 import b64decode
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit
from uuid import uuid4

import orjson

from channels.kinds.sms import segments
from sandbox.providers.provider_api import ApiCall, ApiResponse, json_answer
from sandbox.store import Accepted

MAX_BODY = 1600  # characters
_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
# A number, a short code, or a name of at most eleven characters with a letter in it.
_SENDER = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}")
# The prefix of WhatsApp addresses, and the SID of a Content template.
WHATSAPP = "whatsapp:"
_TEMPLATE = re.compile(r"HX[0-9a-fA-F]{32}")
_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
# The provider's magic numbers: each gives its own error.
_MAGIC = {"+15005550001": 21211, "+15005550004": 21610, "+15005550009": 21614}

_WORDS = {
    20003: (401, "Authenticate"),
    20403: (403, "Forbidden"),
    20429: (429, "Too Many Requests"),
    20500: (500, "Internal Server Error"),
    20503: (503, "Service unavailable"),
    21211: (400, "The 'To' number {to} is not a valid phone number."),
    21212: (400, "The 'From' number {sender} is not a valid sender."),
    21602: (400, "Message body is required."),
    21603: (400, "A 'From' or a 'MessagingServiceSid' is required."),
    21604: (400, "A 'To' phone number is required."),
    21609: (400, "The 'StatusCallback' URL {callback} is not a valid URL."),
    21610: (400, "Attempt to send to unsubscribed recipient {to}."),
    21614: (400, "'To' number {to} is not a valid mobile number."),
    21655: (400, "The ContentSid is Invalid."),
    21656: (400, "The Content Variables parameter is invalid."),
    63007: (400, "Twilio could not find a Channel with the specified From address {sender}."),
    21617: (400, "The message body exceeds the 1600 character limit."),
}


def answer(call: ApiCall) -> ApiResponse:
    """Validate one request; 201 with the message's SID."""
    account = call.path["sid"]
    if not _signed_in(call, account):
        return _refusal(20003)
    try:
        form = dict(parse_qsl(call.body.decode(), keep_blank_values=True))
    except UnicodeDecodeError:
        form = {}
    code = _refused(form, call)
    if code:
        return _refusal(code, form)
    message = _message(account, form, call)
    whatsapp = form["To"].startswith(WHATSAPP)
    text = form.get("Body") or form["ContentSid"]
    accepted = Accepted(
        channel="whatsapp" if whatsapp else "sms",
        message_id=_message_id(form.get("StatusCallback", "")),
        provider_id=message["sid"],
        address=form["To"].removeprefix(WHATSAPP),
        title=text,
        content={
            "from": message["from"] or message["messaging_service_sid"],
            "body": form.get("Body", ""),
            "template": form.get("ContentSid", ""),
            "variables": _variables(form),
            "segments": int(message["num_segments"]),
            "account": account,
            "callback": form.get("StatusCallback", ""),
        },
    )
    return json_answer(201, message, accepted=[accepted])


def failure(status: int, _call: ApiCall, retry_after: int) -> ApiResponse:
    """The error body for a refusal that is unrelated to the message."""
    headers = {"Retry-After": str(retry_after)} if status == 429 else {}
    return _refusal(20003 if status == 401 else 20000 + status, headers=headers)


def _refused(form: dict[str, str], call: ApiCall) -> int | None:
    """The code of the first error, if there is one."""
    to, body, callback = (form.get(name, "") for name in ("To", "Body", "StatusCallback"))
    sender, service = form.get("From", ""), form.get("MessagingServiceSid", "")
    template = form.get("ContentSid", "")
    whatsapp = to.startswith(WHATSAPP)
    code: int | None = None
    if not to:
        code = 21604
    elif not _NUMBER.fullmatch(to.removeprefix(WHATSAPP)):
        code = 21211
    elif sender and whatsapp != sender.startswith(WHATSAPP):
        code = 63007
    elif template and not _TEMPLATE.fullmatch(template):
        code = 21655
    elif template and _variables(form) is None:
        code = 21656
    elif to in _MAGIC:
        code = _MAGIC[to]
    elif not _SERVICE.fullmatch(service) and not sender:
        code = 21603
    elif sender and not _SENDER.fullmatch(sender.removeprefix(WHATSAPP)):
        code = 21212
    elif not body and not template:
        code = 21602
    elif len(body) > MAX_BODY:
        code = 21617
    elif to in call.opted_out:
        code = 21610
    elif callback and not _is_url(callback):
        code = 21609
    return code


def _signed_in(call: ApiCall, account: str) -> bool:
    """Basic auth with the account's SID, or an API key's (SK...), and some secret."""
    scheme, _, encoded = call.headers.get("authorization", "").partition(" ")
    try:
        user, _, secret = b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return scheme.lower() == "basic" and bool(secret) and (user == account or user[:2] == "SK")


def _variables(form: dict[str, str]) -> dict[str, str] | None:
    """The values of a template's variables; None: the field is not an object of strings."""
    try:
        found = orjson.loads(form.get("ContentVariables") or "{}")
    except orjson.JSONDecodeError:
        return None
    texts = isinstance(found, dict) and all(isinstance(one, str) and one for one in found.values())
    return found if texts else None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _message_id(callback: str) -> str | None:
    """Our id, which is in the StatusCallback URL: the only field that Twilio returns."""
    return next(iter(parse_qs(urlsplit(callback).query).get("message_id", [])), None)


def _message(account: str, form: dict[str, str], call: ApiCall) -> dict[str, Any]:
    """The message as the provider describes it: numbers as text, dates as in e-mail."""
    sid = "SM" + uuid4().hex
    created = format_datetime(datetime.fromtimestamp(call.now, UTC))
    uri = f"/2010-04-01/Accounts/{account}/Messages/{sid}"
    service = form.get("MessagingServiceSid")
    return {
        "account_sid": account,
        "api_version": "2010-04-01",
        "body": form.get("Body", ""),
        "date_created": created,
        "date_sent": None,
        "date_updated": created,
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": form.get("From"),
        "messaging_service_sid": service,
        "num_media": "0",
        "num_segments": str(segments(form.get("Body", ""))),
        "price": None,
        "price_unit": "USD",
        "sid": sid,
        # A messaging service chooses the sender later: until then the status is accepted.
        "status": "accepted" if service else "queued",
        "subresource_uris": {"media": f"{uri}/Media.json"},
        "to": form["To"],
        "uri": f"{uri}.json",
    }


def _refusal(
    code: int, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> ApiResponse:
    status, words = _WORDS[code]
    form = form or {}
    message = words.format(
        to=form.get("To", ""),
        sender=form.get("From", ""),
        callback=form.get("StatusCallback", ""),
    )
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return json_answer(status, body, headers)
