"""Each journey as a Prefect deployment, served by this process or run by a work pool."""

import asyncio
from typing import Any

import httpx
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleUpdate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType

from config.errors import SegueError
from flows.orchestration.forms import CONTINUE
from flows.orchestration.library import CATALOG, FLOWS
from flows.orchestration.names import (
    APPROVALS,
    CONTROLS,
    DUPLICATES,
    OWN_SCHEDULE,
    SIMULATION,
    YARDSTICK,
    entrypoint,
)
from flows.orchestration.pages.picture import mermaid
from journeys.definition.journey import Journey, ScheduleEntry

# Seconds between two polls for new runs, and the most runs at once.
_POLL = 2.0
_AT_ONCE = 4


def deployments() -> list[RunnerDeployment]:
    """One for each journey, with the schedule of its entry if any; one for pause, resume, stop, one
    for approvals, one for the yardstick, one for simulations, and one that finds duplicates.
    """
    return [
        *(_of_journey(version.journey) for version in CATALOG.current.values()),
        *(
            _deployment(name, FLOWS[name].description or "", [], [])
            for name in (CONTROLS, APPROVALS, YARDSTICK, SIMULATION, DUPLICATES)
        ),
    ]


def _of_journey(journey: Journey) -> RunnerDeployment:
    schedules = []
    if isinstance(journey.entry, ScheduleEntry):
        entry = journey.entry
        schedules = [
            Cron(
                entry.cron,
                timezone=entry.timezone,
                parameters={"audience": entry.segment},
                slug=OWN_SCHEDULE,
            )
        ]
    return _deployment(journey.name, _description(journey), [journey.topic], schedules)


def _deployment(
    name: str, description: str, tags: list[str], schedules: list[Schedule]
) -> RunnerDeployment:
    deployment = RunnerDeployment.from_flow(
        FLOWS[name],
        name=name,
        schedules=schedules,
        description=description,
        tags=["segue", *tags],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.entrypoint = entrypoint(name)
    return deployment


def _description(journey: Journey) -> str:
    return (
        f"{journey.description}\n\n"
        "**Run > Custom run** asks for the audience, the limit and the start time. "
        "A dry run only reports what would happen.\n\n"
        f"```mermaid\n{mermaid(journey)}\n```\n"
    )


async def serve_all() -> None:
    """Run the journeys that are started in the UI or scheduled, until stopped.

    Each run is its own process, so that it can be cancelled in the UI.
    """
    # Keep the schedules active when this stops: under `segue up` nothing else would resume them.
    runner = Runner("segue", query_seconds=_POLL, limit=_AT_ONCE, pause_on_shutdown=False)
    async with get_client() as client:
        for deployment in deployments():
            await _keep_schedules(client, deployment)
            await runner.aadd_deployment(deployment)
    await runner.start()


def deploy(work_pool: str) -> list[str]:
    """Create or update the deployments, for the workers of a work pool; returns their names.

    Raises SegueError if the pool or Prefect's server does not exist.
    """
    server = PREFECT_API_URL.value()
    if server is None:
        raise SegueError(
            "PREFECT_API_URL is not set: set it to the API of the Prefect server, such as "
            "http://prefect.example:4200/api"
        )
    try:
        asyncio.run(_deploy(work_pool, server))
    except httpx.TransportError as error:
        raise SegueError(
            f"Prefect's server at {server} can't be reached ({error}): check PREFECT_API_URL"
        ) from error
    return list(FLOWS)


async def _deploy(work_pool: str, server: str) -> None:
    async with get_client() as client:
        try:
            await client.read_work_pool(work_pool)
        except ObjectNotFound:
            raise SegueError(
                f"there is no work pool {work_pool!r} at {server}; create it with: "
                f"prefect work-pool create {work_pool} --type process"
            ) from None
        for deployment in deployments():
            await _keep_schedules(client, deployment)
            await deployment.aapply(work_pool_name=work_pool)


async def _keep_schedules(client: PrefectClient, deployment: RunnerDeployment) -> None:
    """Keep the schedules that were added or paused in the UI.

    An update replaces all schedules of a deployment, so it must contain them.
    """
    try:
        known = await client.read_deployment_by_name(deployment.full_name)
    except ObjectNotFound:
        return
    active = {schedule.slug: schedule.active for schedule in known.schedules}
    added = [
        DeploymentScheduleUpdate(
            schedule=schedule.schedule,
            active=schedule.active,
            parameters=_renamed(schedule.parameters),
            slug=schedule.slug,
        )
        for schedule in known.schedules
        if schedule.slug != OWN_SCHEDULE
    ]
    ours = [
        schedule.model_copy(update={"active": active.get(OWN_SCHEDULE, True)})
        for schedule in deployment.schedules or []
    ]
    deployment.schedules = [*ours, *added]


def _renamed(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a schedule; earlier releases had another name for CONTINUE."""
    if parameters.get("audience") == "nobody new":
        return {**parameters, "audience": CONTINUE}
    return parameters


if __name__ == "__main__":
    asyncio.run(serve_all())
