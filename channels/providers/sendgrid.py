"""E-mail by SendGrid, `POST /v3/mail/send`.

A request carries one content for all its recipients. So each mail is a request of its own, unless
`sendgrid_template_id` names a pass-through dynamic template (`{{{subject}}}`, `{{{html}}}`,
`{{{text}}}`): then up to 1000 mails go in one.

Facts from SendGrid's mail-send reference: "Mail Send", "Errors", "Limitations".
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import httpx
import orjson

from channels.links import our_pages
from channels.providers.base import (
    DoesNotFit,
    Outcome,
    Outgoing,
    Request,
    bounded,
    json_object,
    outcomes,
    result_of,
    retry_after,
    server_time,
)
from channels.templates.content import EmailContent
from config.policy import Channel
from config.settings import Settings
from config.times import Seconds

MAX_BATCH = 1000
# A request must stay under 30 MB.
MAX_BYTES = 29_000_000
# `clicktracking="off"` on an anchor has no effect on the text part, in which SendGrid can wrap all
# links or none. Naming one of the two needs naming the other.
_TRACKING = {"click_tracking": {"enable": True, "enable_text": False}}
# Fields that hold what an operator set, not what a message brought along.
_OURS = ("from", "reply_to", "template_id")


def connect(settings: Settings) -> "SendGrid":
    """SendGrid, or the sandbox in its place."""
    if settings.providers == "live":
        return SendGrid(
            settings, settings.sendgrid_url, settings.sendgrid_api_key.get_secret_value()
        )
    return SendGrid(settings, settings.sandbox_url, "SG.sandbox")


class SendGrid:
    """One mail a request, or many through a pass-through template."""

    channel: Channel = "email"
    auth: httpx.Auth | None = None

    def __init__(self, settings: Settings, url: str, api_key: str) -> None:
        self.batch_size = MAX_BATCH if settings.sendgrid_template_id else 1
        self._url = f"{url}/v3/mail/send"
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
        }
        self._template_id = settings.sendgrid_template_id
        self._from = {"email": settings.sendgrid_from, "name": settings.brand}
        self._reply_to = settings.sendgrid_reply_to
        self._our_anchors = _anchors(our_pages(settings))

    def prepare(self, batch: Sequence[Outgoing]) -> Request:
        """Raises DoesNotFit when the batch is too large, names an address twice, or is of several
        journeys or steps.
        """
        # Categories belong to the request; each may be given only once.
        categories = list(dict.fromkeys((batch[0].journey, batch[0].step)))
        if len({(one.journey, one.step) for one in batch}) > 1:
            raise DoesNotFit
        # SendGrid refuses a whole request for an address that it names twice.
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
            # It takes no empty part, and wants the plain text first.
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
        return Request("POST", self._url, self._headers, body)

    def _template_data(self, one: Outgoing) -> dict[str, str]:
        content = _content(one)
        return {"subject": content.subject, "html": self._html(content), "text": content.text}

    def _html(self, content: EmailContent) -> str:
        """The HTML part. SendGrid wraps no link to our own pages: a click on one is no click."""
        return self._our_anchors.sub(r'<a clicktracking="off"', content.html)

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[Outcome]:
        """A request is accepted as a whole or not at all."""
        result = result_of(status)
        if result == "sent":
            # One id for all the mails of a request: what tells them apart is our custom argument.
            sent_as = headers.get("x-message-id")
            return [Outcome(one.message_id, "sent", provider_id=sent_as) for one in batch]
        errors = _errors(body)
        told = "; ".join(_told(error) for error in errors)
        reason = f"sendgrid {status}: {told}"[:300].rstrip(": ")
        if result != "failed":
            return outcomes(batch, result, reason, _wait(status, headers))
        if any(_field(error)[0] in _OURS for error in errors):
            return outcomes(batch, "stopped", reason)
        return _refused(status, errors, batch) or outcomes(batch, "failed", reason)


def _personalization(one: Outgoing) -> dict[str, Any]:
    to: dict[str, Any] = {
        "to": [{"email": one.to}],
        "custom_args": {"message_id": str(one.message_id)},
    }
    if one.unsubscribe_url:
        # One-click unsubscribe, RFC 8058.
        to["headers"] = {
            "List-Unsubscribe": f"<{one.unsubscribe_url}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }
    return to


def _anchors(urls: Sequence[str]) -> re.Pattern[str]:
    """The beginning of each `<a>` whose `href` begins with one of the URLs."""
    begin = "|".join(re.escape(escape(url)) for url in urls)
    attributes = r"""(?:[^<>"']|"[^"]*"|'[^']*')*?"""
    return re.compile(rf"""<a\b(?={attributes}\shref\s*=\s*["']?\s*(?:{begin}))""", re.IGNORECASE)


def _content(one: Outgoing) -> EmailContent:
    if not isinstance(one.content, EmailContent):
        raise TypeError(f"message {one.message_id} is no e-mail")
    return one.content


def _refused(
    status: int, errors: Sequence[Mapping[str, Any]], batch: Sequence[Outgoing]
) -> list[Outcome]:
    """The outcomes when errors name mails (`personalizations.3.to.0.email`); empty when none do."""
    named: dict[int, Mapping[str, Any]] = {}
    for error in errors:
        first, *rest = _field(error)
        if first == "personalizations" and rest and rest[0].isdecimal():
            named.setdefault(int(rest[0]), error)
    if not any(number < len(batch) for number in named):
        return []
    return [
        # SendGrid took nothing of the request, so the others may go again, and at once.
        Outcome(
            one.message_id,
            "retry",
            f"sendgrid {status}: another mail in the same request was refused",
            retry_after=1,
        )
        if number not in named
        else Outcome(
            one.message_id,
            "failed",
            f"sendgrid {status}: {_told(named[number])}"[:300],
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


def _told(error: Mapping[str, Any]) -> str:
    field = error.get("field")
    return f"{error.get('message')} ({field})" if field else str(error.get("message"))


def _wait(status: int, headers: Mapping[str, str]) -> Seconds | None:
    """Retry-After, or when the rate limit begins anew (an instant by the provider's clock)."""
    reset, now = headers.get("x-ratelimit-reset", ""), server_time(headers)
    if status == 429 and "retry-after" not in headers and reset.isdecimal() and now is not None:
        return bounded(int(reset) - now)
    return retry_after(headers)
