"""SMS by Twilio, `POST /2010-04-01/Accounts/{sid}/Messages.json`: one message a request.

Facts from Twilio's Messages resource and its error dictionary.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

import httpx

from channels.providers.base import (
    Outcome,
    Outgoing,
    Request,
    Result,
    Suppress,
    json_object,
    result_of,
    retry_after,
)
from channels.templates.content import SMSContent
from config.policy import Channel
from config.settings import Settings

# What Twilio takes as ValidityPeriod, in seconds.
_SHORTEST, _LONGEST = 1, 36_000


class Verdict(NamedTuple):
    """What an error code means for the message, and for the number."""

    result: Result
    words: str
    suppress: Suppress | None = None


# Codes that the HTTP status alone would misread, or that say something about the number. Those
# from 30000 on come later, in status callbacks.
ERRORS: Mapping[int, Verdict] = {
    20003: Verdict("stopped", "the credentials are not accepted"),
    20429: Verdict("retry", "too many requests"),
    21211: Verdict("failed", "no valid phone number", "bounced"),
    21212: Verdict("stopped", "SEGUE_TWILIO_FROM is no valid sender"),
    21408: Verdict("failed", "texts to this country are not enabled"),
    21603: Verdict("stopped", "SEGUE_TWILIO_FROM is missing"),
    21610: Verdict("failed", "the recipient replied STOP", "opted_out"),
    21614: Verdict("failed", "no mobile number", "bounced"),
    21701: Verdict("stopped", "the messaging service of SEGUE_TWILIO_FROM does not exist"),
    21703: Verdict("stopped", "the messaging service of SEGUE_TWILIO_FROM has no sender"),
    30003: Verdict("failed", "the handset can't be reached"),  # switched off, perhaps: no bounce
    30005: Verdict("failed", "the number is unknown", "unregistered"),
    30006: Verdict("failed", "a landline, or a network without SMS", "bounced"),
    30007: Verdict("failed", "filtered as spam"),
}


def connect(settings: Settings) -> "Twilio":
    """Twilio, or the sandbox in its place."""
    if settings.providers == "live":
        return Twilio(
            settings,
            settings.twilio_url,
            settings.twilio_account_sid,
            settings.twilio_auth_token.get_secret_value(),
            settings.twilio_from,
        )
    # The number is the one that Twilio keeps for tests.
    sender = settings.twilio_from or "+15005550006"
    return Twilio(settings, settings.sandbox_url, "AC" + "0" * 32, "sandbox", sender)


class Twilio:
    """One text message a request."""

    channel: Channel = "sms"
    batch_size = 1
    auth: httpx.Auth | None = None

    def __init__(
        self, settings: Settings, url: str, account_sid: str, auth_token: str, sender: str
    ) -> None:
        self._url = f"{url}/2010-04-01/Accounts/{account_sid}/Messages.json"
        basic = b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {basic}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        by = "MessagingServiceSid" if sender.startswith("MG") else "From"
        self._sender = {by: sender}
        self._callback = f"{settings.public_url}/hooks/twilio/status?message_id="

    def prepare(self, batch: Sequence[Outgoing]) -> Request:
        """Our id goes out in the StatusCallback, the only place that comes back."""
        [one] = batch
        if not isinstance(one.content, SMSContent):
            raise TypeError(f"message {one.message_id} is no text message")
        form = {
            "To": one.to,
            **self._sender,
            "Body": one.content.body,
            "StatusCallback": f"{self._callback}{one.message_id}",
        }
        if one.ttl is not None:
            form["ValidityPeriod"] = str(max(_SHORTEST, min(one.ttl, _LONGEST)))
        return Request("POST", self._url, self._headers, urlencode(form).encode())

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[Outcome]:
        """The error code says it better than the HTTP status, where we know it."""
        [one] = batch
        answer = json_object(body)
        if result_of(status) == "sent":
            sid = answer.get("sid")
            return [
                Outcome(one.message_id, "sent", provider_id=sid if isinstance(sid, str) else None)
            ]
        code = answer.get("code")
        known = ERRORS.get(code) if isinstance(code, int) else None
        # Twilio's words hold the number, which has no place in a reason.
        words = known.words if known else str(answer.get("message", "")).replace(one.to, "…")
        verdict = known or Verdict(result_of(status), words)
        return [
            Outcome(
                one.message_id,
                verdict.result,
                f"twilio {code if isinstance(code, int) else status}: {words}"[:300].rstrip(": "),
                retry_after=retry_after(headers) if verdict.result == "retry" else None,
                suppress=verdict.suppress,
            )
        ]
