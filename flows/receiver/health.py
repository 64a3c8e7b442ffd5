"""Is this worker well?"""

from fastapi import APIRouter, Response
from sqlalchemy.exc import DBAPIError

from config.errors import SegueError
from config.times import MINUTE
from flows.receiver.context import Receiver


def router(receiver: Receiver) -> APIRouter:
    """`/healthz`: 200 while what is due gets done, 503 when it does not."""
    routes = APIRouter()

    @routes.get("/healthz")
    def healthz(response: Response) -> dict[str, str | int]:
        """Red when the database does not answer or something has been due for over a minute."""
        engine = receiver.segue.engine
        try:
            with receiver.segue.db.transaction(write=False) as tx:
                now = tx.now
            oldest = engine.next_due()
        except (DBAPIError, SegueError):
            response.status_code = 503
            return {"status": "red", "why": "the database does not answer"}
        late = max(0, now - oldest) if oldest is not None else 0
        if late > MINUTE:
            response.status_code = 503
            return {"status": "red", "why": "what is due does not get done", "late": late}
        return {"status": "green", "late": late}

    return routes
