"""Segment's HTTP tracking API, for client libraries that authenticate with basic auth."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from flows.http.backlog import Backlog
from flows.http.body import KB, json_size, parse_object, read_body, read_object, too_large
from flows.http.context import Receiver
from flows.http.errors import FieldFault, Refusal, answer, problems
from flows.http.ingest.intake import Intake
from flows.http.ingest.keys import Credentials, check_write_key
from journeys.engine.merge import merge
from journeys.operations.queues import waiting_events
from profiles.consent.opt_outs import No, take_opt_outs
from profiles.identity.record_calls import SOURCE, Outcome, take_calls
from profiles.identity.segment_calls import (
    MODELS,
    CallKind,
    CallRefused,
    SegmentCall,
    opt_out_in,
    parse_sent_at,
    read_call,
    read_item,
)
from profiles.rules import InputRules

EVENT_LIMIT = 32 * KB
BATCH_LIMIT = 500 * KB
UNFOLDED_LIMIT = 2048 * KB
# At this number a call has 50 bytes of the 500 KB. Libraries write larger calls and send some
# hundred at once.
CALLS_LIMIT = 10_000
# The most faults, and the most warnings, that an answer lists.
_TOLD = 100
# Target duration of an intake transaction, in seconds. SQLite has one writer, so others wait.
_SQLITE_AIM = 0.05
_AIM = 0.2

_ANSWERS = problems(
    s400="Something in it is wrong: which field, and what to do about it",
    s401="Not the write key",
    s413="Larger than the limits; where it is a call in a batch, the others are taken (`accepted`)",
    s429="Too much waits already, or too many wrong keys came; Retry-After says when to come again",
    s503="The database is in trouble; send it again, what was taken of it counts once",
)
_SUMMARIES: Mapping[CallKind, str] = {
    "identify": "Say who somebody is",
    "track": "Say what somebody did",
    "page": "Say which page somebody saw",
    "screen": "Say which screen of an app somebody saw",
    "group": "Say which group somebody belongs to",
    "alias": "Make two ids one person",
}
_EXAMPLES: Mapping[CallKind, dict[str, Any]] = {
    "identify": {
        "userId": "u-1042",
        "anonymousId": "a-77",
        "traits": {"email": "ann@example.com", "firstName": "Ann", "address": {"country": "GB"}},
        "context": {"timezone": "Europe/London", "locale": "en-GB"},
    },
    "track": {
        "userId": "u-1042",
        "event": "cart_abandoned",
        "properties": {"cart_id": "c-9", "value": 129.9},
        "messageId": "7c1b1f3e-4c1c-4b3e-9f3c-2d1f0c6a0b11",
        "timestamp": "2026-03-02T10:00:00.000Z",
        "sentAt": "2026-03-02T10:00:01.000Z",
    },
    "page": {"anonymousId": "a-77", "name": "Cart", "properties": {"url": "https://shop.example"}},
    "screen": {"userId": "u-1042", "name": "Cart"},
    "group": {"userId": "u-1042", "groupId": "g-5", "traits": {"plan": "premium"}},
    "alias": {"previousId": "a-77", "userId": "u-1042"},
}


# Ruby's library uses the second path, Java's the third, and those for apps the last.
_BATCH = ("/v1/batch", "/v1/import", "/v1/import/", "/v1/b")


class CallsAccepted(BaseModel):
    """The answer when everything is committed.

    `warnings` says what was ignored: the first hundred; `more_warnings` is the number of others.
    """

    success: Literal[True] = True
    warnings: list[str] | None = None
    more_warnings: int | None = None


def router(receiver: Receiver) -> APIRouter:
    """`/v1/{kind}` for each kind of call, and `/v1/batch` under all its names."""
    db, rules = receiver.segue.db, receiver.segue.rules

    def write(calls: Sequence[SegmentCall], came: Sequence[float]) -> list[Outcome]:
        with db.transaction() as tx:
            begun = time.monotonic()
            waited = [int(begun - at) for at in came]
            received = [call._replace(waited=s) for call, s in zip(calls, waited, strict=True)]
            outcomes = take_calls(tx, received, merge, rules)
        receiver.arrived()
        return outcomes

    def hear(refused: Mapping[int, Mapping[str, Any]]) -> dict[int, No]:
        """Record the opt-outs in refused calls. Keys are the calls' places."""
        found = {at: opt_out_in(said, rules) for at, said in refused.items()}
        noes = {at: no for at, no in found.items() if no is not None}
        if noes:
            with db.transaction() as tx:
                noes = take_opt_outs(tx, noes, SOURCE, topics_too=True)
            receiver.arrived()
        return noes

    intake = Intake(write, _SQLITE_AIM if db.is_sqlite else _AIM)
    desk = _Desk(receiver, intake, hear)
    limit = receiver.segue.settings.backlog_limit
    backlog = Backlog(db, limit, waiting=waiting_events, arriving=lambda: intake.waiting)
    routes = APIRouter(tags=["segment"])

    def add(path: str, summary: str, body: dict[str, Any], take: _Take) -> None:
        async def endpoint(request: Request, credentials: Credentials) -> Response:
            await check_write_key(receiver, request, credentials)
            await backlog.check()
            return await take(request, desk)

        routes.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=path,
            summary=summary,
            description=_DESCRIPTION,
            response_model=CallsAccepted,
            responses=_ANSWERS,
            openapi_extra={
                "requestBody": {"required": True, "content": {"application/json": body}}
            },
        )

    for kind, summary in _SUMMARIES.items():
        add(f"/v1/{kind}", summary, _described(kind), _taking_one(kind))
    described = _batch_described()
    for path in _BATCH:
        add(path, "Say many things at once", described, _take_batch)
    return routes


