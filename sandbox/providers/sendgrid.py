"""SendGrid's `POST /v3/mail/send`: what it accepts and refuses, with its error texts.

Facts from the provider's mail-send reference: the pages "Mail Send", "Errors", "Limitations".
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import uuid4

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from config.clock.times import HOUR
from sandbox.providers.provider_api import ApiCall, ApiResponse, bearer, json_answer, json_type
from sandbox.store import Accepted

MAX_RECIPIENTS = 1000
MAX_BODY = 30_000_000
MAX_ARGS = 10_000  # bytes of custom_args, and of substitutions, for one recipient
MAX_AHEAD = 72 * HOUR
RESERVED_HEADERS = frozenset(
    {
        *("to", "from", "subject", "reply-to", "cc", "bcc"),
        *("content-type", "content-transfer-encoding"),
        *("received", "dkim-signature", "x-sg-id", "x-sg-eid"),
    }
)
_RATE_LIMIT = 600  # requests a minute, for the headers only
_HELP = "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html#message."
_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;.]+", re.ASCII)

Text = Annotated[str, Field(strict=True)]
Filled = Annotated[str, Field(strict=True, min_length=1)]
Strings = dict[str, Text]
Timestamp = Annotated[int, Field(strict=True)]


class _Address(BaseModel):
    email: Text
    name: Text | None = None


class _Content(BaseModel):
    type: Filled
    value: Filled


class _Personalization(BaseModel):
    to: list[_Address] = Field(min_length=1)
    cc: list[_Address] = []
    bcc: list[_Address] = []
    subject: Filled | None = None
    headers: Strings = {}
    substitutions: Strings = {}
    dynamic_template_data: dict[str, Any] = {}
    custom_args: Strings = {}
    send_at: Timestamp | None = None


class _SandboxMode(BaseModel):
    enable: bool = False


class _MailSettings(BaseModel):
    sandbox_mode: _SandboxMode = _SandboxMode()


class _Mail(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    personalizations: list[_Personalization] = Field(min_length=1, max_length=MAX_RECIPIENTS)
    sender: _Address = Field(alias="from")
    reply_to: _Address | None = None
    subject: Filled | None = None
    content: list[_Content] | None = None
    template_id: Filled | None = None
    headers: Strings = {}
    categories: list[Annotated[str, Field(strict=True, max_length=255)]] = Field([], max_length=10)
    custom_args: Strings = {}
    send_at: Timestamp | None = None
    mail_settings: _MailSettings = _MailSettings()


Complaint = tuple[str, str]  # field, message


def answer(call: ApiCall) -> ApiResponse:
    """Validate one request; 202 with one X-Message-Id for all its mails, as the provider does."""
    if not bearer(call):
        return failure(401, call)
    if not call.headers.get("content-type", "").startswith("application/json"):
        return _refusal(415, [("", "Content-Type should be application/json.")])
    if len(call.body) > MAX_BODY:
        return _refusal(413, [("", "The payload is larger than 30 MB.")])
    try:
        mail = _Mail.model_validate_json(call.body)
    except ValidationError as error:
        return _refusal(400, [_complaint(each) for each in error.errors(include_url=False)])
    complaints = list(_complaints(mail, call))
    if complaints:
        return _refusal(400, complaints)
    headers = _rate_headers(call, left=_RATE_LIMIT - 1, reset=60)
    if mail.mail_settings.sandbox_mode.enable:
        return ApiResponse(200, b"", headers=headers)
    request_id = uuid4().hex[:22]
    accepted = [
        _accept(mail, to, f"{request_id}.{i}") for i, to in enumerate(mail.personalizations)
    ]
    return ApiResponse(202, b"", headers=headers | {"X-Message-Id": request_id}, accepted=accepted)


def failure(status: int, call: ApiCall, retry_after: int = 0) -> ApiResponse:
    """The error body for a refusal that is unrelated to the mail."""
    words = {
        401: "The provided authorization grant is invalid, expired, or revoked",
        403: "access forbidden",
        429: "too many requests",
        500: "internal server error",
        503: "service unavailable",
    }
    headers = {}
    if status == 429:
        headers = _rate_headers(call, left=0, reset=retry_after)
        headers["Retry-After"] = str(retry_after)
    return _refusal(status, [("", words[status])], headers)


def _rate_headers(call: ApiCall, *, left: int, reset: int) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(_RATE_LIMIT),
        "X-RateLimit-Remaining": str(left),
        "X-RateLimit-Reset": str(call.now + reset),
    }


def _refusal(
    status: int, complaints: list[Complaint], headers: dict[str, str] | None = None
) -> ApiResponse:
    errors = [
        {
            "message": message,
            "field": field or None,
            "help": _HELP + re.sub(r"\.\d+", "", field) if field else None,
        }
        for field, message in complaints
    ]
    return json_answer(status, {"errors": errors}, headers)


def _complaint(error: ErrorDetails) -> Complaint:
    """The provider's error text for a wrong shape."""
    field = ".".join(str(part) for part in error["loc"])
    kind = error["type"]
    if kind == "json_invalid" or not field:
        return "", "Bad Request"
    if kind == "too_long" and field == "personalizations":
        return field, f"At most {MAX_RECIPIENTS} personalizations fit in one request."
    if kind == "too_long" and field == "categories":
        return field, "There is a limit of 10 categories."
    if kind in ("missing", "too_short", "string_too_short"):
        return field, f"The {error['loc'][-1]} parameter is required and cannot be empty."
    wanted = {
        "string_type": "string",
        "int_type": "integer",
        "bool_type": "boolean",
        "bool_parsing": "boolean",
        "list_type": "array",
        "dict_type": "object",
        "model_type": "object",
    }.get(kind)
    if wanted:
        return field, f"Invalid type. Expected: {wanted}, given: {json_type(error['input'])}."
    return field, error["msg"]


