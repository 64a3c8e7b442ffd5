"""A server with the part of Prefect's API that the staff site uses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import orjson

from flows.orchestration.names import SIMULATION

RUN = {
    "id": "run-1",
    "name": "j: everyone",
    "state": {"type": "COMPLETED", "name": "Completed", "message": "3 entered; 2 sent <b>"},
    "start_time": "2026-03-02T09:30:00.123456Z",
    "expected_start_time": "2026-03-02T09:29:00Z",
    "created": "2026-03-02T09:29:00Z",
}
LATER = {
    **RUN,
    "id": "run-2",
    "name": "happy-owl",
    "auto_scheduled": True,
    "state": {"type": "SCHEDULED", "name": "Scheduled", "message": "Flow run scheduled"},
    "start_time": None,
    "expected_start_time": "2026-03-03T08:00:00Z",
}
OWN = {
    "id": "s-1",
    "slug": "from-the-journey",
    "active": True,
    "schedule": {"cron": "0 8 * * mon", "timezone": "Europe/London"},
    "parameters": {"audience": "everyone"},
}


class FakePrefect:
    """Prefect's API as far as the staff site uses it: answers, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.runs: list[dict[str, Any]] = [LATER, RUN]
        self.schedules: list[dict[str, Any]] = [OWN, {**OWN, "id": "s-2", "slug": None}]
        self.answer: httpx.Response | None = None
        self.is_away = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("no")
        path = request.url.path.removeprefix("/api")
        body: Any = orjson.loads(request.content) if request.content else None
        if request.method == "GET" and path.startswith("/deployments/name/"):
            name = path.rsplit("/", 1)[1]
            schedules = [] if name == SIMULATION else self.schedules
            return httpx.Response(200, json={"id": f"id-of-{name}", "schedules": schedules})
        if path == "/flow_runs/filter":
            simulated = body["deployments"]["id"]["any_"] == [f"id-of-{SIMULATION}"]
            return httpx.Response(200, json=[] if simulated else self.runs)
        self.asked.append((request.method, path, body))
        return self.answer or httpx.Response(201, json={"id": "new"})

    @property
    def last(self) -> Any:
        return self.asked[-1]


@contextmanager
def serving(fake: FakePrefect) -> Iterator[str]:
    """Serve it on a free port until the block ends; yields the URL of its API."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = fake(httpx.Request(self.command, f"http://prefect{self.path}", content=body))
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
