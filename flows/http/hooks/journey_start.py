"""`POST /hooks/journeys/{name}`: another system enters customers into a journey."""

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
from flows.http.errors import Refusal, answer, problems
from flows.http.ingest.keys import (
    TOLERANCE,
    SignedHeaders,
    check_age,
    check_signature,
    signed_headers,
)
from journeys.engine.due import due_people
from journeys.engine.launches import LaunchConflict
from journeys.operations.api_start import Starter, StartRefused, remember, start
from journeys.operations.queues import waiting_events
from profiles.identity.person import id_text, normalise_id
from profiles.identity.segment_calls import refusal

BODY_LIMIT = 500 * KB
PEOPLE_LIMIT = 1000

_EXAMPLE: dict[str, Any] = {
    "id": "order-7731-shipped",
    "people": [{"user_id": "u-1042", "context": {"order_id": "7731", "carrier": "Post"}}],
}
_DESCRIPTION = f"""Enters people into a journey by its re-entry rule; templates see `context` as
`event`, and the entry's key is read from it. 200 once that is committed.

`id` makes a launch: the same id again enters nobody twice, so a call that got no answer can be
sent again, signed anew. Left out, every call is a launch of its own.

`{SIGNATURE}` is the HMAC-SHA256 of `{TIMESTAMP}`, a dot, the path (such as
`/hooks/journeys/welcome`), a dot and the body as sent, with SEGUE_HOOK_SECRET, in hex. A signature
is good for this journey, for five minutes, and once."""
_HEADERS = [
    {
        "name": TIMESTAMP,
        "in": "header",
        "required": True,
        "description": "Seconds since 1970, when the call was signed.",
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
    s400="Something in it is wrong: which field, and what to do about it",
    s401="Not signed, wrongly signed, for another journey, or more than five minutes ago",
    s404="There is no such journey",
    s409="This very call was taken before, the id is another journey's, or the journey is stopped",
    s413="Larger than 500 KB",
    s429="Too much waits already; Retry-After says when to come again",
    s503="The database is in trouble; send it again with the same id, and nobody enters twice",
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

    `unknown`: user ids without a profile. `not_entered`: user ids that the re-entry rule refused or
    that already are in the journey.
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
        wanted = _read(body)
        with receiver.in_hand.one():
            started = await receiver.threads.run(_start, receiver, name, wanted, signed)
        receiver.arrived()
        return answer(200, started.model_dump())

    return routes


def _waiting_in(segue: Segue, journey: str) -> Callable[[Tx, int], int]:
    """Count the work that delays a start: waiting events, and due enrollments of this journey.

    Due enrollments of other journeys do not count: a large launch elsewhere must not block, for
    example, a parcel notification.
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


def _start(receiver: Receiver, name: str, wanted: Start, signed: SignedHeaders) -> StartResult:
    segue = receiver.segue
    launch_id = wanted.id or f"signed-{signed.signature[:16]}"
    nobody = [one.user_id for one in wanted.people if one.user_id in segue.rules.meaningless]
    people = [Starter(o.user_id, o.context) for o in wanted.people if o.user_id not in nobody]
    try:
        with segue.db.transaction() as tx:
            check_age(signed.at, tx.now)
            # A signature is valid from TOLERANCE before its timestamp to TOLERANCE after it, so it
            # must be remembered for longer than 2 * TOLERANCE.
            if not remember(tx, signed.signature, lasts=3 * TOLERANCE):
                raise Refusal(409, "replayed", "this very call was taken before; sign it anew")
            done = start(tx, segue.catalog, name, launch_id, people)
    except (StartRefused, LaunchConflict) as error:
        raise Refusal(409, "not_started", str(error)) from None
    return StartResult(
        success=True,
        journey=name,
        launch=launch_id,
        entered=done.entered,
        unknown=[*done.unknown, *nobody],
        not_entered=list(done.not_entered),
    )


def _inline_schema() -> dict[str, Any]:
    """The schema without references, as needed inside the description of a path."""
    schema = Start.model_json_schema()
    parts = schema.pop("$defs")
    schema["properties"]["people"]["items"] = parts["Named"]
    return schema
