"""Approve or reject a launch as a Prefect flow. An approved launch runs in the same flow run."""

import asyncio
from typing import Annotated, Any, Literal

from prefect import Flow, State, flow
from prefect.states import Completed, Failed

from config.errors import SegueError
from flows.app import open_segue
from flows.approval import approve_launch, reject_launch
from flows.orchestration.forms import titled
from flows.orchestration.journey import run_journey
from flows.orchestration.names import APPROVALS
from journeys.launches.approvals import APPROVED


def approvals_flow() -> Flow[Any, Any]:
    """The flow; its form asks for the launch, the decision and who decides."""

    async def run(
        launch: Annotated[str, titled("The launch that waits", min_length=1)],
        decision: Annotated[Literal["approve", "reject"], titled("Decision")],
        name: Annotated[str, titled("Your name", min_length=1, max_length=100)],
        reason: Annotated[str, titled("Why it is rejected")] = "",
    ) -> State[Any]:
        """Approve or reject a launch.

        Args:
            launch: The id of its run.
            decision: approve: the launch starts now. reject: it never starts.
            name: It is recorded.
        """
        segue = await asyncio.to_thread(open_segue)
        try:
            if decision == "reject":
                verdict = await asyncio.to_thread(
                    reject_launch, segue, launch, name, reason or "no reason given"
                )
                return Completed(message=verdict.text)
            verdict = await asyncio.to_thread(approve_launch, segue, launch, name)
            if verdict.row.state != APPROVED:
                return Failed(message=verdict.text)
            if not verdict.changed:
                return Completed(message=verdict.text)
            return await run_journey(segue, verdict.row.request)
        except SegueError as error:
            return Failed(message=str(error))
        finally:
            segue.db.close()

    about = "Approves or rejects a launch that waits for it."
    return flow(name=APPROVALS, description=about, flow_run_name="{decision} {launch}")(run)
