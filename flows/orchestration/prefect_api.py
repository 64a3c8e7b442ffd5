"""Start and watch runs through Prefect's API, as its UI does."""

import time
import uuid
from typing import Any

import httpx

from config.access.login import basic, prefect_login
from config.errors import SegueError
from config.settings import Settings
from flows.orchestration.names import deployment_name

# On SQLite, Prefect's server responds 503 to a write that conflicts with another: try again.
_BUSY = 503
_TRIES = 20
_PAUSE = 0.3  # seconds

_UNDER_WAY = ["PENDING", "RUNNING", "CANCELLING"]
_OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_LOST = "Segue was stopped while this ran. Who had entered goes on; for the others, run it again."


class PrefectAPI:
    """The API of the Prefect server on this machine.

    Raises httpx.TransportError if the server does not run, and SegueError with Prefect's text if
    it refuses.
    """

    def __init__(self, settings: Settings) -> None:
        self._ui = settings.prefect_url
        login = prefect_login(settings)
        self._http = httpx.Client(
            base_url=f"{settings.prefect_url}/api",
            timeout=30,
            trust_env=False,
            auth=None if login is None else basic(login),
        )

    def close(self) -> None:
        self._http.close()

    def is_well(self) -> bool:
        """Whether the server has started."""
        return self._http.get("/health").is_success

    def is_served(self, journey: str) -> bool:
        """Whether a runner serves a journey's deployment."""
        answer = self._http.get(f"/deployments/name/{deployment_name(journey)}")
        return answer.is_success and answer.json()["status"] == "READY"

    def start(self, journey: str, parameters: dict[str, Any], *, key: str | None = None) -> str:
        """Start a run now; returns its id. A repeated `key` is the same run."""
        deployment = self._ask("GET", f"/deployments/name/{deployment_name(journey)}")
        run = self._ask(
            "POST",
            f"/deployments/{deployment['id']}/create_flow_run",
            {"parameters": parameters, "idempotency_key": key or str(uuid.uuid4())},
        )
        return str(run["id"])

    def ended(self, run_id: str) -> dict[str, Any] | None:
        """The state in which a run ended; None while it runs."""
        state: dict[str, Any] = self._ask("GET", f"/flow_runs/{run_id}")["state"]
        return state if state["type"] in _OVER else None

    def end_lost_runs(self) -> None:
        """Set runs to Crashed whose process was killed, and which Prefect shows as running."""
        under_way = {"flow_runs": {"state": {"type": {"any_": _UNDER_WAY}}}}
        for run in self._ask("POST", "/flow_runs/filter", under_way):
            crashed = {"state": {"type": "CRASHED", "message": _LOST}, "force": True}
            self._ask("POST", f"/flow_runs/{run['id']}/set_state", crashed)

    def page(self, run_id: str) -> str:
        """The URL of a run in the UI."""
        return f"{self._ui}/v2/runs/flow-run/{run_id}"

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        for _ in range(_TRIES):
            answer = self._http.request(method, path, json=body)
            if answer.status_code != _BUSY:
                break
            time.sleep(_PAUSE)
        if not answer.is_success:
            raise SegueError(f"Prefect answers {answer.status_code}: {answer.text[:500]}")
        return answer.json()
