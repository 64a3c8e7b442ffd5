"""FCM's `POST /v1/projects/{project}/messages:send`: its responses and errors.

Facts from the provider's REST reference (Message, AndroidConfig, ApnsConfig, WebpushConfig,
ErrorCode). As in every Google API, a field may be written in snake_case or in camelCase.
"""

import re
from typing import Annotated, Any
from uuid import uuid4

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from sandbox.providers.provider_api import ApiCall, ApiResponse, bearer, json_answer
from sandbox.store import Accepted

MAX_PAYLOAD = 4096  # bytes of data and notification
_TOKEN = re.compile(r"[A-Za-z0-9_:.-]+")
_RESERVED_KEY = re.compile(r"from|message_type|google.*|gcm.*")
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"

Text = Annotated[str, Field(strict=True)]
Strings = dict[str, Text]
Bool = Annotated[bool, Field(strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, validate_by_alias=True, validate_by_name=True
    )


class _Options(_Part):
    analytics_label: Text | None = None


class _ApnsOptions(_Options):
    image: Text | None = None


class _WebpushOptions(_Options):
    link: Text | None = None


class _Notification(_Part):
    title: Text | None = None
    body: Text | None = None
    image: Text | None = None


class _AndroidNotification(_Notification):
    icon: Text | None = None
    color: Text | None = None
    sound: Text | None = None
    tag: Text | None = None
    click_action: Text | None = None
    body_loc_key: Text | None = None
    body_loc_args: list[Text] | None = None
    title_loc_key: Text | None = None
    title_loc_args: list[Text] | None = None
    channel_id: Text | None = None
    ticker: Text | None = None
    sticky: Bool | None = None
    event_time: Text | None = None
    local_only: Bool | None = None
    notification_priority: Text | None = None
    default_sound: Bool | None = None
    default_vibrate_timings: Bool | None = None
    default_light_settings: Bool | None = None
    vibrate_timings: list[Text] | None = None
    visibility: Text | None = None
    notification_count: int | None = None
    light_settings: dict[str, Any] | None = None
    proxy: Text | None = None


class _Android(_Part):
    collapse_key: Text | None = None
    priority: Annotated[str, Field(pattern="(?i)^(normal|high)$")] | None = None
    ttl: Annotated[str, Field(pattern=r"^\d+(\.\d{1,9})?s$")] | None = None
    restricted_package_name: Text | None = None
    data: Strings = {}
    notification: _AndroidNotification | None = None
    fcm_options: _Options | None = None
    direct_boot_ok: Bool | None = None
    bandwidth_constrained_ok: Bool | None = None
    restricted_satellite_ok: Bool | None = None


class _Apns(_Part):
    headers: Strings = {}
    payload: dict[str, Any] = {}
    fcm_options: _ApnsOptions | None = None
    live_activity_token: Text | None = None


class _Webpush(_Part):
    headers: Strings = {}
    data: Strings = {}
    notification: dict[str, Any] = {}
    fcm_options: _WebpushOptions | None = None


class _Message(_Part):
    name: Text | None = None
    data: Strings = {}
    notification: _Notification | None = None
    android: _Android | None = None
    apns: _Apns | None = None
    webpush: _Webpush | None = None
    fcm_options: _Options | None = None
    token: Text | None = None
    fid: Text | None = None
    topic: Text | None = None
    condition: Text | None = None


class _Request(_Part):
    message: _Message
    validate_only: Bool = False


def answer(call: ApiCall) -> ApiResponse:
    """Validate one request; 200 with the message's name."""
    if not bearer(call):
        return failure(401, call)
    try:
        request = _Request.model_validate_json(call.body)
    except ValidationError as error:
        return _violations([_violation(each) for each in error.errors(include_url=False)])
    message = request.message
    targets = [
        target
        for target in (message.token, message.fid, message.topic, message.condition)
        if target is not None
    ]
    if len(targets) != 1:
        return _invalid("Exactly one of token, fid, topic and condition is the recipient.")
    token = message.token if message.token is not None else message.fid
    if token is not None:
        # The sandbox has no register of installed apps: the token's text decides the outcome.
        if token.startswith("gone"):
            return _error(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")
        if not _TOKEN.fullmatch(token) or token.startswith("bad"):
            return _invalid("The registration token is not a valid FCM registration token")
    for key in message.data:
        if _RESERVED_KEY.fullmatch(key):
            return _invalid(f"Invalid data payload key: {key}")
    notification = message.notification or _Notification()
    size = len(orjson.dumps([message.data, notification.title, notification.body]))
    if size > MAX_PAYLOAD:
        return _invalid(f"The message is too big: {size} bytes, at most {MAX_PAYLOAD} are allowed.")
    name = f"projects/{call.path['project']}/messages/{uuid4().int % 10**19}"
    accepted = [] if request.validate_only else [_accept(message, targets[0], name)]
    return json_answer(200, {"name": name}, accepted=accepted)


def failure(status: int, _call: ApiCall, retry_after: int = 0) -> ApiResponse:
    """The error body for a refusal that is unrelated to the message."""
    canonical, words, code = {
        401: ("UNAUTHENTICATED", "Request is missing a valid OAuth 2 access token.", None),
        403: ("PERMISSION_DENIED", "The caller does not have permission.", None),
        429: ("RESOURCE_EXHAUSTED", "Quota exceeded.", "QUOTA_EXCEEDED"),
        500: ("INTERNAL", "Internal error encountered.", "INTERNAL"),
        503: ("UNAVAILABLE", "The service is currently unavailable.", "UNAVAILABLE"),
    }[status]
    headers = {"Retry-After": str(retry_after)} if status == 429 else {}
    return _error(status, canonical, words, code, headers)


def _error(
    status: int,
    canonical: str,
    message: str,
    code: str | None,
    headers: dict[str, str] | None = None,
) -> ApiResponse:
    details = [{"@type": _FCM_ERROR, "errorCode": code}] if code else []
    return json_answer(status, _status(status, canonical, message, details), headers)


def _invalid(message: str) -> ApiResponse:
    return _error(400, "INVALID_ARGUMENT", message, "INVALID_ARGUMENT")


def _violations(violations: list[dict[str, str]]) -> ApiResponse:
    """The error for a body of the wrong shape, which has no FcmError among its details."""
    message = "\n".join(violation["description"] for violation in violations)
    details = [{"@type": _BAD_REQUEST, "fieldViolations": violations}]
    return json_answer(400, _status(400, "INVALID_ARGUMENT", message, details))


def _status(code: int, canonical: str, message: str, details: list[Any]) -> dict[str, Any]:
    error = {"code": code, "message": message, "status": canonical}
    return {"error": error | ({"details": details} if details else {})}


def _violation(error: ErrorDetails) -> dict[str, str]:
    *parents, name = [str(part) for part in error["loc"]] or [""]
    if error["type"] == "extra_forbidden":
        field, words = ".".join(parents), f'Unknown name "{name}"'
        if field:
            words += f" at '{field}'"
        words += ": Cannot find field."
    else:
        field = ".".join([*parents, name])
        words = f"Invalid value at '{field}': {error['msg']}" if field else error["msg"]
    return {"field": field, "description": f"Invalid JSON payload received. {words}"}


def _accept(message: _Message, target: str, name: str) -> Accepted:
    """One notification: the common fields, or those of the one platform that has some."""
    common = message.notification or _Notification()
    android = (message.android and message.android.notification) or _AndroidNotification()
    alert = _aps_alert(message.apns)
    web = message.webpush.notification if message.webpush else {}
    title = common.title or android.title or alert.get("title") or web.get("title") or ""
    body = common.body or android.body or alert.get("body") or web.get("body") or ""
    return Accepted(
        channel="push",
        message_id=message.data.get("message_id"),
        provider_id=name,
        address=target,
        title=str(title or body),
        content={
            "title": str(title),
            "body": str(body),
            "image": common.image or android.image or "",
            "platforms": [
                platform
                for platform, part in (
                    ("Android", message.android),
                    ("iOS", message.apns),
                    ("Web", message.webpush),
                )
                if part
            ],
            "data": message.data,
        },
    )


def _aps_alert(apns: _Apns | None) -> dict[str, Any]:
    aps = apns.payload.get("aps") if apns else None
    alert = aps.get("alert") if isinstance(aps, dict) else None
    return alert if isinstance(alert, dict) else {}
