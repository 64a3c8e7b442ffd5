"""Postmark's `POST /email/batch`: its responses and error texts.

Facts from the provider's pages "Send batch emails", "API error codes" and "Custom metadata FAQ".
"""

import re
from collections.abc import Iterator
from email.utils import parseaddr
from typing import Annotated, Any
from uuid import uuid4

import orjson
from pydantic import BaseModel, Field, ValidationError

from config.clock.times import format_instant
from sandbox.providers.provider_api import ApiCall, ApiResponse, json_answer
from sandbox.store import Accepted

MAX_BATCH = 500
MAX_BODY = 50_000_000
_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;.]+", re.ASCII)
_STREAM = re.compile(r"[a-z][a-z0-9_-]*")
_FAILURES = {
    401: (10, "The Server Token you provided in the X-Postmark-Server-Token header is not valid."),
    403: (403, "Forbidden"),
    429: (429, "Rate limit exceeded."),
    500: (500, "Internal Server Error"),
    503: (100, "The Postmark API is offline for maintenance."),
}

Text = Annotated[str, Field(strict=True)]


class _Header(BaseModel):
    name: Text = Field(alias="Name")
    value: Text = Field(alias="Value")


class _Mail(BaseModel):
    sender: Text = Field("", alias="From")
    to: Text = Field("", alias="To")
    subject: Text = Field("", alias="Subject")
    html: Text = Field("", alias="HtmlBody")
    text: Text = Field("", alias="TextBody")
    tag: Annotated[str, Field(strict=True, max_length=1000)] = Field("", alias="Tag")
    metadata: dict[str, Text] = Field({}, alias="Metadata")
    headers: list[_Header] = Field([], alias="Headers")
    track_links: Text = Field("None", alias="TrackLinks")
    stream: Text = Field("outbound", alias="MessageStream")


def answer(call: ApiCall) -> ApiResponse:
    """Validate one request; 200 with a result for each mail, as the provider does."""
    if not call.headers.get("x-postmark-server-token", "").strip():
        return failure(401, call)
    if len(call.body) > MAX_BODY:
        return json_answer(413, {"ErrorCode": 413, "Message": "Payload Too Large"})
    try:
        mails = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        mails = None
    if not isinstance(mails, list):
        return _refusal(402, "Received invalid JSON input.")
    if len(mails) > MAX_BATCH:
        return _refusal(410, f"A batch may have at most {MAX_BATCH} messages.")
    answers, accepted = [], []
    for each in mails:
        code, words, mail = _judge(each, call)
        if code or mail is None:
            answers.append({"ErrorCode": code, "Message": words})
            continue
        message_id = str(uuid4())
        accepted.append(_accept(mail, message_id))
        answers.append(
            {
                "ErrorCode": 0,
                "Message": "OK",
                "MessageID": message_id,
                "SubmittedAt": format_instant(call.now),
                "To": mail.to,
            }
        )
    return json_answer(200, answers, accepted=accepted)


def failure(status: int, _call: ApiCall, retry_after: int = 0) -> ApiResponse:
    """The error body for a refusal that is unrelated to the mails."""
    code, words = _FAILURES[status]
    headers = {"Retry-After": str(retry_after)} if status == 429 else {}
    return json_answer(status, {"ErrorCode": code, "Message": words}, headers)


def _refusal(code: int, words: str) -> ApiResponse:
    return json_answer(422, {"ErrorCode": code, "Message": words})


def _judge(each: Any, call: ApiCall) -> tuple[int, str, _Mail | None]:
    try:
        mail = _Mail.model_validate(each)
    except ValidationError as error:
        [first, *_] = error.errors(include_url=False)
        field = ".".join(str(part) for part in first["loc"])
        return 403, f"Invalid request field {field}: {first['msg']}", None
    code, words = next(_complaints(mail, call), (0, ""))
    return code, words, mail


def _complaints(mail: _Mail, call: ApiCall) -> Iterator[tuple[int, str]]:
    _, sender = parseaddr(mail.sender)
    if not _ADDRESS.fullmatch(sender):
        yield 300, f"Invalid 'From' address: '{mail.sender}'."
    if not _ADDRESS.fullmatch(mail.to):
        yield 300, f"Invalid 'To' address: '{mail.to}'."
    if not (mail.html or mail.text):
        yield 300, "Provide either email TextBody or HtmlBody or both."
    if len(mail.metadata) > 10 or any(
        len(name) > 20 or len(value) > 80 for name, value in mail.metadata.items()
    ):
        yield (
            300,
            "Invalid metadata content. Metadata has at most 10 fields of 20 and 80 characters.",
        )
    if mail.track_links not in ("None", "HtmlAndText", "HtmlOnly", "TextOnly"):
        yield 300, f"Invalid TrackLinks value '{mail.track_links}'."
    if not _STREAM.fullmatch(mail.stream):
        yield 1235, "The MessageStream provided does not exist on this server."
    if mail.stream == "inbound":
        yield 1236, "Sending is not supported on the supplied MessageStream."
    if mail.to.lower() in call.opted_out:
        yield (
            406,
            "You tried to send to a recipient that has been marked as inactive. Found inactive "
            f"addresses: {mail.to.lower()}. Inactive recipients are ones that have generated a "
            "hard bounce, a spam complaint, or a manual suppression.",
        )


def _accept(mail: _Mail, message_id: str) -> Accepted:
    """One mail as its recipient sees it."""
    name, sender = parseaddr(mail.sender)
    return Accepted(
        channel="email",
        message_id=mail.metadata.get("message_id"),
        provider_id=message_id,
        address=mail.to.lower(),
        title=mail.subject,
        content={
            "from": sender,
            "from_name": name,
            "subject": mail.subject,
            "html": mail.html,
            "text": mail.text,
            "headers": {one.name: one.value for one in mail.headers},
            "categories": [one for one in (mail.tag, mail.stream) if one],
            "stream": mail.stream,
        },
    )
