"""The tasks of a dry run: report what a launch would do, without storing anything."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from prefect import State
from prefect.states import Completed

from flows.app import Segue
from flows.approval import rehearse
from flows.dry_run import DryRunReport
from flows.orchestration.pages.artifacts import write_outcomes, write_picture
from flows.orchestration.pages.labels import dry_run_labels, plain, run_labels, sentence
from journeys.definition.journey import Journey
from journeys.launches.approvals import LaunchRequest
from journeys.operations.counts import Summary


def hours_in_words(hours: Mapping[str, int], zone: str) -> str:
    """Numbers by the hour in which messages go: "Mon 2 Mar 10:00: 2 (Europe/London)".

    hours: by ISO 8601 times in that zone.
    """
    moments = [(datetime.fromisoformat(hour), number) for hour, number in hours.items()]
    named = [f"{at:%a} {at.day} {at:%b} {at:%H:%M}: {number:,}" for at, number in moments]
    return f"{', '.join(named)} ({zone})" if named else ""


class DryRun:
    """One dry run of a journey."""

    def __init__(
        self, segue: Segue, journey: Journey, *, audience: str, people: int | None
    ) -> None:
        self.journey = journey
        self._segue = segue
        self._audience = audience
        self._people = people
        self._report: DryRunReport

    async def enter(self) -> State[Any]:
        """Simulate the launch."""
        self._report = await asyncio.to_thread(self._simulate)
        entered = self._report.results.entered[self.journey.name]
        message = (
            f"{entered:,} of the {self._report.audience:,} profiles in {self._audience} would enter"
        )
        return Completed(
            name=f"{entered:,} would enter", message=sentence([message, self._why_not()])
        )

    def _simulate(self) -> DryRunReport:
        request = LaunchRequest(
            id="", journey=self.journey.name, audience=self._audience, people=self._people
        )
        return rehearse(self._segue, request)

    def _why_not(self) -> str:
        reasons = self._report.results.why.get(self.journey.name) or Counter[str]()
        return ", ".join(f"{reason} ({number:,})" for reason, number in reasons.items())

    async def step(self, name: str) -> State[Any]:
        """Report the result of the dry run at one step."""
        state, message = dry_run_labels(self._report.steps[name])
        return Completed(name=state, message=message)

    async def finish(self) -> State[Any]:
        """Create the picture and the table."""
        results = self._report.results
        summary = Summary(
            entered=results.entered[self.journey.name],
            active=self._report.journey.here.total(),
            planned=results.sent + results.planned,
            not_sent=results.not_sent,
        )
        for counts in self._report.steps.values():
            for (channel, fate), number in counts.messages.items():
                planned = fate == "planned"
                state, reason = ("planned", "") if planned else ("skipped", fate)
                summary.outcomes[channel, state, reason] += number
        await write_picture(self.journey, self._report.journey, dry_run=True)
        await write_outcomes(self.journey, summary, dry_run=True)
        hours = plain(hours_in_words(self._report.hours, self._segue.policy.timezone))
        told = sentence([run_labels(summary), hours, self._why_not()])
        return Completed(message=f"Dry run: nothing was sent or stored. Would be: {told}")
