"""The HTTP tracking API of Segment, for its clients and RudderStack's: `/v1/track`, `/v1/batch` ...

docs/start/clients.md has what each client sends.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from config.access.api_keys import ApiKey
from config.access.user_tokens import fault_of
from config.clock.times import Instant
from flows.http.backlog import Backlog
from flows.http.body import KB, json_size, parse_object, read_body, read_object, too_large
from flows.http.context import Receiver
from flows.http.errors import FieldFault, Refusal, json_response, problems
from flows.http.ingest.intake import Intake
from flows.http.ingest.keys import WRITE_KEY, Authentication
from flows.http.limits.work import at_once
from journeys.operations.merge import merge
from journeys.operations.queues import waiting_events
from profiles.calls.public_calls import as_public
from profiles.calls.record_calls import SOURCE, Outcome, take_calls
from profiles.calls.segment_calls import (
    MODELS,
    CallKind,
    CallRefused,
    SegmentCall,
    opt_out_in,
    parse_sent_at,
    read_call,
    read_item,
)
from profiles.consent.opt_outs import No, take_opt_outs
from profiles.rules import InputRules

EVENT_LIMIT = 32 * KB
BATCH_LIMIT = 500 * KB
DECOMPRESSED_LIMIT = 2048 * KB
# With this many calls, each has 50 of the 500,000 bytes. Calls of libraries are larger, and they
# send some hundred at a time.
CALLS_LIMIT = 10_000
# Segment's clients send at most this many.
PUBLIC_CALLS_LIMIT = 2500
# The most faults, and the most warnings, that a response lists.
_LISTED = 100
# The target duration of an intake transaction, in seconds. On SQLite it blocks other writers.
_SQLITE_AIM = 0.05
_AIM = 0.2

_ANSWERS = problems(
    s400="A field is invalid; the message names it and the fix",
    s401="The key is missing or wrong",
    s403="The page's origin is not one of the public key's",
    s413="Larger than the limits. If it is a call of a batch, the others are recorded (`accepted`)",
    s429="Too much work is waiting, too many calls with a public key, or too many wrong keys; "
    "Retry-After has the seconds to wait",
    s503="Database error; send it again, recorded calls count only once",
)
_SUMMARIES: Mapping[CallKind, str] = {
    "identify": "Identify a customer, with traits",
    "track": "Record an event",
    "page": "Record the view of a page",
    "screen": "Record the view of a screen in an app",
    "group": "Record that a customer belongs to a group",
    "alias": "Join two ids of one customer",
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


# The Ruby library uses the second path, the Java library the third, browsers and apps the fourth,
# RudderStack's browser library the last.
_BATCH = ("/v1/batch", "/v1/import", "/v1/import/", "/v1/b", "/beacon/v1/batch")
# The paths of Segment's browser library are `/v1/` and the first letter. They are not described.
_UNDESCRIBED = frozenset({"/beacon/v1/batch", *(f"/v1/{kind[0]}" for kind in _SUMMARIES)})


class CallsAccepted(BaseModel):
    """The response when all calls are committed.

    `warnings`: what was ignored, at most a hundred texts. `more_warnings`: the number of others.
    """

    success: Literal[True] = True
    warnings: list[str] | None = None
    more_warnings: int | None = None


def router(receiver: Receiver, auth: Authentication) -> APIRouter:
    """`/v1/{kind}` for each kind of call, and the paths of batches."""
    db, rules = receiver.segue.db, receiver.segue.rules

    def write(calls: Sequence[SegmentCall], arrived_at: Sequence[float]) -> list[Outcome]:
        with db.transaction() as tx:
            begun = time.monotonic()
            received = [
                call if begun - at < 1 else call._replace(waited=int(begun - at))
                for call, at in zip(calls, arrived_at, strict=True)
            ]
            outcomes = take_calls(tx, received, merge, rules)
        receiver.arrived(tx.event_buckets)
        return outcomes

    def record_opt_outs(refused: Mapping[int, Mapping[str, Any]]) -> dict[int, No]:
        """Record the opt-outs in refused calls, by the calls' places in the batch."""
        found = {at: opt_out_in(call, rules) for at, call in refused.items()}
        noes = {at: no for at, no in found.items() if no is not None}
        if noes:
            with db.transaction() as tx:
                noes = take_opt_outs(tx, noes, SOURCE, topics_too=True)
            receiver.arrived(tx.event_buckets)
        return noes

    intake = Intake(write, _SQLITE_AIM if db.is_sqlite else _AIM)
    parts = _Parts(receiver, auth, intake, record_opt_outs=record_opt_outs)
    limit = receiver.segue.settings.backlog_limit
    backlog = Backlog(db, limit, waiting=waiting_events, arriving=lambda: intake.waiting)
    routes = APIRouter(tags=["segment"])

    def add(path: str, summary: str, body: dict[str, Any], take: _Take) -> None:
        async def endpoint(request: Request) -> Response:
            key = await auth.in_headers(request)
            if key is not None:
                auth.check_rate(key, request)
            await backlog.check()
            return await take(request, parts, key)

        routes.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=path,
            summary=summary,
            description=_DESCRIPTION,
            response_model=CallsAccepted,
            responses=_ANSWERS,
            dependencies=[WRITE_KEY],
            include_in_schema=path not in _UNDESCRIBED,
            openapi_extra={
                "requestBody": {"required": True, "content": {"application/json": body}}
            },
        )

    for kind, summary in _SUMMARIES.items():
        for path in (f"/v1/{kind}", f"/v1/{kind[0]}"):
            add(path, summary, _described(kind), _taking_one(kind))
    described = _batch_described()
    for path in _BATCH:
        add(path, "Send many calls in one request", described, _take_batch)
    return routes


