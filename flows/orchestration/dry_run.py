"""The tasks of a dry run: report what a launch would do now, without storing anything."""

import asyncio
from collections import Counter
from typing import Any

from prefect import State
from prefect.states import Completed

from channels.outbox.render import Renderer
from flows.app import Segue
from flows.orchestration.artifacts import write_outcomes, write_picture
from flows.orchestration.counts import JourneyCounts, StepCounts
from flows.orchestration.labels import dry_run_labels, run_labels
from journeys.definition.journey import Journey
from journeys.operations.launches import audience_size, dry_run
from journeys.operations.report import Summary


class DryRun:
    """One dry run of a journey."""

    def __init__(
        self, segue: Segue, journey: Journey, *, audience: str, people: int | None, launch_id: str
    ) -> None:
        self.journey = journey
        self._segue = segue
        self._audience = audience
        self._people = people
        self._launch_id = launch_id
        self._steps: dict[str, StepCounts] = {}

    async def enter(self) -> State[Any]:
        """Run the whole launch in a transaction that is rolled back."""
        engine = self._segue.engine
        version = self._segue.catalog.journey(self.journey.name)
        reports = await asyncio.to_thread(
            dry_run,
            engine,
            version,
            self._audience,
            self._people,
            self._launch_id,
            Renderer(self._segue.settings),
        )
        self._steps = {step: StepCounts.of_report(report) for step, report in reports.items()}
        size = await asyncio.to_thread(audience_size, engine, self._audience)
        return Completed(
            name=f"{self._entered():,} would enter",
            message=f"{self._entered():,} of the {size:,} profiles in {self._audience} would enter",
        )

    async def step(self, name: str) -> State[Any]:
        """Report the result of the dry run at one step."""
        state, message = dry_run_labels(self._steps[name])
        return Completed(name=state, message=message)

    async def finish(self) -> State[Any]:
        """Create the picture and the table."""
        here = Counter({step: counts.here for step, counts in self._steps.items()})
        passed = Counter(
            {
                (step, outcome): number
                for step, counts in self._steps.items()
                for outcome, number in counts.left.items()
            }
        )
        entered = self._entered()
        summary = Summary(entered=entered, active=here.total())
        for counts in self._steps.values():
            summary.planned += counts.fates("planned")
            summary.not_sent += counts.reasons()
            for (channel, fate), number in counts.messages.items():
                planned = fate == "planned"
                state, reason = ("planned", "") if planned else ("skipped", fate)
                summary.outcomes[channel, state, reason] += number
        await write_picture(self.journey, JourneyCounts(entered, here, passed), dry_run=True)
        await write_outcomes(self.journey, summary, dry_run=True)
        return Completed(
            message=f"Dry run: nothing was sent or stored. Would be: {run_labels(summary)}"
        )

    def _entered(self) -> int:
        """The number of new enrollments: those that are at the first step or have left it."""
        first = self._steps[self.journey.first_step]
        return first.here + first.left.total()
