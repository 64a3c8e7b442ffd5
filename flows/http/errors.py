"""Error responses: JSON with a code, the fault and its fix.

Responses contain no stack trace and no message of a library. Unexpected errors are logged with an
id and without the request's data, because messages of exceptions can contain customers' data.
"""

import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.clock.times import Seconds
from config.database.failures import of_the_database, reason_of

log = logging.getLogger(__name__)

_RETRY_AFTER: Seconds = 5
# Code and message by status, for errors that Starlette raises. Its own messages give no fix.
_MESSAGES = {
    404: ("not_found", "this path does not exist; /openapi.json lists the paths"),
    405: ("wrong_method", "this path does not accept this method; /openapi.json lists the methods"),
}


class FieldFault(BaseModel):
    """One fault in a request, and the field that has it."""

    field: str
    message: str


class Problem(BaseModel):
    """The body of an error response. It lists at most the first hundred faults of a batch."""

    success: bool = False
    code: str
    message: str
    field: str | None = None
    errors: list[FieldFault] | None = None
    more_errors: int | None = None
    accepted: int | None = None
    warnings: list[str] | None = None
    more_warnings: int | None = None


class Refusal(Exception):
    """Ends a request with a status, a code, and a message with the fault and its fix."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(
            code=code, message=f"{field}: {message}" if field else message, field=field
        )
        self.headers = headers


def json_response(status: int, body: Mapping[str, Any] | Problem, **headers: str) -> Response:
    """A JSON response."""
    content = body.model_dump(exclude_none=True) if isinstance(body, Problem) else body
    return Response(orjson.dumps(content), status, headers, "application/json")


def problems(**statuses: str) -> dict[int | str, dict[str, Any]]:
    """The error statuses of a route for OpenAPI, given as `s400="why"`.

    They refer to `problem_schemas` by name. For a model FastAPI would build a validator for each
    status of each route, which takes more time than all else that builds the application.
    """
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        int(name.removeprefix("s")): {"content": body, "description": why}
        for name, why in statuses.items()
    }


def problem_schemas() -> dict[str, Any]:
    """The schemas that `problems` refers to, by name."""
    _, found = models_json_schema(
        [(Problem, "serialization")], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas


def install(app: FastAPI) -> None:
    """Install the error handlers and the middleware in the application."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _refused_by_starlette)
    app.add_middleware(_UnexpectedErrors)
    app.add_middleware(_Head)


def refused(refusal: Refusal) -> Response:
    """The response that a refusal describes."""
    return json_response(refusal.status, refusal.problem, **(refusal.headers or {}))


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refused(error)


async def _refused_by_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, message = _MESSAGES.get(error.status_code, ("refused", error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods_of(request)))
    return json_response(error.status_code, Problem(code=code, message=message), **headers)


def _methods_of(request: Request) -> set[str]:
    """All methods of a path. Starlette's own Allow header names only those of the first route."""
    found: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= route.methods or set()
    return found | {"HEAD"} if "GET" in found else found


class _Head:
    """Answer HEAD as GET without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, without_body)


class _UnexpectedErrors:
    """Catch unexpected errors outside all routes.

    Starlette would pass them to the server, which logs their messages.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting_start)
        except ClientDisconnect:
            return
        except Exception as error:
            response = _unexpected(error)
            if not started:
                await response(scope, receive, send)


def _unexpected(error: Exception) -> Response:
    name = uuid4().hex[:12]
    log.error("error %s: %s", name, reason_of(error), extra={"error_id": name})
    if of_the_database(error):
        # Part of the request can be committed: batches are written in several transactions.
        message = (
            f"database error; send the request again, accepted parts count only once (error {name})"
        )
        problem = Problem(code="try_again", message=message)
        return json_response(503, problem, **{"Retry-After": str(_RETRY_AFTER)})
    message = f"internal error; the log has the details under {name}"
    return json_response(500, Problem(code="failed", message=message))