class _Parts(NamedTuple):
    """The parts that the endpoints share.

    record_opt_outs: records the opt-outs in refused identify calls, by place in the batch.
    """

    receiver: Receiver
    auth: Authentication
    intake: Intake
    record_opt_outs: Callable[[Mapping[int, Mapping[str, Any]]], dict[int, No]]

    async def key_of(self, request: Request, key: ApiKey | None, body: dict[str, Any]) -> ApiKey:
        """The key of a request: the one in its headers, else the one in its body or query."""
        if key is None:
            key = await self.auth.in_body(request, body)
            self.auth.check_rate(key, request)
        return key

    def admit(self, key: ApiKey, fields: object, call: SegmentCall) -> SegmentCall:
        """The call as far as the key allows it. Raises CallRefused."""
        if not key.is_public:
            return call
        context = fields.get("context") if isinstance(fields, dict) else None
        token = context.get("userToken") if isinstance(context, dict) else None
        secret, now = self.receiver.segue.settings.user_token_secret, self.receiver.keys.now
        return as_public(call, lambda user_id: fault_of(token, secret, user_id, now))


# The last parameter is the key in the headers.
_Take = Callable[[Request, _Parts, ApiKey | None], Awaitable[Response]]

_DESCRIPTION = (
    "Compatible with the HTTP tracking API of Segment. Responds 200 once the calls are committed. "
    "The body may be compressed (`Content-Encoding: gzip`). Limits: 32 KB for a call, 500 KB and "
    "10,000 calls for a batch, 2,500 with a public key."
)


def _taking_one(kind: CallKind) -> _Take:
    async def take(request: Request, parts: _Parts, key: ApiKey | None) -> Response:
        body = parse_object(await read_body(request, EVENT_LIMIT, EVENT_LIMIT))
        key = await parts.key_of(request, key, body)
        parts.auth.count(key, request, 1)
        try:
            with parts.receiver.in_progress.one():
                sent_at = _sent_at(request)
                call = read_call(kind, body, sent_at, rules=parts.receiver.segue.rules)
                call = parts.admit(key, body, call)
                [outcome] = await parts.intake.take([call])
            if outcome.refused is not None:
                raise outcome.refused
        except CallRefused as error:
            refused = {0: body} if kind == "identify" and not key.is_public else {}
            noes = await parts.receiver.threads.run(parts.record_opt_outs, refused)
            why = "; ".join([error.why, *map(str, noes.values())])
            raise Refusal(400, "invalid", why, field=error.field) from None
        return _accepted(_warned(key, call, outcome))

    return take


def _warned(key: ApiKey, call: SegmentCall, outcome: Outcome) -> list[str]:
    """The warnings that the sender may see: with a public key those that the call alone gives."""
    return list(call.warnings) if key.is_public else outcome.warnings


