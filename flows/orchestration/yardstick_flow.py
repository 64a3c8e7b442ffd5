"""The yardstick as a Prefect flow, which writes an artifact with plots and the table."""

import asyncio
from typing import Annotated, Any

from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.app import Segue, open_segue
from flows.orchestration.forms import titled
from flows.orchestration.names import YARDSTICK
from flows.orchestration.pages.artifacts import markdown_table

_ABOUT = "Measures revenue, customers and their patience by quarter and year, against the holdout."
# The measures that have a plot.
_PLOTTED = ("revenue", "orders", "unsubscribes")


def _run_name() -> str:
    return f"yardstick since {flow_run.parameters.get('since') or 'a year ago'}"


@flow(name=YARDSTICK, description=_ABOUT, flow_run_name=_run_name)
async def yardstick_flow(
    since: Annotated[str, titled("From this day on")] = "",
    by_segment: Annotated[bool, titled("Also by segment")] = False,
) -> State[Any]:
    """Measure what all journeys do.

    Args:
        since: Such as 2026-01-01; empty: a year ago.
        by_segment: For the people who are in each segment now.
    """
    segue = await asyncio.to_thread(open_segue)
    try:
        text = await asyncio.to_thread(yardstick_text, segue, since, by_segment=by_segment)
    finally:
        segue.db.close()
    await acreate_markdown_artifact(text, YARDSTICK, "The yardstick")
    return Completed(message="The artifact has the figures")


def yardstick_text(segue: Segue, since: str = "", *, by_segment: bool = False) -> str:
    """The yardstick in Markdown. Raises SegueError for a day that can't be read."""
    # numpy, scipy and matplotlib take longer to load than Prefect needs to list the flows.
    from flows.yardstick import read_day, yardstick
    from journeys.analytics import yardstick_views as views
    from journeys.analytics.plots import as_markdown

    day = read_day(since) if since else None
    history, reports = yardstick(segue, day, by_segment=by_segment)
    said = "\n".join(f"- {line}" for line in views.left_out(history))
    drawn = [
        as_markdown(views.plot(reports, measure), f"{measure} against the holdout")
        for measure in _PLOTTED
    ]
    table = markdown_table(views.HEADINGS, views.rows(reports))
    return "\n\n".join(["# The yardstick", said, *drawn, table])
