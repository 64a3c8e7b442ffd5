"""The artifacts of a run in the Prefect UI: the journey as a picture with counts, and a table."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from config.channels import channel_of
from config.clock.times import Instant, format_instant
from flows.orchestration.pages.counts import JourneyCounts
from flows.orchestration.pages.labels import STATE_NAMES, plain
from flows.orchestration.pages.picture import mermaid
from journeys.definition.journey import Journey
from journeys.operations.counts import Summary

if TYPE_CHECKING:
    from journeys.analytics.experiments import ExperimentReport
    from journeys.analytics.reports.figures import JourneyReport

# Links clicked in fewer messages are not shown in Prefect.
_FREQUENT = 5
_DRY_RUN = "Dry run: the result of a launch now, in its first day. "


def artifact_key(journey: Journey, what: str) -> str:
    """The artifact's key. All runs share it, so the UI shows the history."""
    return f"{journey.name}-{what}"


async def write_picture(journey: Journey, counts: JourneyCounts, *, dry_run: bool = False) -> None:
    """The journey as a flowchart, which the UI draws."""
    about = _DRY_RUN if dry_run else f"{whole_journey(counts.first)} "
    text = (
        f"# {journey.name}\n\n{journey.description}\n\n"
        f"{about}A box shows how many are at the step now, an arrow how many have taken it.\n\n"
        f"```mermaid\n{mermaid(journey, counts)}\n```\n"
    )
    key = artifact_key(journey, "dry-run-picture" if dry_run else "picture")
    await acreate_markdown_artifact(text, key, f"{journey.name} as a picture")


async def write_outcomes(
    journey: Journey, summary: Summary, *, what: str = "", dry_run: bool = False
) -> None:
    """The messages by channel, state and reason.

    what: which messages these are.

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
    about = _DRY_RUN if dry_run else f"{what} "
    key = artifact_key(journey, "dry-run-outcomes" if dry_run else "outcomes")
    await acreate_table_artifact(rows, key, f"{about}Messages by channel and reason")


def whole_journey(first: Instant | None) -> str:
    """What figures of a whole journey count. first: the first entry."""
    if first is None:
        return "The whole journey: nobody has entered it yet."
    return f"The whole journey, by every way in, from {format_instant(first)} until now."


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


async def write_report(journey: Journey, report: "JourneyReport", about: str) -> None:
    """What came of the messages: the most important figures, a plot, and tables of its numbers.

    about: what the figures are about. Links that were clicked in few messages could tell who
    clicked, and Prefect must hold no personal data, so they are left out.
    """
    from journeys.analytics.plots import as_markdown
    from journeys.analytics.reports import views

    frequent = [link for link in report.links if link.clicked >= _FREQUENT]
    shown = replace(report, links=frequent)
    parts = [f"# {journey.name}: results", about, report.empty or f"**{views.headline(report)}**"]
    if report.total.sent:
        parts.append(as_markdown(views.plot(report), views.described(report)))
    parts += (
        f"## {table.title}\n\n{markdown_table(table.headings, table.rows)}"
        for table in views.tables(shown)
    )
    if len(frequent) < len(report.links):
        parts.append(f"Links clicked in fewer than {_FREQUENT} messages are left out.")
    parts.append("\n".join(f"- {sentence}" for sentence in (*report.method, *report.notes)))
    what = "report" if report.launch is None else "results"
    await acreate_markdown_artifact(
        "\n\n".join(parts), artifact_key(journey, what), f"{about} {report.empty}".strip()
    )


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, in which a cell contains no markup and does not end early."""
    cells = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.translate(_ESCAPES) for cell in row)} |" for row in cells)


_ESCAPES = str.maketrans({letter: f"\\{letter}" for letter in "\\|<[`"} | {"\n": " "})
