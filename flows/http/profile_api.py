"""`GET /v1/profiles/{kind}:{value}`: one profile, for systems that face the customer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from flows.http.context import Receiver
from flows.http.errors import Refusal, json_response, problems
from flows.http.ingest.keys import WRITE_KEY, Authentication
from flows.http.limits.rates import Rates
from journeys.explain.profile_view import (
    PROFILE_FIELDS,
    ProfileField,
    ProfileViews,
    Unverified,
)
from profiles.attributes.countries import country_code
from profiles.identity.person import Key, excerpt, read_key
from profiles.identity.placeholders import Meaningless
from profiles.tables import IdentifierKind

# Everything behind it is an identifier, which may contain slashes.
PREFIX = "/v1/profiles/"
_KINDS: Mapping[str, IdentifierKind] = {kind: kind for kind in get_args(IdentifierKind)}
_EVENTS, _MOST_EVENTS = 10, 100
_EXAMPLE = "user_id:u-1042"
_HEADERS = {"Cache-Control": "no-store"}

_DESCRIPTION = f"""Reads one profile by an identifier in any spelling, such as `{_EXAMPLE}` or
`email:Ann@Example.com`: {", ".join(f"`{kind}`" for kind in _KINDS)}. Percent-encode the value. A
profile that was merged into another one is found as part of it.