def _complaints(mail: _Mail, call: ApiCall) -> Iterator[Complaint]:
    """The other errors that the provider finds in a mail of the right shape."""
    yield from _about_addresses(mail)
    yield from _about_content(mail)
    yield from _about_extras("", mail, mail.custom_args, call)
    for i, to in enumerate(mail.personalizations):
        yield from _about_extras(f"personalizations.{i}.", to, mail.custom_args, call)
        if len(orjson.dumps(to.substitutions)) > MAX_ARGS:
            yield f"personalizations.{i}.substitutions", f"Over {MAX_ARGS} bytes."
    if len(set(mail.categories)) < len(mail.categories):
        yield "categories", "Each category may be given only once."


def _about_addresses(mail: _Mail) -> Iterator[Complaint]:
    if not _ADDRESS.fullmatch(mail.sender.email):
        yield "from.email", "The from email does not contain a valid address."
    if mail.reply_to and not _ADDRESS.fullmatch(mail.reply_to.email):
        yield "reply_to.email", "Does not contain a valid address."
    seen: Counter[str] = Counter()
    for i, to in enumerate(mail.personalizations):
        for kind, addresses in (("to", to.to), ("cc", to.cc), ("bcc", to.bcc)):
            for j, address in enumerate(addresses):
                seen[address.email.lower()] += 1
                if not _ADDRESS.fullmatch(address.email):
                    yield (
                        f"personalizations.{i}.{kind}.{j}.email",
                        "Does not contain a valid address.",
                    )
    if seen.total() > MAX_RECIPIENTS:
        yield "personalizations", f"At most {MAX_RECIPIENTS} recipients (to + cc + bcc) a request."
    for email, times in seen.items():
        if times > 1:
            yield "personalizations", f"Each address may be given only once; {email} is repeated."


def _about_content(mail: _Mail) -> Iterator[Complaint]:
    if mail.template_id is None:
        if not mail.content:
            yield "content", "Unless a template_id is given, the content parameter is required."
        if not mail.subject and not all(to.subject for to in mail.personalizations):
            yield "subject", "The subject is required, for the mail or for every personalization."
    types = [part.type for part in mail.content or []]
    if types != sorted(types, key=lambda kind: {"text/plain": 0, "text/html": 1}.get(kind, 2)):
        yield "content", "text/plain comes first, then text/html, then anything else."


def _about_extras(
    prefix: str, part: _Mail | _Personalization, common: Strings, call: ApiCall
) -> Iterator[Complaint]:
    """Check headers, custom arguments and send_at, of the mail and of a personalization."""
    for name in part.headers:
        if name.lower() in RESERVED_HEADERS:
            yield f"{prefix}headers", f"The header {name} is reserved and cannot be set."
    if len(orjson.dumps(common | part.custom_args)) > MAX_ARGS:
        yield f"{prefix}custom_args", f"The custom arguments are over {MAX_ARGS} bytes."
    if part.send_at is not None and part.send_at > call.now + MAX_AHEAD:
        yield f"{prefix}send_at", "Scheduling more than 72 hours in advance is forbidden."


def _accept(mail: _Mail, to: _Personalization, provider_id: str) -> Accepted:
    """One mail as its recipient gets it."""
    if mail.template_id is None:
        subject = to.subject or mail.subject or ""
        html = _first(mail, "text/html")
        text = _first(mail, "text/plain")
    else:
        # The pass-through template: {{{subject}}}, {{{html}}}, {{{text}}}, each unchanged.
        data = to.dynamic_template_data
        subject, html, text = (
            value if isinstance(value := data.get(name), str) else ""
            for name in ("subject", "html", "text")
        )
    return Accepted(
        channel="email",
        message_id=(mail.custom_args | to.custom_args).get("message_id"),
        provider_id=provider_id,
        address=to.to[0].email.lower(),
        title=subject,
        content={
            "from": mail.sender.email,
            "from_name": mail.sender.name or "",
            "subject": subject,
            "html": html,
            "text": text,
            "headers": mail.headers | to.headers,
            "categories": mail.categories,
        },
    )


def _first(mail: _Mail, kind: str) -> str:
    return next((part.value for part in mail.content or [] if part.type == kind), "")
