"""Pause, resume or stop a journey as a Prefect flow, for the UI and for automations."""

import asyncio
from typing import Annotated, Any

from prefect import Flow, State, flow
from prefect.states import Completed

from flows.app import open_segue
from flows.orchestration.forms import choice, titled
from flows.orchestration.journey_controls import Action, control_journey
from flows.orchestration.names import CONTROLS
from journeys.definition.catalog import Catalog


def controls_flow(catalog: Catalog) -> Flow[Any, Any]:
    """The flow; its form lists the journeys of the catalog."""

    async def run(journey: str, action: Annotated[Action, titled("What to do")]) -> State[Any]:
        """Pause, resume or stop a journey.

        Args:
            action: pause: nothing moves or is sent, but profiles can enter. resume: continue;
                planned messages are checked again first, and skipped if they are no longer allowed.
                stop: all enrollments end, planned messages are cancelled, and entries are refused
                until the journey is resumed.
        """
        segue = await asyncio.to_thread(open_segue)
        try:
            return Completed(
                message=await asyncio.to_thread(control_journey, segue, journey, action)
            )
        finally:
            segue.db.close()

    # The choices depend on the catalog.
    run.__annotations__["journey"] = choice("Journey", list(catalog.current))
    about = "Pauses, resumes or stops a journey."
    return flow(name=CONTROLS, description=about, flow_run_name="{action} {journey}")(run)