def _sent_at(request: Request) -> Instant | None:
    """The time in the header of RudderStack's browser library; None if there is no valid one."""
    try:
        return parse_sent_at(request.headers.get("sentat"))
    except CallRefused:
        return None


async def _take_batch(request: Request, parts: _Parts, key: ApiKey | None) -> Response:
    """Record the valid calls of a batch even if others are refused.

    Client libraries drop a refused batch, so the valid calls would be lost.
    """
    body = await read_body(request, BATCH_LIMIT, DECOMPRESSED_LIMIT)
    segue, run = parts.receiver.segue, parts.receiver.threads.run
    parse = run if len(body) > EVENT_LIMIT else at_once
    with parts.receiver.in_progress.one():
        batch = await parse(read_object, body)
        key = await parts.key_of(request, key, batch)
        items = _items_of(batch, PUBLIC_CALLS_LIMIT if key.is_public else CALLS_LIMIT)
        parts.auth.count(key, request, len(items))
        sent_at = _sent_at_of(batch, request)
        admit = partial(parts.admit, key) if key.is_public else None
        calls, faults = await parse(_read_calls, items, sent_at, segue.rules, admit)
        outcomes = await parts.intake.take(list(calls.values()))
    warnings: list[str] = []
    for (place, call), outcome in zip(calls.items(), outcomes, strict=True):
        if outcome.warnings:
            warnings += [f"batch.{place}: {warning}" for warning in _warned(key, call, outcome)]
        if outcome.refused is not None:
            faults[place] = _refusal(place, outcome.refused)
    if not faults:
        return _accepted(warnings)
    identified = {
        place: items[place]
        for place in faults
        if not key.is_public
        and isinstance(items[place], dict)
        and items[place].get("type") == "identify"
    }
    for place, no in (await run(parts.record_opt_outs, identified)).items():
        faults[place] = _with_more(faults[place], str(no))
    refusals = [faults[place] for place in sorted(faults)[:_LISTED]]
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
    return json_response(first.status, problem)


def _items_of(batch: Mapping[str, Any], most: int) -> list[Any]:
    """The items of a batch. Raises Refusal for the whole batch."""
    items = batch.get("batch")
    if not isinstance(items, list):
        raise Refusal(400, "invalid", "write a list of calls", field="batch")
    if len(items) > most:
        message = f"more than {most} calls; send fewer in one request"
        raise Refusal(413, "too_large", message, field="batch")
    return items


def _sent_at_of(batch: Mapping[str, Any], request: Request) -> Instant | None:
    """When a batch was sent. Raises Refusal for the whole batch."""
    try:
        sent_at = parse_sent_at(batch.get("sentAt"))
    except CallRefused as error:
        raise Refusal(400, "invalid", error.why, field=error.field) from None
    return _sent_at(request) if sent_at is None else sent_at


def _read_calls(
    items: Sequence[Any],
    sent_at: Instant | None,
    rules: InputRules,
    admit: Callable[[Any, SegmentCall], SegmentCall] | None,
) -> tuple[dict[int, SegmentCall], dict[int, Refusal]]:
    """The valid calls of a batch by place, and the refusals of the others by place.

    admit: limits a call to what its key allows, or raises CallRefused; None: it allows all.
    """
    calls: dict[int, SegmentCall] = {}
    faults: dict[int, Refusal] = {}
    for place, item in enumerate(items):
        try:
            if json_size(item, f"batch.{place}") > EVENT_LIMIT:
                raise too_large(f"batch.{place}", EVENT_LIMIT)
            call = read_item(item, sent_at, rules)
            calls[place] = call if admit is None else admit(item, call)
        except Refusal as refusal:
            faults[place] = refusal
        except CallRefused as error:
            faults[place] = _refusal(place, error)
    return calls, faults


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
    return json_response(200, {"success": True, **_warnings(warnings)})


def _warnings(warnings: list[str]) -> dict[str, Any]:
    """The first warnings, and the number of the others."""
    listed: dict[str, Any] = {}
    if warnings:
        listed["warnings"] = warnings[:_LISTED]
    if len(warnings) > _LISTED:
        listed["more_warnings"] = len(warnings) - _LISTED
    return listed


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
