"""The tasks of a launch that needs an approval: a dry run, which becomes its summary."""

import asyncio
from typing import Any

from prefect import State
from prefect.states import Completed
from typing_extensions import override

from config.clock.times import format_instant
from flows.app import Segue
from flows.approval import ask_for_approval
from flows.orchestration.dry_run import DryRun
from flows.orchestration.names import APPROVALS
from journeys.definition.journey import Journey
from journeys.launches.approvals import ApprovalNeeded, ApprovalRow


class WaitingLaunch(DryRun):
    """A launch that needs an approval. Its run ends; the launch goes on in another run."""

    def __init__(self, segue: Segue, journey: Journey, needed: ApprovalNeeded) -> None:
        request = needed.request
        super().__init__(segue, journey, audience=request.audience, people=request.people)
        self._needed = needed

    @override
    async def enter(self) -> State[Any]:
        """Simulate the launch, and store it as waiting."""
        would_be = await super().enter()
        row = await asyncio.to_thread(self._ask)
        return Completed(name=self._waiting, message=f"{would_be.message}; {_how_to_approve(row)}")

    def _ask(self) -> ApprovalRow:
        self._row = ask_for_approval(self._segue, self._needed, self._report)
        return self._row

    @override
    async def finish(self) -> State[Any]:
        """Create the artifacts of the dry run."""
        dry = await super().finish()
        message = f"{self._waiting}: {_how_to_approve(self._row)}. {dry.message}"
        return Completed(name=self._waiting, message=message)

    @property
    def _waiting(self) -> str:
        entered = self._report.results.entered[self.journey.name]
        return f"Waiting for approval: {entered:,} people"


def _how_to_approve(row: ApprovalRow) -> str:
    return (
        f"{row.why}. Until {format_instant(row.lapses_at)}, run the deployment {APPROVALS} with "
        f"the launch {row.launch_id}, or: segue approve {row.launch_id}"
    )
