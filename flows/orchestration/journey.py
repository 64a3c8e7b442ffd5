"""A journey as a Prefect flow: its steps are the tasks, joined by its edges.

A run enters an audience if it has one, moves due enrollments step by step, and sends due messages.
All state is in our own rows, so a task can be repeated. The tasks report from the rows, so they
include what workers have moved.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Protocol

from prefect import Flow, State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.app import Segue, open_segue
from flows.approval import missing_approval
from flows.launch import MOST_PEOPLE
from flows.orchestration.dry_run import DryRun
from flows.orchestration.forms import CONTINUE, choice, listed, run_name, titled
from flows.orchestration.pages.labels import sentence
from flows.orchestration.run import Run
from flows.orchestration.waiting_launch import WaitingLaunch
from flows.worker.leasing import leasing
from journeys.definition.catalog import Catalog
from journeys.definition.graph import parents
from journeys.definition.journey import Journey, Version
from journeys.launches.approvals import LaunchRequest, NotApproved

_ENTER = "enter"
_DRY_RUN_OF_NOBODY = f"A dry run needs an audience: choose one instead of {CONTINUE!r}"


class Act(Protocol):
    """The work of a run's tasks: a real run, a dry run, or a launch that has to wait."""

    journey: Journey

    async def enter(self) -> State[Any]:
        """Enter the audience."""

    async def step(self, name: str) -> State[Any]:
        """Move the enrollments due at a step, and send due messages."""

    async def finish(self) -> State[Any]:
        """Create the artifacts; returns the state of the run.

        Unless it waits for an approval, the state has one of Prefect's own names, because the
        deployment's page in the V1 UI lists only these.
        """


def journey_flow(version: Version, catalog: Catalog) -> Flow[Any, Any]:
    """The flow of a journey, with the journey's name. Its parameters are the fields of the form."""
    journey = version.journey

    async def run(
        audience: str = CONTINUE,
        limit: Annotated[int, titled("At most this many people", ge=0, le=MOST_PEOPLE)] = 0,
        dry_run: Annotated[bool, titled("Dry run: only show what would happen")] = False,
    ) -> State[Any]:
        people = limit or None
        launch_id = str(flow_run.id)
        segue = await asyncio.to_thread(open_segue)
        try:
            current = segue.catalog.journey(journey.name).journey
            if dry_run:
                if audience == CONTINUE:
                    return Failed(message=_DRY_RUN_OF_NOBODY)
                return await perform(DryRun(segue, current, audience=audience, people=people))
            entering = None if audience == CONTINUE else audience
            return await _launch(segue, current, entering, people, launch_id)
        finally:
            segue.db.close()

    # The choices and their help depend on the catalog.
    run.__annotations__["audience"] = choice("Who enters now", [CONTINUE, *catalog.segments])
    run.__doc__ = _help(catalog)
    return flow(
        name=journey.name,
        description=journey.description,
        flow_run_name=lambda: run_name(journey.name, flow_run.parameters),
    )(run)


async def _launch(
    segue: Segue, journey: Journey, audience: str | None, people: int | None, launch_id: str
) -> State[Any]:
    """Run a journey, or let its launch wait for an approval."""
    if audience is None:
        return await _work(segue, journey, None, None, launch_id)
    request = LaunchRequest(id=launch_id, journey=journey.name, audience=audience, people=people)
    try:
        needed = await asyncio.to_thread(missing_approval, segue, request)
    except NotApproved as error:
        return Failed(message=str(error))
    if needed is None:
        return await run_journey(segue, request)
    return await perform(WaitingLaunch(segue, journey, needed))


async def run_journey(segue: Segue, request: LaunchRequest) -> State[Any]:
    """Run a launch that needs no approval, or has it."""
    journey = segue.catalog.journey(request.journey).journey
    return await _work(segue, journey, request.audience, request.people, request.id)


async def _work(
    segue: Segue, journey: Journey, audience: str | None, people: int | None, launch_id: str
) -> State[Any]:
    async with segue.dispatcher() as dispatcher, leasing(segue, journey.name) as leases:
        return await perform(
            Run(
                segue,
                dispatcher,
                leases,
                journey=journey,
                audience=audience,
                people=people,
                launch_id=launch_id,
                started_by=_started_by(launch_id),
            )
        )


def _started_by(launch_id: str) -> str:
    """What started a launch, whose id is that of the flow run that asked for it."""
    if str(flow_run.id) != launch_id:
        return "an approval"
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    return "the schedule" if run is not None and run.auto_scheduled else "hand"


def _help(catalog: Catalog) -> str:
    """The help text of each field in the run form."""
    return f"""Run the journey.

    Args:
        audience: The segment that enters, or "{CONTINUE}": move and send what is due.
            {listed(catalog.segments.values(), {})}
        limit: 0 means no limit.
        dry_run: Nothing is stored or sent.
    """


async def perform(act: Act) -> State[Any]:
    """Run the tasks in graph order, each after the steps that lead into it."""
    states = {_ENTER: await _run_task(_ENTER, act.enter, [])}
    before = parents(act.journey.graph)
    for name in act.journey.graph:
        upstream = [states[one] for one in before[name] or [_ENTER]]
        states[name] = await _run_task(name, partial(act.step, name), upstream)
    state = await act.finish()
    get_run_logger().info(state.message)
    failed = [f"{name}: {one.message}" for name, one in states.items() if one.is_failed()]
    return Failed(message=sentence(failed)) if failed else state


async def _run_task(
    name: str, act: Callable[[], Awaitable[State[Any]]], upstream: list[State[Any]]
) -> State[Any]:
    """Run one task, with up to three attempts, which is safe because chunks can be repeated."""

    @task(
        name=name,
        task_run_name=lambda: name,
        retries=2,
        retry_delay_seconds=1,
        cache_policy=NO_CACHE,
    )
    async def run() -> State[Any]:
        state = await act()
        get_run_logger().info(state.message)
        return state

    # Prefect's types do not declare that awaiting this gives a state.
    running: Any = run(return_state=True, wait_for=upstream)
    state: State[Any] = await running
    return state
