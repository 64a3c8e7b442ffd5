"""Pause, resume or stop a journey as a Prefect flow, for the UI and for automations."""

import asyncio
from typing import Any, Literal

from prefect import Flow, State, flow
from prefect.states import Completed

from flows.app import open_segue
from flows.orchestration.journey_controls import Action, hold
from flows.orchestration.names import HOLDING
from journeys.definition.catalog import Catalog


def controls_flow(catalog: Catalog) -> Flow[Any, Any]:
    """The flow; its form offers the journeys of the catalog."""

    async def run(journey: str, action: Action) -> State[Any]:
        """Pause, resume or stop a journey.

        Args:
            journey: The journey.
            action: pause: nothing moves or is sent; people still enter, and nobody is lost.
                resume: continue; planned messages are decided again first, and skipped if they are
                no longer allowed. stop: all enrollments end, planned messages are cancelled, and
                nobody enters until it is resumed.
        """
        segue = await asyncio.to_thread(open_segue)
        try:
            return Completed(message=await asyncio.to_thread(hold, segue, journey, action))
        finally:
            segue.db.close()

    # The choices depend on the catalog.
    run.__annotations__["journey"] = Literal[tuple(catalog.current)]
    about = "Pauses, resumes or stops a journey."
    return flow(name=HOLDING, description=about)(run)