class _Desk(NamedTuple):
    """What the endpoints use. hear: records the opt-outs in refused identify calls, by place."""

    receiver: Receiver
    intake: Intake
    hear: Callable[[Mapping[int, Mapping[str, Any]]], dict[int, No]]


_Take = Callable[[Request, _Desk], Awaitable[Response]]

_DESCRIPTION = (
    "As Segment's HTTP tracking API. 200 once it is committed. The body may be gzip "
    "(`Content-Encoding: gzip`); 32 KB an event, 500 KB and 10,000 calls a batch."
)


def _taking_one(kind: CallKind) -> _Take:
    async def take(request: Request, desk: _Desk) -> Response:
        said = parse_object(await read_body(request, EVENT_LIMIT, EVENT_LIMIT))
        try:
            with desk.receiver.in_hand.one():
                call = read_call(kind, said, rules=desk.receiver.segue.rules)
                [outcome] = await desk.intake.take([call])
            if outcome.refused is not None:
                raise outcome.refused
        except CallRefused as error:
            refused = {0: said} if kind == "identify" else {}
            noes = await desk.receiver.threads.run(desk.hear, refused)
            why = "; ".join([error.why, *map(str, noes.values())])
            raise Refusal(400, "invalid", why, field=error.field) from None
        return _accepted(outcome.warnings)

    return take


async def _take_batch(request: Request, desk: _Desk) -> Response:
    """Take the valid calls of a batch even if others are refused.

    Client libraries drop a batch that is refused, so they would lose the valid calls too.
    """
    body = await read_body(request, BATCH_LIMIT, UNFOLDED_LIMIT)
    segue, run = desk.receiver.segue, desk.receiver.threads.run
    with desk.receiver.in_hand.one():
        items, calls, faults = await run(_read_batch, body, segue.rules)
        outcomes = await desk.intake.take(list(calls.values()))
    warnings: list[str] = []
    for place, outcome in zip(calls, outcomes, strict=True):
        warnings += [f"batch.{place}: {warning}" for warning in outcome.warnings]
        if outcome.refused is not None:
            faults[place] = _refusal(place, outcome.refused)
    if not faults:
        return _accepted(warnings)
    identified = {
        place: items[place]
        for place in faults
        if isinstance(items[place], dict) and items[place].get("type") == "identify"
    }
    for place, no in (await run(desk.hear, identified)).items():
        faults[place] = _with_more(faults[place], str(no))
    refusals = [faults[place] for place in sorted(faults)[:_TOLD]]
    first = refusals[0]
    problem = first.problem.model_copy(
        update={
            "errors": [
                FieldFault(field=one.problem.field or "", message=one.problem.message)
                for one in refusals
            ],
            "more_errors": len(faults) - len(refusals) or None,
            "accepted": len(calls) - sum(outcome.refused is not None for outcome in outcomes),
            **_warnings(warnings),
        }
    )
    return answer(first.status, problem)


