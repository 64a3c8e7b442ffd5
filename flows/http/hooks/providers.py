"""Provider webhooks such as `/hooks/sendgrid`: verify, commit, then answer.

Providers send a report again after a response other than 2xx, so no report is lost. A repeated
report changes nothing.
"""

import logging
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from channels.feedback.apply import apply
from channels.metrics import count_feedback
from channels.providers.registry import webhooks
from channels.providers.webhook import Refused, Unreadable, Webhook, WebhookRequest
from flows.http.body import read_posted
from flows.http.context import Receiver
from flows.http.errors import Refusal, problems
from profiles.bulk import in_slices

log = logging.getLogger(__name__)

# Reports per transaction. SQLite has one writer, so a long transaction delays the others.
_AT_ONCE = 200
_REFUSED = "the signature is not the provider's, or the request is too old; nothing was changed"
_ANSWERS = problems(
    s400="The signature is valid, but the body can't be read",
    s403="The signature is not the provider's, or the request is too old; nothing was changed",
    s413="The body is larger than 1000 KB (SendGrid, Postmark) or 64 KB (Twilio)",
    s503="Database error; send it again, accepted reports count only once",
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
        reports = hook.read(WebhookRequest(url=url, headers=request.headers, body=body, now=now))
        for some in in_slices(reports, _AT_ONCE):
            with db.transaction() as tx:
                counts = apply(tx, some, receiver.segue.policy.double_opt_in)
            count_feedback(counts)
            receiver.arrived(tx.event_buckets)

    async def endpoint(request: Request) -> Response:
        query = request.scope["query_string"].decode("latin-1")
        # Providers sign the public URL, which differs from the one behind a proxy.
        url = f"{settings.public_url}{hook.path}{'?' if query else ''}{query}"
        try:
            hook.admit(request.headers)
            body = await read_posted(request, hook.limit)
            with receiver.in_progress.one():
                await receiver.hook_threads.run(take, url, request, body)
        except Refused as error:
            log.warning("%s: a request was refused: %s", hook.path, error)
            raise Refusal(403, "refused", _REFUSED) from None
        except Unreadable as error:
            log.warning("%s: a request can't be read: %s", hook.path, error)
            raise Refusal(400, "invalid", str(error)) from None
        return Response(hook.answer, media_type=hook.answer_type)

    return endpoint
