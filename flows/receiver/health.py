"""Is this worker well?"""

from fastapi import APIRouter, Response
from sqlalchemy.exc import DBAPIError

from config.errors import SegueError
from config.times import MINUTE
from flows.receiver.context import Receiver
from journeys.queues import oldest_event


def router(receiver: Receiver) -> APIRouter:
    """`/healthz`: 200 while what is due gets done, 503 when it does not."""
    routes = APIRouter()

    @routes.get("/healthz")
    def healthz(response: Response) -> dict[str, str | int]:
        """Red when the database does not answer, or a person or message has been due, or an event
        been waiting, for over a minute."""
        engine = receiver.segue.engine
        try:
            with receiver.segue.db.transaction(write=False) as tx:
                now, waiting = tx.now, oldest_event(tx)
            oldest = engine.next_due()
        except (DBAPIError, SegueError):
            response.status_code = 503
            return {"status": "red", "why": "the database does not answer"}
        late = max(waiting, 0 if oldest is None else now - oldest)
        if late > MINUTE:
            response.status_code = 503
            return {"status": "red", "why": "what is due does not get done", "late": late}
        return {"status": "green", "late": late}

    return routes
