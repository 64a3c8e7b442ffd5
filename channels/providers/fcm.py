"""Push by Firebase Cloud Messaging: `POST /v1/projects/{project}/messages:send`, one a request.

Source: REST reference (Message, AndroidConfig, ApnsConfig, WebpushConfig, ErrorCode). The JSON is
built here, because firebase-admin's encoder is private; a test compares the results.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request as FetchToken
from google.oauth2 import service_account
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from channels.kinds.push import PushContent
from channels.providers.base import Provider, ProviderSettings
from channels.providers.sending import (
    Authorize,
    ErrorMeaning,
    Outgoing,
    ProviderRequest,
    SendOutcome,
    SignInFailed,
    json_object,
    result_of,
    retry_after,
)
from config.clock.times import DAY, MINUTE, Seconds
from config.errors import SegueError
from config.required import Need
from config.settings import Settings, Url

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
LONGEST_TTL: Seconds = 28 * DAY
# Google's minimum wait without Retry-After: 60 s after a 429, 10 s after a 503, then exponential.
QUOTA_WAIT: Seconds = MINUTE
SERVER_WAIT: Seconds = 10
# Seconds. google-auth's default is 120 s, longer than a claim lasts, and it would block a thread of
# the pool that database work uses.
TOKEN_WITHIN = 10.0


# By FcmError.errorCode, if it is more specific than the HTTP status.
_ERRORS: Mapping[object, ErrorMeaning] = {
    "UNREGISTERED": ErrorMeaning("failed", suppress="unregistered"),
    # The token belongs to another project's app. A 403 that concerns this token only.
    "SENDER_ID_MISMATCH": ErrorMeaning("failed", suppress="unregistered"),
    "INVALID_ARGUMENT": ErrorMeaning("failed"),
    "QUOTA_EXCEEDED": ErrorMeaning("retry"),
    "UNAVAILABLE": ErrorMeaning("retry"),
    "INTERNAL": ErrorMeaning("unknown"),
    "THIRD_PARTY_AUTH_ERROR": ErrorMeaning("stopped"),  # our APNs or web push key
}


class FCMSettings(ProviderSettings):
    """SEGUE_FCM_*."""

    model_config = SettingsConfigDict(env_prefix="SEGUE_FCM_")

    url: Url = Field(default="https://fcm.googleapis.com", description="The base URL of FCM's API.")
    credentials_file: Path | None = Field(
        default=None,
        description="Path of the JSON key of a service account of the Firebase project.",
    )
    project: str = Field(
        default="", description="Firebase project id. Empty: the project of the credentials."
    )

    def sandbox_account(self, _secret: bytes) -> Mapping[str, Any]:
        """No credentials: the sandbox accepts any token."""
        return {"credentials_file": None, "project": self.project or "segue-sandbox"}


def connect(own: FCMSettings, _settings: Settings) -> "FCM":
    """Create the sender. Without a credentials file (sandbox mode) it has a fixed token.

    Raises SegueError for an invalid file.
    """
    if own.credentials_file is None:
        return FCM(own.url, own.project, headers={"Authorization": "Bearer sandbox"})
    try:
        credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
            str(own.credentials_file), scopes=[SCOPE]
        )
    except (OSError, ValueError) as error:
        raise SegueError(
            f"SEGUE_FCM_CREDENTIALS_FILE {own.credentials_file}: {error}. Set it to the JSON key "
            "of a service account, from the Firebase console, Project settings, Service accounts"
        ) from error
    return FCM(own.url, own.project or credentials.project_id, auth=GoogleToken(credentials))


class GoogleToken:
    """Authorizes with an OAuth token, which a thread fetches before the previous one expires.

    For one event loop.
    """

    def __init__(self, credentials: Credentials, within: float = TOKEN_WITHIN) -> None:
        self._credentials = credentials
        self._within = within
        self._fetching = asyncio.Lock()

    async def __call__(self) -> str:
        """The Authorization header.

        Raises SignInFailed if Google refuses the account, ConnectError if it is unreachable.
        """
        # google-auth treats a token as invalid some minutes before it expires.
        if not self._credentials.valid:
            async with self._fetching:
                if not self._credentials.valid:
                    await self._fetch()
        return f"Bearer {self._credentials.token}"

    async def _fetch(self) -> None:
        try:
            fetch = partial(FetchToken(), timeout=self._within)
            await asyncio.to_thread(self._credentials.refresh, fetch)
        except GoogleAuthError as error:
            # google-auth does not mark its own timeouts as retryable.
            if error.retryable or isinstance(error, TransportError):
                raise httpx.ConnectError(f"can't fetch a token from Google: {error}") from error
            raise SignInFailed(f"Google refuses to issue a token: {error}") from error


class FCM:
    """One notification a request."""

    batch_size = 1

    def __init__(
        self,
        url: str,
        project: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: Authorize | None = None,
    ) -> None:
        self.auth = auth
        self._url = f"{url}/v1/projects/{project}/messages:send"
        self._headers = {"Content-Type": "application/json", **(headers or {})}

    def prepare(self, batch: Sequence[Outgoing]) -> ProviderRequest:
        """Only the parts for the device's platform; all parts if it is unknown."""
        [one] = batch
        if not isinstance(one.content, PushContent):
            raise TypeError(f"message {one.message_id} is not a push notification")
        content = one.content
        message: dict[str, Any] = {
            "token": one.to,
            "notification": _given(title=content.title, body=content.body, image=content.image),
            # The app reports `push_opened` with the id, and opens the link.
            "data": _given(message_id=str(one.message_id), link=content.link),
        }
        if one.platform in (None, "android"):
            message["android"] = _android(one)
        if one.platform in (None, "ios"):
            message["apns"] = _apns(one, content)
        if one.platform in (None, "web"):
            message["webpush"] = _webpush(one, content)
        return ProviderRequest(
            "POST", self._url, headers=self._headers, content=orjson.dumps({"message": message})
        )

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[SendOutcome]:
        """By FCM's error code if it is known, else by the HTTP status."""
        [one] = batch
        answer = json_object(body)
        if result_of(status) == "sent":
            name = answer.get("name")
            return [
                SendOutcome(
                    one.message_id, "sent", provider_id=name if isinstance(name, str) else None
                )
            ]
        error = answer.get("error")
        error = error if isinstance(error, dict) else {}
        code = _error_code(error)
        words = str(error.get("message", "")).replace(one.to, "…")
        result, _, suppress = _ERRORS.get(code) or ErrorMeaning(result_of(status))
        if code == "INVALID_ARGUMENT" and "registration token" in words:
            suppress = "unregistered"
        reason = f"fcm {code or status}: {words}"[:300].rstrip(": ")
        if result == "retry":
            first = QUOTA_WAIT if status == 429 else SERVER_WAIT
            wait = retry_after(headers)
            return [
                SendOutcome(
                    one.message_id, result, reason=reason, retry_after=wait, first_wait=first
                )
            ]
        return [SendOutcome(one.message_id, result, reason=reason, suppress=suppress)]


