"""`POST /hooks/journeys/{name}`: another system starts a journey for customers."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from config.access.signatures import SIGNATURE, TIMESTAMP
from config.database.engine import Tx
from flows.app import Segue
from flows.http.backlog import Backlog
from flows.http.body import KB, parse_object, read_posted
from flows.http.context import Receiver
from flows.http.errors import Refusal, json_response, problems
from flows.http.ingest.keys import (
    TOLERANCE,
    SignedHeaders,
    check_age,
    check_signature,
    signed_headers,
)
from journeys.engine.due import due_people
from journeys.launches.api_start import Starter, StartRefused, remember, start
from journeys.launches.launching import LaunchConflict
from journeys.operations.queues import waiting_events
from profiles.calls.segment_calls import refusal
from profiles.identity.person import id_text, normalise_id

BODY_LIMIT = 500 * KB
PEOPLE_LIMIT = 1000

_EXAMPLE: dict[str, Any] = {
    "id": "order-7731-shipped",
    "people": [{"user_id": "u-1042", "context": {"order_id": "7731", "carrier": "Post"}}],
}
_DESCRIPTION = f"""Enters customers into a journey by its re-entry rule. Templates read `context` as
`event`; the entry key is one of its values. Responds 200 once the enrollments are committed.

`id` names the launch. A repeat with the same id enters nobody twice, so a call without a response
can be sent again, with a new signature. Without an id, every call is a launch of its own.

`{SIGNATURE}` is the HMAC-SHA256, in hex, of `{TIMESTAMP}`, a dot, the path (such as
`/hooks/journeys/welcome`), a dot and the body as sent, with the key SEGUE_HOOK_SECRET. A signature
is valid once, for this journey, within five minutes of its timestamp."""
_HEADERS = [
    {
        "name": TIMESTAMP,
        "in": "header",
        "required": True,
        "description": "When the call was signed, in seconds since 1970 UTC.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,12}$", "example": "1772445600"},
    },
    {
        "name": SIGNATURE,
        "in": "header",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    },
]
_ANSWERS = problems(
    s400="A field is invalid; the message names it and the fix",
    s401="The signature is missing, wrong, or older than five minutes",
    s404="The journey does not exist",
    s409="The call is a repeat, the id belongs to another launch, or the journey is stopped",
    s413="The body is larger than 500 KB",
    s429="Too much work is waiting; Retry-After has the seconds to wait",
    s503="Database error; send it again with the same id, nobody enters twice",
)


def _user_id(value: object) -> object:
    return normalise_id(id_text(value))


class Named(BaseModel):
    """One customer."""

    model_config = ConfigDict(extra="forbid")

    user_id: Annotated[str, BeforeValidator(_user_id)] = Field(min_length=1)
    context: dict[str, Any] = Field(default_factory=dict)


class Start(BaseModel):
    """The customers to enter, and the id of the launch."""

    model_config = ConfigDict(extra="forbid")

    people: list[Named] = Field(min_length=1, max_length=PEOPLE_LIMIT)
    id: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^\S+$")


class StartResult(BaseModel):
    """The result of a start.

    `unknown`: user ids without a profile. `not_entered`: user ids that the re-entry rule refused,
    such as those that are in the journey now.
    """

    success: bool
    journey: str
    launch: str
    entered: int
    unknown: list[str]
    not_entered: list[str]


def router(receiver: Receiver) -> APIRouter:
    """`POST /hooks/journeys/{name}`."""
    segue = receiver.segue
    backlogs = {
        name: Backlog(segue.db, segue.settings.backlog_limit, waiting=_waiting_in(segue, name))
        for name in segue.catalog.current
    }
    routes = APIRouter(tags=["journeys"])

    @routes.post(
        "/hooks/journeys/{name}",
        summary="Start a journey",
        description=_DESCRIPTION,
        response_model=StartResult,
        responses=_ANSWERS,
        openapi_extra={
            "parameters": [
                {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
                *_HEADERS,
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _inline_schema(), "example": _EXAMPLE}},
            },
        },
    )
    async def start_journey(request: Request) -> Response:
        signed = signed_headers(request.headers)
        body = await read_posted(request, BODY_LIMIT)
        check_signature(segue.settings, signed, request.scope["path"], body)
        name = request.path_params["name"]
        if name not in backlogs:
            known = ", ".join(sorted(backlogs))
            raise Refusal(404, "not_found", f"there is no such journey; there are: {known}")
        await backlogs[name].check()
        call = _read(body)
        with receiver.in_progress.one():
            started = await receiver.threads.run(_start, receiver, name, call, signed)
        receiver.arrived(())
        return json_response(200, started.model_dump())

    return routes


def _waiting_in(segue: Segue, journey: str) -> Callable[[Tx, int], int]:
    """Count the work that delays a start: waiting events, and due enrollments of this journey.

    Due enrollments of other journeys do not count: their large launch must not block, for example,
    a parcel notification.
    """

    def waiting(tx: Tx, most: int) -> int:
        return waiting_events(tx, most) + due_people(tx, segue.catalog, journey, most)

    return waiting


def _read(body: bytes) -> Start:
    try:
        return Start.model_validate(parse_object(body))
    except ValidationError as error:
        fault = refusal(error)
        raise Refusal(400, "invalid", fault.why, field=fault.field) from None


def _start(receiver: Receiver, name: str, call: Start, signed: SignedHeaders) -> StartResult:
    segue = receiver.segue
    launch_id = call.id or f"signed-{signed.signature[:16]}"
    placeholders = [one.user_id for one in call.people if one.user_id in segue.rules.meaningless]
    people = [Starter(o.user_id, o.context) for o in call.people if o.user_id not in placeholders]
    try:
        with segue.db.transaction() as tx:
            check_age(signed.at, tx.now)
            # A signature is valid from TOLERANCE before its timestamp to TOLERANCE after it, so its
            # record must last longer than 2 * TOLERANCE.
            if not remember(tx, signed.signature, lasts=3 * TOLERANCE):
                raise Refusal(
                    409, "replayed", "a call with this signature was accepted before; sign it again"
                )
            done = start(tx, segue.catalog, name, launch_id, people)
    except (StartRefused, LaunchConflict) as error:
        raise Refusal(409, "not_started", str(error)) from None
    return StartResult(
        success=True,
        journey=name,
        launch=launch_id,
        entered=done.entered,
        unknown=[*done.unknown, *placeholders],
        not_entered=list(done.not_entered),
    )


def _inline_schema() -> dict[str, Any]:
    """The schema without references, as needed inside the description of a path."""
    schema = Start.model_json_schema()
    parts = schema.pop("$defs")
    schema["properties"]["people"]["items"] = parts["Named"]
    return schema
