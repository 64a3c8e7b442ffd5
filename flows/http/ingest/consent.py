"""`POST /v1/consent`: the shop's server states the consent of customers, with its evidence."""

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from flows.http.body import KB, parse_object, read_body
from flows.http.context import Receiver
from flows.http.errors import FieldFault, Problem, Refusal, json_response, problems
from flows.http.ingest.keys import WRITE_KEY, Authentication
from profiles.calls.segment_calls import CallRefused
from profiles.consent.opt_outs import No, take_opt_outs
from profiles.consent.statements import (
    ConsentStatement,
    Result,
    Stated,
    opt_out_stated,
    read_statement,
    take_statements,
)

BODY_LIMIT = 500 * KB
DECOMPRESSED_LIMIT = 2048 * KB
STATEMENTS_LIMIT = 1000
# The most faults that a response lists.
_LISTED = 100
_REFUSED_SOURCE = "a refused statement"

_EXAMPLE: dict[str, Any] = {
    "consents": [
        {
            "messageId": "f-88123",
            "userId": "u-1042",
            "channel": "email",
            "topic": "promotions",
            "granted": True,
            "timestamp": "2026-03-02T10:00:00Z",
            "source": "footer form",
            "wording": "Yes, send me offers and news by e-mail.",
            "evidence": {"form": "footer", "ip": "203.0.113.7"},
        }
    ]
}
_ONE = ConsentStatement.model_json_schema()
_SEVERAL = {
    "type": "object",
    "required": ["consents"],
    "properties": {"consents": {"type": "array", "maxItems": STATEMENTS_LIMIT, "items": _ONE}},
}
_SCHEMA = {"anyOf": [_ONE, _SEVERAL]}
_DESCRIPTION = f"""Records statements of consent, each a yes or a no with its evidence: one as the
body, or up to {STATEMENTS_LIMIT} in `consents`. Responds 200 once they are committed. A repeated
`messageId` changes nothing. The no of a refused statement is still recorded, and the response
mentions it."""
_ANSWERS = problems(
    s400="A field is invalid; the message names it and the fix. The other statements are recorded",
    s401="The key is missing or wrong",
    s403="The key is a public key",
    s413=f"The body is larger than 500 KB, or has more than {STATEMENTS_LIMIT} statements",
    s503="Database error; send it again, recorded statements count only once",
)


class StatementsAccepted(BaseModel):
    """The response when all statements are committed.

    `results` has one entry for each statement, in the same order.
    """

    success: Literal[True] = True
    results: list[Result]


def router(receiver: Receiver, auth: Authentication) -> APIRouter:
    """`POST /v1/consent`."""
    segue = receiver.segue
    routes = APIRouter(tags=["consent"])

    def write(items: list[Any]) -> tuple[Stated, dict[int, No]]:
        statements: dict[int, ConsentStatement] = {}
        faults: dict[int, CallRefused] = {}
        for place, item in enumerate(items):
            try:
                statements[place] = read_statement(item, segue.policy)
            except CallRefused as error:
                faults[place] = error
        with segue.db.transaction() as tx:
            done = take_statements(tx, statements, segue.policy.double_opt_in)
        receiver.arrived(tx.event_buckets)
        faults |= done.refused
        noes = {
            place: no
            for place in faults
            if (no := opt_out_stated(items[place], segue.rules.meaningless)) is not None
        }
        if noes:
            with segue.db.transaction() as tx:
                noes = take_opt_outs(tx, noes, _REFUSED_SOURCE, topics_too=True)
            receiver.arrived(tx.event_buckets)
        return Stated(done.results, faults), noes

    @routes.post(
        "/v1/consent",
        summary="Record statements of consent",
        description=_DESCRIPTION,
        response_model=StatementsAccepted,
        responses=_ANSWERS,
        dependencies=[WRITE_KEY],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _SCHEMA, "example": _EXAMPLE}},
            }
        },
    )
    async def consent(request: Request) -> Response:
        await auth.server_key(request)
        body = parse_object(await read_body(request, BODY_LIMIT, DECOMPRESSED_LIMIT))
        several = "consents" in body
        items = body["consents"] if several else [body]
        if not isinstance(items, list):
            raise Refusal(400, "invalid", "write a list of statements", field="consents")
        if len(items) > STATEMENTS_LIMIT:
            message = f"more than {STATEMENTS_LIMIT} statements; send fewer in one request"
            raise Refusal(413, "too_large", message, field="consents")
        with receiver.in_progress.one():
            done, noes = await receiver.threads.run(write, items)
        if not done.refused:
            results = [done.results[place] for place in range(len(items))]
            return json_response(200, {"success": True, "results": results})
        return json_response(400, _problem(done, noes, several=several))

    return routes


def _problem(done: Stated, noes: Mapping[int, No], *, several: bool) -> Problem:
    faults = []
    for place in sorted(done.refused)[:_LISTED]:
        error = done.refused[place]
        within = [f"consents.{place}"] if several else []
        field = ".".join([*within, *([error.field] if error.field else [])])
        why = f"{error.why}; {noes[place]}" if place in noes else error.why
        faults.append(FieldFault(field=field, message=f"{field}: {why}" if field else why))
    first = faults[0]
    return Problem(
        code="invalid",
        message=first.message,
        field=first.field or None,
        errors=faults,
        more_errors=len(done.refused) - len(faults) or None,
        accepted=len(done.results),
    )
