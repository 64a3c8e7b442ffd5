"""Provider webhooks such as `/hooks/sendgrid`: verify, commit, then answer.

Providers retry after an answer other than 2xx, so failures lose no report. A repeated report
changes nothing.
"""

import logging
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from channels.metrics import count_feedback
from channels.outbox.feedback import apply
from channels.providers.registry import webhooks
from channels.providers.webhook import Refused, Unreadable, Webhook, WebhookRequest
from flows.http.body import read_posted
from flows.http.context import Receiver
from flows.http.errors import Refusal, problems
from profiles.bulk import in_slices

log = logging.getLogger(__name__)

# Reports per transaction. SQLite has one writer, so a long transaction delays the others.
_AT_ONCE = 200
_REFUSED = "it is not the provider's, or too old; nothing was changed"
_ANSWERS = problems(
    s400="It is signed, but makes no sense",
    s403="It is not the provider's, or too old; nothing was changed",
    s413="Larger than 1000 KB from SendGrid or Postmark, 64 KB from Twilio",
    s503="The database is in trouble; send it again, what was taken of it counts once",
)


def router(receiver: Receiver) -> APIRouter:
    """One POST route for each webhook of the providers. Raises SegueError for an unusable key."""
    routes = APIRouter(tags=["providers"])
    for hook in webhooks(receiver.segue.settings, receiver.segue.policy):
        routes.add_api_route(
            hook.path,
            _endpoint(receiver, hook),
            methods=["POST"],
            summary=hook.about,
            name=hook.path,
            response_class=Response,
            responses=_ANSWERS,
        )
    return routes


def _endpoint(receiver: Receiver, hook: Webhook) -> Callable[[Request], Awaitable[Response]]:
    settings, db = receiver.segue.settings, receiver.segue.db

    def take(url: str, request: Request, body: bytes) -> None:
        with db.transaction(write=False) as tx:
            now = tx.now if db.now is None else None
        said_now = hook.read(WebhookRequest(url=url, headers=request.headers, body=body, now=now))
        for some in in_slices(said_now, _AT_ONCE):
            with db.transaction() as tx:
                said = apply(tx, some, receiver.segue.policy.double_opt_in)
            count_feedback(said)
            receiver.arrived()

    async def endpoint(request: Request) -> Response:
        query = request.scope["query_string"].decode("latin-1")
        # Providers sign the public URL, not the one that proxies forward to.
        url = f"{settings.public_url}{hook.path}{'?' if query else ''}{query}"
        try:
            hook.admit(request.headers)
            body = await read_posted(request, hook.limit)
            with receiver.in_hand.one():
                await receiver.hook_threads.run(take, url, request, body)
        except Refused as error:
            log.warning("%s: a request was refused: %s", hook.path, error)
            raise Refusal(403, "refused", _REFUSED) from None
        except Unreadable as error:
            log.warning("%s: a request can't be read: %s", hook.path, error)
            raise Refusal(400, "invalid", str(error)) from None
        return Response(hook.answer, media_type=hook.answer_type)

    return endpoint
