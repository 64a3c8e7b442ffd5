"""Starting and watching runs through Prefect's own API, as its UI does."""

from typing import Any

import httpx

from config.errors import SegueError
from config.settings import Settings
from flows.names import deployment_name

_OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_UNDER_WAY = ["PENDING", "RUNNING", "CANCELLING"]
_LOST = "Segue was stopped while this ran. Who had entered goes on; for the others, run it again."


class PrefectAPI:
    """The API of the Prefect server on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._ui = settings.prefect_url
        self._http = httpx.Client(
            base_url=f"{settings.prefect_url}/api", timeout=30, trust_env=False
        )

    def close(self) -> None:
        self._http.close()

    def is_well(self) -> bool:
        """Whether the server has started."""
        return self._http.get("/health").is_success

    def is_served(self, journey: str) -> bool:
        """Whether somebody waits for runs of a journey's deployment."""
        answer = self._http.get(f"/deployments/name/{deployment_name(journey)}")
        return answer.is_success and answer.json()["status"] == "READY"

    def start(self, journey: str, parameters: dict[str, Any], *, key: str | None = None) -> str:
        """Start a run now; gives its id. The same `key` again is the same run.

        Raises SegueError with Prefect's words when it refuses.
        """
        deployment = self._ok(self._http.get(f"/deployments/name/{deployment_name(journey)}"))
        run = self._ok(
            self._http.post(
                f"/deployments/{deployment['id']}/create_flow_run",
                json={"parameters": parameters, "idempotency_key": key},
            )
        )
        return str(run["id"])

    def ended(self, run_id: str) -> dict[str, Any] | None:
        """The state in which a run ended; None while it has not."""
        state: dict[str, Any] = self._ok(self._http.get(f"/flow_runs/{run_id}"))["state"]
        return state if state["type"] in _OVER else None

    def end_lost_runs(self) -> None:
        """Tell Prefect of the runs whose process was killed, which it takes to be running."""
        lost = self._http.post(
            "/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": _UNDER_WAY}}}}
        )
        for run in lost.json():
            self._ok(
                self._http.post(
                    f"/flow_runs/{run['id']}/set_state",
                    json={"state": {"type": "CRASHED", "message": _LOST}, "force": True},
                )
            )

    def page(self, run_id: str) -> str:
        """Where the UI shows a run."""
        return f"{self._ui}/runs/flow-run/{run_id}"

    def _ok(self, answer: httpx.Response) -> dict[str, Any]:
        if not answer.is_success:
            raise SegueError(f"Prefect answers {answer.status_code}: {answer.text[:500]}")
        found: dict[str, Any] = answer.json()
        return found
