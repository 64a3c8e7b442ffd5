"""Start and watch runs through Prefect's API, as its UI does."""

import asyncio
import time
import uuid
from typing import Any

import httpx
from typing_extensions import override

from config.access.login import basic, prefect_login
from config.errors import SegueError
from config.settings import Settings
from flows.orchestration.names import deployment_name

# On SQLite, Prefect's server responds 503 to a write that conflicts with another, and writes
# nothing.
_BUSY = 503
_BUSY_TRIES = 60
_BUSY_PAUSE = 0.3  # seconds

_RUNNING = ["PENDING", "RUNNING", "CANCELLING"]
_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_LOST = (
    "Segue was stopped during this run. Its enrollments continue; to enter others, run it again."
)


class PatientClient(httpx.Client):
    """Sends a request again while Prefect is busy. busy_pause: seconds."""

    def __init__(self, *, busy_pause: float = _BUSY_PAUSE, **options: Any) -> None:
        super().__init__(**options)
        self._busy_pause = busy_pause

    @override
    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = super().send(request, **options)
        for _ in range(_BUSY_TRIES):
            if answer.status_code != _BUSY:
                break
            time.sleep(self._busy_pause)
            answer = super().send(request, **options)
        return answer


class AsyncPatientClient(httpx.AsyncClient):
    """Sends a request again while Prefect is busy. busy_pause: seconds."""

    def __init__(self, *, busy_pause: float = _BUSY_PAUSE, **options: Any) -> None:
        super().__init__(**options)
        self._busy_pause = busy_pause

    @override
    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = await super().send(request, **options)
        for _ in range(_BUSY_TRIES):
            if answer.status_code != _BUSY:
                break
            await asyncio.sleep(self._busy_pause)
            answer = await super().send(request, **options)
        return answer


class PrefectAPI:
    """The API of the Prefect server on this machine.

    Raises httpx.TransportError if the server does not run, and SegueError with Prefect's text if
    it refuses.
    """

    def __init__(self, settings: Settings) -> None:
        self._ui = settings.prefect_url
        login = prefect_login(settings)
        self._http = PatientClient(
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
        response = self._http.get(f"/deployments/name/{deployment_name(journey)}")
        return response.is_success and response.json()["status"] == "READY"

    def start(self, journey: str, parameters: dict[str, Any], *, key: str | None = None) -> str:
        """Start a run now; returns its id. A repeated `key` is the same run."""
        deployment = self._request("GET", f"/deployments/name/{deployment_name(journey)}")
        run = self._request(
            "POST",
            f"/deployments/{deployment['id']}/create_flow_run",
            {"parameters": parameters, "idempotency_key": key or str(uuid.uuid4())},
        )
        return str(run["id"])

    def ended(self, run_id: str) -> dict[str, Any] | None:
        """The state in which a run ended; None while it runs."""
        state: dict[str, Any] = self._request("GET", f"/flow_runs/{run_id}")["state"]
        return state if state["type"] in _ENDED else None

    def end_lost_runs(self) -> None:
        """Set runs to Crashed that Prefect shows as running although their process was killed."""
        running = {"flow_runs": {"state": {"type": {"any_": _RUNNING}}}}
        for run in self._request("POST", "/flow_runs/filter", running):
            crashed = {"state": {"type": "CRASHED", "message": _LOST}, "force": True}
            self._request("POST", f"/flow_runs/{run['id']}/set_state", crashed)

    def page(self, run_id: str) -> str:
        """The URL of a run in the UI."""
        return f"{self._ui}/v2/runs/flow-run/{run_id}"

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        response = self._http.request(method, path, json=body)
        if not response.is_success:
            raise SegueError(f"Prefect responds {response.status_code}: {response.text[:500]}")
        return response.json()


def client_options(settings: Settings, within: float) -> dict[str, Any]:
    """The options of an HTTP client for the API at PREFECT_API_URL, with its key or login, or for
    that of this machine.

    within: seconds, for each request.
    """
    if not settings.prefect_api_url:
        login = prefect_login(settings)
        return {
            "base_url": f"{settings.prefect_url}/api",
            "auth": None if login is None else basic(login),
            "timeout": within,
            "trust_env": False,
        }
    headers = {}
    if key := settings.prefect_api_key.get_secret_value():
        headers["Authorization"] = f"Bearer {key}"
    user, _, password = settings.prefect_api_auth_string.get_secret_value().partition(":")
    return {
        "base_url": settings.prefect_api_url,
        "headers": headers,
        "auth": (user, password) if user else None,
        "timeout": within,
    }


def async_client(settings: Settings, within: float) -> AsyncPatientClient:
    """A client with these options."""
    return AsyncPatientClient(**client_options(settings, within))