The response has the fields that `fields` names, by default all. It contains each call that was
answered before the request was sent."""
_ANSWERS = problems(
    s400="The identifier or a parameter is invalid; the message names it and the fix",
    s401="The key is missing or wrong",
    s403="The key is a public key, or the identifier is an anonymous id that an unverified address "
    "joined to a profile (`unverified`)",
    s404="No profile uses this identifier",
    s429="More requests with this key than `SEGUE_PROFILE_RATE`, or too many wrong keys; "
    "Retry-After has the seconds to wait",
    s503="Database error; send the request again",
)
_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "identifier",
        "in": "path",
        "required": True,
        "description": "The kind, a colon and the value.",
        "schema": {"type": "string"},
        "example": _EXAMPLE,
    },
    {
        "name": "fields",
        "in": "query",
        "description": "Names with commas between them. Default: all.",
        "style": "form",
        "explode": False,
        "schema": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "enum": [*PROFILE_FIELDS]},
        },
        "example": ["attributes", "segments"],
    },
    {
        "name": "events",
        "in": "query",
        "description": "How many of the last events.",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": _MOST_EVENTS,
            "default": _EVENTS,
        },
    },
    {
        "name": "country",
        "in": "query",
        "description": "The country in which a phone number without its country code is dialled.",
        "schema": {"type": "string", "example": "GB"},
    },
]


class ShownConsent(BaseModel):
    """The current consent for a channel (topic `*`) or a topic on it. Without an entry it is unset:
    the policy says what that means."""

    channel: str
    topic: str
    granted: bool
    changed_at: str


class ShownEnrollment(BaseModel):
    """A journey that the profile is in. It is at `step` since `arrived_at`, and next moves at
    `due_at` or before."""

    journey: str
    entry_key: str | None
    entered_at: str
    step: str
    arrived_at: str
    due_at: str


class ShownEvent(BaseModel):
    """An event, with its own time."""

    event: str
    occurred_at: str
    properties: dict[str, Any]


class ShownGroup(BaseModel):
    """The company of the profile, with the traits that `group` calls state of it."""

    id: str
    traits: dict[str, Any]


class IdentifierOfProfile(BaseModel):
    """An id, or an address in use. Nothing is sent to a suppressed one on at least one channel."""

    kind: IdentifierKind
    value: str
    platform: str | None = None
    suppressed: bool


class ShownProfile(BaseModel):
    """The fields that were asked for. Times are ISO 8601 in UTC."""

    attributes: dict[str, Any] | None = None
    consents: list[ShownConsent] | None = None
    events: list[ShownEvent] | None = None
    group: ShownGroup | None = None
    identifiers: list[IdentifierOfProfile] | None = None
    journeys: list[ShownEnrollment] | None = None
    segments: list[str] | None = None


def router(receiver: Receiver, auth: Authentication) -> APIRouter:
    """`GET /v1/profiles/{identifier}`."""
    segue = receiver.segue
    views = ProfileViews(segue.catalog)
    rates = Rates(segue.settings.profile_rate)
    routes = APIRouter(tags=["profiles"])

    def read(asked: "_Asked") -> dict[str, Any] | Unverified | None:
        with segue.db.transaction(write=False) as tx:
            return views.read(tx, asked.key, asked.fields, asked.events)

    @routes.get(
        f"{PREFIX}{{identifier:path}}",
        summary="Read a profile",
        description=_DESCRIPTION,
        response_model=ShownProfile,
        responses=_ANSWERS,
        dependencies=[WRITE_KEY],
        openapi_extra={"parameters": _PARAMETERS},
    )
    async def profile(request: Request) -> Response:
        try:
            found = await answer(request)
        except Refusal as refusal:
            refusal.headers = {**(refusal.headers or {}), **_HEADERS}
            raise
        return json_response(200, found, **_HEADERS)

    async def answer(request: Request) -> dict[str, Any]:
        key = await auth.server_key(request)
        if wait := rates.wait(key.label):
            message = "too many requests for profiles with this key; send the request again later"
            raise Refusal(429, "too_many", message, headers={"Retry-After": str(wait)})
        rates.take(key.label, 1)
        asked = _asked(request, segue.rules.meaningless)
        with receiver.in_progress.one():
            found = await receiver.threads.run(read, asked)
        if found is None:
            raise Refusal(404, "not_found", "no profile uses this identifier")
        if isinstance(found, Unverified):
            message = (
                "this anonymous id joined its profile by an address that nobody has verified; ask "
                "by another identifier, or let a server key identify it with the user id"
            )
            raise Refusal(403, "unverified", message)
        return found

    return routes


class _Asked(NamedTuple):
    """A request for a profile. events: how many."""

    key: Key
    fields: Sequence[ProfileField]
    events: int


def _asked(request: Request, meaningless: Meaningless) -> _Asked:
    """Read the path and the parameters of a request. Raises Refusal (400)."""
    query = request.query_params
    names = query.getlist("fields")
    return _Asked(
        _key(_identifier(request), query.get("country"), meaningless),
        _fields(",".join(names)) if names else PROFILE_FIELDS,
        _number(query["events"]) if "events" in query else _EVENTS,
    )


def _identifier(request: Request) -> str:
    """The identifier in the path. Raises Refusal for bytes that are not UTF-8."""
    raw: bytes | None = request.scope.get("raw_path")
    if raw is None:
        return str(request.scope["path"])[len(PREFIX) :]
    try:
        return unquote_to_bytes(raw).decode()[len(PREFIX) :]
    except UnicodeDecodeError:
        raise _invalid("identifier", "percent-encode its UTF-8") from None


def _key(identifier: str, country: str | None, meaningless: Meaningless) -> Key:
    kind, colon, value = identifier.partition(":")
    if not colon:
        message = f"write the kind, a colon and the value, such as {_EXAMPLE}"
        raise _invalid("identifier", message)
    if kind not in _KINDS:
        message = f"there is no kind {excerpt(kind)}; the kinds are {', '.join(_KINDS)}"
        raise _invalid("identifier", message)
    code = country_code(country)
    if country is not None and code is None:
        message = f"{excerpt(country)} is not a country; use its ISO code or English name"
        raise _invalid("country", message)
    if not value.strip():
        raise _invalid("identifier", "the value is empty")
    if value in meaningless:
        raise _invalid("identifier", f"{excerpt(value)} is a placeholder, which identifies nobody")
    try:
        return read_key(_KINDS[kind], value, code)
    except ValueError as error:
        raise _invalid("identifier", str(error)) from None


def _fields(text: str) -> Sequence[ProfileField]:
    """The fields that a list with commas names, in the order of PROFILE_FIELDS."""
    named = {name.strip() for name in text.split(",")}
    for name in sorted(named.difference(PROFILE_FIELDS)):
        what = f"there is no field {excerpt(name)}" if name else "a name is missing"
        raise _invalid("fields", f"{what}; the fields are {', '.join(PROFILE_FIELDS)}")
    return [name for name in PROFILE_FIELDS if name in named]


def _number(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= _MOST_EVENTS:
        return int(text)
    raise _invalid("events", f"write a number from 1 to {_MOST_EVENTS}")


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(400, "invalid", message, field=field)