# On all platforms the message id is the collapse key: a repeated notification replaces the first.
# FCM stores at most four collapse keys for an offline device and drops further messages.


def _android(one: Outgoing) -> dict[str, Any]:
    key = str(one.message_id)
    return _given(collapse_key=key, ttl=_ttl(one, "s"), notification={"tag": key})


def _apns(one: Outgoing, content: PushContent) -> dict[str, Any]:
    headers = {"apns-collapse-id": str(one.message_id)}
    if one.ttl is not None and one.now is not None:
        headers["apns-expiration"] = str(one.now + min(one.ttl, LONGEST_TTL))
    # iOS plays no sound by default. Only a mutable notification reaches the app extension that
    # downloads images.
    aps = _given(
        sound=None if content.silent else "default",
        **{"mutable-content": 1 if content.image else None},
    )
    return _given(
        headers=headers,
        payload={"aps": aps} if aps else None,
        fcm_options={"image": content.image} if content.image else None,
    )


def _webpush(one: Outgoing, content: PushContent) -> dict[str, Any]:
    key = str(one.message_id)
    # FCM accepts https links only.
    link = content.link if content.link and content.link.startswith("https://") else None
    return _given(
        headers=_given(Topic=key, TTL=_ttl(one)),
        notification=_given(tag=key, image=content.image),
        fcm_options={"link": link} if link else None,
    )


def _ttl(one: Outgoing, unit: str = "") -> str | None:
    return None if one.ttl is None else f"{min(one.ttl, LONGEST_TTL)}{unit}"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _error_code(error: Mapping[str, Any]) -> str | None:
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and isinstance(code := detail.get("errorCode"), str):
            return code
    return None


PROVIDER = Provider(
    name="fcm",
    channel="push",
    default=True,
    settings=FCMSettings,
    connect=connect,
    needs=(Need("credentials_file", "no push can be sent"),),
)
