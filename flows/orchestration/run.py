"""The tasks of a journey's run: enter profiles, move due enrollments, send due messages."""

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prefect import State
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.states import Completed

from channels.outbox.dispatch import Dispatcher
from config.clock.times import Instant, format_instant
from flows.app import Segue
from flows.orchestration.pages.artifacts import (
    artifact_key,
    whole_journey,
    write_experiment,
    write_outcomes,
    write_picture,
    write_report,
)
from flows.orchestration.pages.counts import (
    JourneyCounts,
    StepCounts,
    count_journey,
    count_step,
    last_shown,
    show_step,
    under_way,
)
from flows.orchestration.pages.labels import run_labels, step_labels
from journeys.definition.journey import Journey
from journeys.definition.steps import ExperimentStep, SendStep
from journeys.engine.turn import Turn
from journeys.launches.launching import (
    audience_size,
    enter_all_newcomers,
    enter_audience,
    start_launch,
)
from journeys.operations.control import HELD_MEANS, held
from journeys.operations.counts import Summary, summarise
from journeys.operations.leases import Leases

if TYPE_CHECKING:
    from journeys.analytics.experiments import ExperimentReport
    from journeys.analytics.reports.figures import JourneyReport

# Seconds between two updates of the progress bar.
_PROGRESS_EVERY = 0.5
_SENDING_EVERY = 2.0
# Seconds for which a step waits for messages that a worker is sending.
_WAIT_FOR_OTHERS = 10.0


