"""The health check of a worker."""

from fastapi import APIRouter, Response
from sqlalchemy.exc import DBAPIError

from config.clock.times import MINUTE, Seconds
from config.errors import SegueError
from flows.http.context import Receiver
from flows.http.limits.work import Shared
from journeys.operations.queues import oldest_event


def router(receiver: Receiver) -> APIRouter:
    """`/healthz`: 200 while due work gets done, else 503."""
    routes = APIRouter()

    def oldest_due() -> Seconds:
        with receiver.segue.db.transaction(write=False) as tx:
            now, waiting = tx.now, oldest_event(tx)
        oldest = receiver.segue.engine.next_due()
        return max(waiting, 0 if oldest is None else now - oldest)

    shared = Shared(oldest_due)

    @routes.get("/healthz")
    async def healthz(response: Response) -> dict[str, str | int]:
        """Report whether this worker keeps up.

        503 when the database does not answer, or when an enrollment or message has been due, an
        event has been waiting, or a request has been unanswered for more than a minute.
        """
        in_hand = receiver.in_hand.oldest()
        if in_hand > MINUTE:
            return _red(response, "what comes in is not written", late=in_hand)
        try:
            late = await shared.get()
        except (DBAPIError, SegueError):
            return _red(response, "the database does not answer")
        if late > MINUTE:
            return _red(response, "what is due does not get done", late=late)
        return {"status": "green", "late": late}

    return routes


def _red(response: Response, why: str, **late: Seconds) -> dict[str, str | int]:
    response.status_code = 503
    return {"status": "red", "why": why, **late}
