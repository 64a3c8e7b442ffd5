"""What providers say back, `/hooks/sendgrid` and its like: checked, written down, then answered.

An answer other than 2xx makes the provider try again later, so nothing is lost when we are in
trouble; what comes twice changes nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter, Request, Response
from sqlalchemy.exc import DBAPIError
from starlette.requests import ClientDisconnect

from channels.callback import Feedback, Hook, Posted, Refused, Unreadable, hooks
from channels.feedback import apply
from config.errors import SegueError
from flows.receiver.context import Receiver
from profiles.bulk import in_slices

log = logging.getLogger(__name__)

# SendGrid posts at most 768 KB at a time, Twilio much less.
MAX_BODY = 2_000_000
# Words written in one transaction: SQLite has one writer, and others wait for it.
_AT_ONCE = 200
_ANSWERS = {
    400: "It is signed, but makes no sense",
    403: "It is not the provider's, or too old; nothing was changed",
    413: f"More than {MAX_BODY} bytes",
    503: "The database does not answer; try again",
}


def router(receiver: Receiver) -> APIRouter:
    """One POST route for each hook of the providers. Raises SegueError for an unusable key."""
    routes = APIRouter(tags=["providers"])
    for hook in hooks(receiver.segue.settings):
        routes.add_api_route(
            hook.path,
            _endpoint(receiver, hook),
            methods=["POST"],
            summary=hook.about,
            name=hook.path,
            response_class=Response,
            responses={status: {"description": words} for status, words in _ANSWERS.items()},
        )
    return routes


def _endpoint(receiver: Receiver, hook: Hook) -> Callable[[Request], Awaitable[Response]]:
    settings, db = receiver.segue.settings, receiver.segue.db

    def take(url: str, request: Request, body: bytes) -> None:
        with db.transaction(write=False) as tx:
            now = tx.now if db.now is None else None
        _write(receiver, hook.read(Posted(url, request.headers, body, now)))

    async def endpoint(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return Response(_ANSWERS[413], 413)
        query = request.scope["query_string"].decode("latin-1")
        # What the provider signed is the address that it knows, whatever proxies made of it.
        url = f"{settings.public_url}{hook.path}{'?' if query else ''}{query}"
        try:
            await asyncio.to_thread(take, url, request, body)
        except Refused as error:
            log.warning("%s: a request was refused: %s", hook.path, error)
            return Response(_ANSWERS[403], 403)
        except Unreadable as error:
            log.warning("%s: a request can't be read: %s", hook.path, error)
            return Response(f"{_ANSWERS[400]}: {error}", 400)
        except (DBAPIError, SegueError) as error:
            log.error("%s: the database is in trouble: %s", hook.path, error)
            return Response(_ANSWERS[503], 503)
        return Response(hook.answer, media_type=hook.answer_type)

    return endpoint


def _write(receiver: Receiver, feedback: Sequence[Feedback]) -> None:
    for some in in_slices(feedback, _AT_ONCE):
        with receiver.segue.db.transaction() as tx:
            counts = apply(tx, some)
        receiver.arrived()
        log.debug("providers say: %s", dict(counts))


async def _body(request: Request) -> bytes | None:
    """The body, as far as it came; None when it is longer than any provider's."""
    body = bytearray()
    with contextlib.suppress(ClientDisconnect):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return None
    return bytes(body)
