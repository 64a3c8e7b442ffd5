"""The sandbox server: the providers' paths, the inbox, a sample shop, and control of faults.

Segue sends to it with the same code as to the real providers; only the base URL differs.

There are three kinds of paths. The providers' paths require an API key, as the real ones do. Paths
that control or count require the login of this installation. The inbox is for a browser on this
machine, and requires the login too if the server is reachable from other machines.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from config.access.login import is_loopback
from config.access.same_origin import OwnPagesOnly
from config.clock.times import Instant, format_instant, parse_instant
from sandbox.access import LoginRequired
from sandbox.inbox.pages import Pages
from sandbox.inbox.timeline import Timeline
from sandbox.providers import fcm, postmark, sendgrid, twilio
from sandbox.providers.caller import Callbacks, Reply
from sandbox.providers.faults import Faults, ProviderName
from sandbox.providers.provider_api import ApiCall, LookAlike
from sandbox.shop.pages import Shop
from sandbox.simulated_customer import Behaviour
from sandbox.store import Store


def create_app(
    store: Store,
    timeline: Timeline | None = None,
    callbacks: Callbacks | None = None,
    shop: Shop | None = None,
    *,
    login: str,
    host: str = "127.0.0.1",
) -> Starlette:
    """The server for one store. host: the address it listens on; login: `user:password`.

    Without a timeline the inbox shows addresses, not customers. Without callbacks the sandbox sends
    no webhooks. Without a shop there is no sample shop.
    """
    faults = Faults(callbacks.opted_out if callbacks else set())
    pages = Pages(store, timeline)

    def sending(path: str, name: ProviderName, provider: LookAlike) -> Route:
        return Route(path, _endpoint(name, provider, store, faults, callbacks), methods=["POST"])

    async def set_fault(request: Request) -> Response:
        try:
            faults.add(await request.body())
        except ValidationError as error:
            return _refusal(error)
        return Response(status_code=204)

    async def clear_faults(_request: Request) -> Response:
        faults.clear()
        return Response(status_code=204)

    def stats(_request: Request) -> Response:
        return JSONResponse(store.stats())

    def message(request: Request) -> Response:
        message_id = request.path_params["id"]
        accepted = [asdict(one) for one in store.with_ids([message_id])]
        return JSONResponse(
            {"message_id": message_id, "accepted": accepted}, 200 if accepted else 404
        )

    providers = [
        sending("/v3/mail/send", "sendgrid", sendgrid),
        sending("/email/batch", "postmark", postmark),
        sending("/2010-04-01/Accounts/{sid}/Messages.json", "twilio", twilio),
        sending("/v1/projects/{project}/messages:send", "fcm", fcm),
    ]
    inbox = [*pages.routes(), *(shop.routes() if shop else ())]
    control = [
        Route("/stats", stats),
        Route("/message/{id:path}", message),
        Route("/faults", set_fault, methods=["POST"]),
        Route("/faults", clear_faults, methods=["DELETE"]),
    ]
    if callbacks is not None:
        control += _behaviour_routes(callbacks)
        control += _clock_routes(store, callbacks)
    for route in control if is_loopback(host) else control + inbox:
        route.app = LoginRequired(route.app, login)
    return Starlette(
        routes=[*providers, *control, *inbox],
        middleware=[Middleware(OwnPagesOnly, host)],
        lifespan=None if callbacks is None else lambda _app: callbacks.running(),
    )


def _behaviour_routes(callbacks: Callbacks) -> list[Route]:
    """Routes that set the behaviour of customers, and that send a message from one of them."""

    def state(_request: Request) -> Response:
        return JSONResponse(callbacks.state())

    async def behave(request: Request) -> Response:
        try:
            callbacks.behave(Behaviour.model_validate_json(await request.body()))
        except ValidationError as error:
            return _refusal(error)
        return Response(status_code=204)

    async def rest(_request: Request) -> Response:
        callbacks.behave(None)
        return Response(status_code=204)

    async def reply(request: Request) -> Response:
        try:
            callbacks.reply(Reply.model_validate_json(await request.body()))
        except ValidationError as error:
            return _refusal(error)
        return Response(status_code=204)

    return [
        Route("/behaviour", state),
        Route("/behaviour", behave, methods=["POST"]),
        Route("/behaviour", rest, methods=["DELETE"]),
        Route("/replies", reply, methods=["POST"]),
    ]


class _Clock(BaseModel):
    model_config = ConfigDict(extra="forbid")

    now: Annotated[Instant, BeforeValidator(parse_instant)]


def _clock_routes(store: Store, callbacks: Callbacks) -> list[Route]:
    """Routes that move the simulated clock; the response follows after all webhooks due by then."""

    def clock(_request: Request) -> Response:
        due = callbacks.next_due
        shown = None if due is None else format_instant(due)
        return JSONResponse({"now": format_instant(store.now()), "next": shown})

    async def move(request: Request) -> Response:
        try:
            to = _Clock.model_validate_json(await request.body()).now
        except ValidationError as error:
            return _refusal(error)
        if store.simulated is None:
            return _conflict("the clock is real; start the sandbox with SEGUE_NOW to move it")
        if to < store.simulated:
            return _conflict(f"the clock is already at {format_instant(store.simulated)}")
        store.simulated = to
        await callbacks.catch_up()
        return Response(status_code=204)

    return [Route("/clock", clock), Route("/clock", move, methods=["POST"])]


def _conflict(why: str) -> Response:
    return JSONResponse({"errors": [{"loc": ["now"], "msg": why}]}, 409)


def _refusal(error: ValidationError) -> Response:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return JSONResponse({"errors": details}, 400)


def _endpoint(
    name: ProviderName,
    provider: LookAlike,
    store: Store,
    faults: Faults,
    callbacks: Callbacks | None,
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        arrived = time.monotonic()
        call = ApiCall(
            headers=request.headers,
            path=request.path_params,
            body=await _body(request),
            now=store.now(),
            opted_out=faults.opted_out,
        )
        fault = faults.next_for(name)
        if fault and isinstance(fault.answer, int):
            answer = provider.failure(fault.answer, call, retry_after=fault.retry_after)
        else:
            if fault and fault.answer == "slow":
                await asyncio.sleep(fault.seconds)
            answer = provider.answer(call)
        store.record(answer.accepted, refused=answer.status >= 400, arrived=arrived)
        if callbacks is not None:
            callbacks.take(name, answer.accepted)
        if fault and fault.answer == "drop" and answer.status < 400:
            await _hang_up(request)
        return Response(answer.body, answer.status, answer.headers)

    return endpoint


async def _body(request: Request) -> bytes:
    """The body, cut one byte above the largest limit of the providers."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk[: postmark.MAX_BODY + 1 - len(body)]
    return bytes(body)


async def _hang_up(request: Request) -> None:
    """Close the connection without a response.

    ASGI has no message for that. uvicorn's `receive` is a method of the object that has the
    connection's transport.
    """
    server = getattr(request.receive, "__self__", None)
    transport = getattr(server, "transport", None)
    if transport is None:
        raise RuntimeError("the drop fault needs uvicorn, to close its connection")
    transport.close()
    await asyncio.sleep(0)  # lets the server notice that the connection is closed
