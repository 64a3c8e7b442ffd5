"""The artifacts of a run in the Prefect UI: the journey as a picture with counts, and a table."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from config.channels import channel_of
from flows.orchestration.counts import JourneyCounts
from flows.orchestration.labels import STATE_NAMES, plain
from flows.orchestration.picture import mermaid
from journeys.definition.journey import Journey
from journeys.operations.report import Summary

if TYPE_CHECKING:
    from journeys.analytics.experiments import ExperimentReport

_DRY_RUN = "Dry run: the result of a launch now, in its first day. "


def artifact_key(journey: Journey, what: str) -> str:
    """The artifact's key. All runs share it, so the UI shows the history."""
    return f"{journey.name}-{what}"


async def write_picture(journey: Journey, counts: JourneyCounts, *, dry_run: bool = False) -> None:
    """The journey as a flowchart, which the UI draws."""
    about = _DRY_RUN if dry_run else "All enrollments so far. "
    text = (
        f"# {journey.name}\n\n{journey.description}\n\n"
        f"{about}A box shows how many are at the step now, an arrow how many have taken it.\n\n"
        f"```mermaid\n{mermaid(journey, counts)}\n```\n"
    )
    key = artifact_key(journey, "dry-run-picture" if dry_run else "picture")
    await acreate_markdown_artifact(text, key, f"{journey.name} as a picture")


async def write_outcomes(journey: Journey, summary: Summary, *, dry_run: bool = False) -> None:
    """The messages by channel, state and reason.

    A reason is cut at its colon, because the rest may be a provider's text with an address, and
    Prefect must hold no personal data.
    """
    counted: Counter[tuple[str, str, str]] = Counter()
    for (channel, state, reason), number in summary.outcomes.items():
        counted[channel, state, reason.split(":")[0]] += number
    rows = [
        {
            "channel": channel_of(channel).short,
            "outcome": STATE_NAMES.get(state, state),
            "reason": plain(reason),
            "messages": number,
        }
        for (channel, state, reason), number in sorted(
            counted.items(), key=lambda item: (item[0][0], -item[1])
        )
    ]
    about = _DRY_RUN if dry_run else ""
    key = artifact_key(journey, "dry-run-outcomes" if dry_run else "outcomes")
    await acreate_table_artifact(rows, key, f"{about}Messages by channel and reason")


async def write_experiment(journey: Journey, report: "ExperimentReport") -> None:
    """What an experiment shows so far, in words, as a plot and as tables of its numbers."""
    from journeys.analytics import experiment_views as views
    from journeys.analytics.plots import as_markdown

    lines = [*views.sentences(report), *report.left_out]
    drawn = as_markdown(views.plot(report), f"Differences to {report.control}")
    text = "\n\n".join(
        (
            f"# {report.journey}: {report.step}",
            "\n".join(f"- {line}" for line in lines),
            drawn,
            markdown_table(views.ARM_HEADINGS, views.arm_rows(report)),
            markdown_table(views.DIFFERENCE_HEADINGS, views.difference_rows(report)),
        )
    )
    slug = re.sub("[^a-z0-9]+", "-", report.step.lower()).strip("-")
    await acreate_markdown_artifact(
        text, artifact_key(journey, f"experiment-{slug}"), f"The experiment {report.step!r}"
    )


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a bar in a cell does not end it."""
    cells = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells
    )
