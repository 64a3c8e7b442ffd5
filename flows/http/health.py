"""The health check of a worker."""

from fastapi import APIRouter, Response
from sqlalchemy.exc import DBAPIError

from config.clock.times import MINUTE, Seconds
from config.errors import SegueError
from flows.http.context import Receiver
from flows.http.limits.work import Shared
from journeys.operations.queues import oldest_event


def router(receiver: Receiver) -> APIRouter:
    """`/healthz`: 200 while due work is done in time, else 503."""
    routes = APIRouter()

    def oldest_due() -> Seconds:
        with receiver.segue.db.transaction(write=False) as tx:
            now, waiting = tx.now, oldest_event(tx)
        oldest = receiver.segue.engine.next_due()
        return max(waiting, 0 if oldest is None else now - oldest)

    shared = Shared(oldest_due)

    @routes.get("/healthz", tags=["operations"], summary="Whether this worker keeps up")
    async def healthz(response: Response) -> dict[str, str | int]:
        """Report whether this worker keeps up.

        503 if the database does not respond, or if for more than a minute an enrollment or message
        has been due, an event has been unprocessed, or a request has had no response.
        """
        in_progress = receiver.in_progress.oldest()
        if in_progress > MINUTE:
            return _red(response, "received requests are not written", late=in_progress)
        try:
            late = await shared.get()
        except (DBAPIError, SegueError):
            return _red(response, "the database does not respond")
        if late > MINUTE:
            return _red(response, "due work is not done", late=late)
        return {"status": "green", "late": late}

    return routes


def _red(response: Response, why: str, **late: Seconds) -> dict[str, str | int]:
    response.status_code = 503
    return {"status": "red", "why": why, **late}