class Run:
    """One real run of a journey.

    started_by: in a few words, such as "the schedule".
    """

    def __init__(
        self,
        segue: Segue,
        dispatcher: Dispatcher,
        leases: Leases,
        *,
        journey: Journey,
        audience: str | None,
        people: int | None,
        launch_id: str,
        started_by: str = "hand",
    ) -> None:
        self.journey = journey
        self._segue = segue
        self._engine = segue.engine
        self._dispatcher = dispatcher
        self._leases = leases
        self._audience = audience
        self._people = people
        self._launch_id = launch_id
        self._started_by = started_by
        self._begun: Instant = 0

    async def enter(self) -> State[Any]:
        """Enter the audience as one launch, so that a restart enters nobody twice."""
        shown = await asyncio.to_thread(self._begin)
        await asyncio.to_thread(self._catch_up)
        if self._audience is None:
            message = f"Only due enrollments move; {shown}"
            return Completed(name="Continues without new people", message=message)
        entered, size = await self._launch(self._audience)
        message = f"{entered:,} of the {size:,} profiles in {self._audience} entered"
        if self._people is not None:
            message += f", limit {self._people:,}"
        elif entered < size:
            message += "; the re-entry rule refused the others"
        return Completed(name=f"{entered:,} entered", message=f"{message}; {shown}")

    def _catch_up(self) -> None:
        """Do the work that has no task: enter profiles that joined the segment of the journey's
        entry, and move enrollments at steps that only an older version has.
        """
        enter_all_newcomers(self._engine, self.journey.name)
        for version in self._segue.catalog.versions(self.journey.name):
            for step in version.journey.graph:
                if step not in self.journey.graph:
                    self._engine.advance(version, step, self._leases.held)

    async def _launch(self, audience: str) -> tuple[int, int]:
        """The number of profiles entered by this launch, and the size of the segment."""
        bar = await acreate_progress_artifact(
            0.0, artifact_key(self.journey, "entering"), f"Entering {audience}"
        )
        version = await asyncio.to_thread(
            start_launch, self._engine, self._launch_id, self.journey.name, audience, self._people
        )
        size = await asyncio.to_thread(audience_size, self._engine, audience)
        expected = max(1, size if self._people is None else min(size, self._people))
        entering = enter_audience(self._engine, version, audience, self._launch_id, self._people)
        done, shown_at = 0, time.monotonic()
        while (entered := await asyncio.to_thread(_next, entering)) is not None:
            done += entered
            if time.monotonic() - shown_at > _PROGRESS_EVERY:
                so_far = f"Entering {audience}: {done:,} of {expected:,}"
                await aupdate_progress_artifact(bar, min(99.0, 100 * done / expected), so_far)
                shown_at = time.monotonic()
        await aupdate_progress_artifact(bar, 100.0)
        return (await asyncio.to_thread(self._summary)).entered, size

    async def step(self, name: str) -> State[Any]:
        """Move enrollments due at a step, in every version that has it; send due messages."""
        turn = Turn(
            self._engine,
            self._dispatcher,
            journey=self.journey.name,
            step=name,
            leased=self._leases.held,
        )
        if isinstance(self.journey.graph[name].step, SendStep):
            showing = asyncio.create_task(self._show_progress(name))
            try:
                await turn.until_idle()
            finally:
                showing.cancel()
            await self._wait_for_others()
        else:
            await turn.until_idle()
        state, message = step_labels(await asyncio.to_thread(self._show, name))
        return Completed(name=state, message=message)

    async def _show_progress(self, name: str) -> None:
        """Show how many of a step's messages have gone, while they go."""
        key, bar, took = artifact_key(self.journey, "sending"), None, 0.0
        while True:
            # Counting takes at most a tenth of the time.
            await asyncio.sleep(max(_SENDING_EVERY, 9 * took))
            began = time.monotonic()
            counts = await asyncio.to_thread(self._count, name)
            took = time.monotonic() - began
            sent, ahead = counts.fates("sent").total(), counts.fates("planned").total()
            share, so_far = 100 * sent / max(1, sent + ahead), f"{name}: {step_labels(counts)[0]}"
            if bar is None:
                bar = await acreate_progress_artifact(share, key, so_far)
            else:
                await aupdate_progress_artifact(bar, share, so_far)

    async def _wait_for_others(self) -> None:
        """Wait for messages of the journey that a worker is sending, to count them."""
        deadline = time.monotonic() + _WAIT_FOR_OTHERS
        while time.monotonic() < deadline and await asyncio.to_thread(self._under_way):
            await asyncio.sleep(0.3)

    async def finish(self) -> State[Any]:
        """Count goals, create the picture and the table."""
        await asyncio.to_thread(self._engine.count_goals, self.journey.name)
        counts, summary = await asyncio.to_thread(self._everything)
        await write_picture(self.journey, counts)
        whole = whole_journey(counts.first)
        what = whole if self._audience is None else self._this_launch
        await write_outcomes(self.journey, summary, what=what)
        for report in await asyncio.to_thread(self._reports):
            about = whole if report.launch is None else self._this_launch
            await write_report(self.journey, report, about)
        for experiment in await asyncio.to_thread(self._experiments):
            await write_experiment(self.journey, experiment)
        message = run_labels(summary)
        if self._audience is None:
            message = f"The whole journey: {message}"
        if state := await asyncio.to_thread(self._control_state):
            message = f"The journey is {state}: {HELD_MEANS[state]}. {message}"
        return Completed(message=message)

    def _experiments(self) -> "list[ExperimentReport]":
        steps = [
            name
            for name, node in self.journey.graph.items()
            if isinstance(node.step, ExperimentStep)
        ]
        if not steps:
            return []
        # numpy and scipy take longer to load than a small run.
        from journeys.analytics.experiments import report_experiment
        from journeys.analytics.revenue import RevenueMapping

        mapping = RevenueMapping.of(self._segue.settings)
        with self._segue.db.transaction(write=False) as tx:
            return [
                report_experiment(tx, self._segue.catalog, self.journey.name, step, mapping)
                for step in steps
            ]

    def _reports(self) -> "list[JourneyReport]":
        """The report of the launch, if there is one, and of the whole journey."""
        # numpy takes longer to load than a small run.
        from journeys.analytics.reports.period import ever
        from journeys.analytics.reports.report import report_journey
        from journeys.analytics.revenue import RevenueMapping

        mapping = RevenueMapping.of(self._segue.settings)
        period = ever(self._segue.policy.timezone)
        wanted = [None] if self._audience is None else [self._launch_id, None]
        with self._segue.db.transaction(write=False) as tx:
            return [
                report_journey(
                    tx, self._segue.catalog, self.journey.name, mapping, period, launch=launch
                )
                for launch in wanted
            ]

    @property
    def _this_launch(self) -> str:
        """What the figures of this launch count."""
        return f"This launch, started by {self._started_by}, for {self._audience}; until now."

    # The rows -----------------------------------------------------------------------------------

    def _begin(self) -> str:
        """Store the start time; returns which period the steps will show."""
        with self._segue.db.transaction(write=False) as tx:
            self._begun = tx.now
            shown = last_shown(tx, self.journey.name)
        since = "so far" if shown is None else f"since the last run, at {format_instant(shown)}"
        return f"the steps show the activity {since}"

    def _show(self, step: str) -> StepCounts:
        with self._segue.db.transaction() as tx:
            return show_step(tx, self.journey.name, step, self._begun)

    def _count(self, step: str) -> StepCounts:
        with self._segue.db.transaction(write=False) as tx:
            return count_step(tx, self.journey.name, step, self._begun)

    def _under_way(self) -> bool:
        with self._segue.db.transaction(write=False) as tx:
            return under_way(tx, self.journey.name) > 0

    def _control_state(self) -> str | None:
        """Whether the journey is paused or stopped."""
        with self._segue.db.transaction(write=False) as tx:
            return held(tx).get(self.journey.name)

    def _summary(self) -> Summary:
        """The summary of the launch, or of the whole journey without an audience."""
        launch_id = self._launch_id if self._audience else None
        with self._segue.db.transaction(write=False) as tx:
            return summarise(tx, self.journey.name, launch_id)

    def _everything(self) -> tuple[JourneyCounts, Summary]:
        with self._segue.db.transaction(write=False) as tx:
            counts = count_journey(tx, self.journey.name)
        return counts, self._summary()


def _next(numbers: Iterator[int]) -> int | None:
    return next(numbers, None)