def _read_batch(
    body: bytes, rules: InputRules
) -> tuple[list[Any], dict[int, SegmentCall], dict[int, Refusal]]:
    """Parse a batch: its items, the valid calls by place, and the refusals of the others by place.

    Raises Refusal for the whole batch.
    """
    batch = read_object(body)
    items = batch.get("batch")
    if not isinstance(items, list):
        raise Refusal(400, "invalid", "write a list of calls", field="batch")
    if len(items) > CALLS_LIMIT:
        message = f"it holds more than {CALLS_LIMIT} calls; send fewer at once"
        raise Refusal(413, "too_large", message, field="batch")
    try:
        sent_at = parse_sent_at(batch.get("sentAt"))
    except CallRefused as error:
        raise Refusal(400, "invalid", error.why, field=error.field) from None
    calls: dict[int, SegmentCall] = {}
    faults: dict[int, Refusal] = {}
    for place, item in enumerate(items):
        try:
            if json_size(item, f"batch.{place}") > EVENT_LIMIT:
                raise too_large(f"batch.{place}", EVENT_LIMIT)
            calls[place] = read_item(item, sent_at, rules)
        except Refusal as refusal:
            faults[place] = refusal
        except CallRefused as error:
            faults[place] = _refusal(place, error)
    return items, calls, faults


def _with_more(refused: Refusal, more: str) -> Refusal:
    """Append to the message of a refusal."""
    problem = refused.problem
    message = f"{problem.message}; {more}"
    refused.problem = problem.model_copy(update={"message": message})
    return refused


def _refusal(place: int, error: CallRefused) -> Refusal:
    field = f"batch.{place}.{error.field}" if error.field else f"batch.{place}"
    return Refusal(400, "invalid", error.why, field=field)


def _accepted(warnings: list[str]) -> Response:
    return answer(200, {"success": True, **_warnings(warnings)})


def _warnings(warnings: list[str]) -> dict[str, Any]:
    """The first warnings, and the number of the others."""
    told: dict[str, Any] = {}
    if warnings:
        told["warnings"] = warnings[:_TOLD]
    if len(warnings) > _TOLD:
        told["more_warnings"] = len(warnings) - _TOLD
    return told


# OpenAPI --------------------------------------------------------------------------------------


@cache
def _schema(kind: CallKind) -> Mapping[str, Any]:
    schema = MODELS[kind].model_json_schema()
    return {**schema, "examples": [_EXAMPLES[kind]]}


def _described(kind: CallKind) -> dict[str, Any]:
    return {"schema": _schema(kind), "example": _EXAMPLES[kind]}


def _batch_described() -> dict[str, Any]:
    calls = []
    for kind in MODELS:
        schema = _schema(kind)
        properties = {"type": {"const": kind}, **schema["properties"]}
        required = ["type", *schema.get("required", [])]
        calls.append({**schema, "properties": properties, "required": required})
    example = {
        "batch": [{"type": kind, **_EXAMPLES[kind]} for kind in ("identify", "track")],
        "sentAt": "2026-03-02T10:00:01.000Z",
    }
    schema = {
        "type": "object",
        "required": ["batch"],
        "properties": {
            "batch": {"type": "array", "maxItems": CALLS_LIMIT, "items": {"anyOf": calls}},
            "sentAt": {"type": ["string", "null"], "format": "date-time"},
        },
    }
    return {"schema": schema, "example": example}
