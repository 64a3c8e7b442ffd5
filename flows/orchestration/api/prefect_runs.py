"""Start, schedule and list runs through Prefect's API, for pages that act for a marketer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

from config.clock.crons import cron_in_words
from config.clock.times import Instant, format_instant, parse_instant
from config.errors import SegueError
from config.settings import Settings
from flows.orchestration.api.prefect_api import PatientClient, client_options
from flows.orchestration.names import OWN_SCHEDULE, SIMULATION, deployment_name

_WITHIN = 10.0  # seconds
_MOST = 15


class PrefectSchedule(NamedTuple):
    """A schedule of a deployment. when: in words where it is daily or weekly, with the zone.

    is_own: it is written in the journey itself, so it can't be removed elsewhere.
    """

    id: str
    when: str
    audience: str
    active: bool
    is_own: bool


class PrefectRun(NamedTuple):
    """A run. state: as Prefect names it; kind: its type in lower case. at: its start."""

    id: str
    name: str
    state: str
    kind: str
    message: str
    at: Instant
    page: str


class JourneyRuns(NamedTuple):
    """The runs of a journey, the newest first, its simulations, and its schedules."""

    runs: list[PrefectRun]
    simulations: list[PrefectRun]
    schedules: list[PrefectSchedule]

    @property
    def is_busy(self) -> bool:
        """Whether one of them is under way."""
        return any(one.kind in ("pending", "running") for one in (*self.runs, *self.simulations))


class PrefectRuns:
    """The runs of journeys on the server at PREFECT_API_URL, or on this machine's own.

    Every method raises SegueError if the server does not respond, refuses, or has no deployment.
    ui: the URL of Prefect's UI.
    """

    def __init__(self, settings: Settings, ui: str) -> None:
        self._settings = settings
        self._ui = ui

    def of_journey(self, journey: str) -> JourneyRuns:
        """What there is about a journey."""
        with self._server() as server:
            deployment = server.deployment(journey)
            simulation = server.find(SIMULATION)
            like = {"flow_runs": {"name": {"like_": f"simulate {journey},"}}}
            return JourneyRuns(
                runs=self._runs(server, deployment["id"], {}),
                simulations=[]
                if simulation is None
                else self._runs(server, simulation["id"], like),
                schedules=[_schedule(one) for one in deployment["schedules"]],
            )

    def start(
        self, name: str, parameters: Mapping[str, Any], key: str, at: Instant | None = None
    ) -> None:
        """Start a run of a deployment, now or later. The same key starts one run only."""
        asked: dict[str, Any] = {"parameters": parameters, "idempotency_key": key}
        if at is not None:
            details = {"scheduled_time": format_instant(at)}
            asked["state"] = {"type": "SCHEDULED", "state_details": details}
        with self._server() as server:
            deployment = server.deployment(name)
            server.request("POST", f"/deployments/{deployment['id']}/create_flow_run", asked)

    def schedule(
        self, journey: str, parameters: Mapping[str, Any], cron: str, zone: str, key: str
    ) -> None:
        """Add a schedule to a journey's deployment, once for each key. zone: an IANA name."""
        added = {
            "slug": f"staff-{key[:32]}",
            "schedule": {"cron": cron, "timezone": zone},
            "active": True,
            "parameters": parameters,
        }
        with self._server() as server:
            deployment = server.deployment(journey)
            if added["slug"] not in {one.get("slug") for one in deployment["schedules"]}:
                server.request("POST", f"/deployments/{deployment['id']}/schedules", [added])

    def remove_schedule(self, journey: str, schedule_id: str) -> None:
        """Remove a schedule of a journey's deployment."""
        with self._server() as server:
            deployment = server.deployment(journey)
            schedules = {one.id: one for one in map(_schedule, deployment["schedules"])}
            if schedule_id not in schedules:
                raise SegueError("there is no such schedule any more")
            if schedules[schedule_id].is_own:
                raise SegueError("this schedule is the entry of the journey; change its journey.py")
            path = f"/deployments/{deployment['id']}/schedules/{schedule_id}"
            server.request("DELETE", path)

    def cancel(self, journey: str, run_id: str) -> None:
        """Cancel a run of a journey that is scheduled for later."""
        with self._server() as server:
            deployment = server.deployment(journey)
            known = {one.id: one for one in self._runs(server, deployment["id"], {})}
            if run_id not in known or known[run_id].kind != "scheduled":
                raise SegueError("this run does not wait for its time any more")
            cancelled = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
            server.request("POST", f"/flow_runs/{run_id}/set_state", cancelled)

    def _runs(
        self, server: "_Server", deployment_id: str, which: Mapping[str, Any]
    ) -> list[PrefectRun]:
        wanted = {
            **which,
            "deployments": {"id": {"any_": [deployment_id]}},
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": _MOST,
        }
        found = server.request("POST", "/flow_runs/filter", wanted)
        return [_run(one, self._ui) for one in found]

    @contextmanager
    def _server(self) -> Iterator["_Server"]:
        options = client_options(self._settings, _WITHIN)
        with PatientClient(**options) as client:
            yield _Server(client)


class _Server:
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def deployment(self, name: str) -> Any:
        found = self.find(name)
        if found is None:
            raise SegueError(f"Prefect has no deployment {name!r}; create it: segue deploy")
        return found

    def find(self, name: str) -> Any:
        """A deployment; None: there is none."""
        answer = self._send("GET", f"/deployments/name/{deployment_name(name)}", None)
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._read(answer)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        return self._read(self._send(method, path, body))

    def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise SegueError(
                f"Prefect does not respond at {self._client.base_url}: {type(error).__name__}; "
                "start its server, or set PREFECT_API_URL"
            ) from error

    def _read(self, answer: httpx.Response) -> Any:
        if not answer.is_success:
            raise SegueError(f"Prefect refuses this (HTTP {answer.status_code}): {_detail(answer)}")
        return answer.json() if answer.content else None


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]


def _run(found: Mapping[str, Any], ui: str) -> PrefectRun:
    state = found["state"] or {"name": "Pending", "type": "PENDING", "message": ""}
    waits = state["type"] == "SCHEDULED"
    by_schedule = waits and found.get("auto_scheduled")
    at = found["start_time"] or found["expected_start_time"] or found["created"]
    return PrefectRun(
        id=found["id"],
        # Until a run begins it has a name of Prefect's invention, and no message of ours.
        name="by its schedule" if by_schedule else found["name"],
        state=state["name"],
        kind=state["type"].lower(),
        message="" if waits else state.get("message") or "",
        at=parse_instant(at),
        page=f"{ui}/v2/runs/flow-run/{found['id']}",
    )


def _schedule(found: Mapping[str, Any]) -> PrefectSchedule:
    schedule = found["schedule"]
    cron = schedule.get("cron")
    when = (
        cron_in_words(cron) if cron else schedule.get("rrule") or f"every {schedule['interval']} s"
    )
    if cron:
        when = cron_in_words(cron)
    zone = schedule.get("timezone")
    return PrefectSchedule(
        id=found["id"],
        when=f"{when} ({zone})" if zone else str(when),
        audience=str((found.get("parameters") or {}).get("audience", "")),
        active=bool(found["active"]),
        is_own=found.get("slug") == OWN_SCHEDULE,
    )
