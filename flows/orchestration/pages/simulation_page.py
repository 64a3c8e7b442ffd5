"""A simulation as Markdown for an artifact: plots, each with its numbers as a table.

Counts only: Prefect holds no personal data.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from flows.simulation_tables import Runs, notes, runs_of, tables

_TITLES = {
    "totals": "Totals",
    "by_day": "By day",
    "by_hour": "By hour",
    "by_step": "By step",
    "held_back": "Held back",
    "collisions": "Collisions",
    "providers": "Providers",
    "rates": "What customers answer",
    "delays": "After how long they answer",
}


def simulation_page(found: dict[str, Any]) -> str:
    """The page of the results as `flows.simulate.as_json` gives them."""
    runs = runs_of(found)
    drawn = _plots(runs)
    parts = [
        f"# {', '.join(found['journeys'])}",
        f"{found['from']} to {found['to']}, {found['seeds']:,} runs. Nothing was sent or stored.",
        *(f"- {note}" for note in notes(runs)),
    ]
    for one in tables(runs):
        parts.append(f"## {_TITLES[one.part]}")
        parts += drawn.get(one.part, ())
        parts.append(table(one.headings, one.rows))
    return "\n\n".join(parts)


def _plots(runs: Runs) -> dict[str, list[str]]:
    """The plots above the tables of the same numbers."""
    # Matplotlib takes half a second to import.
    from journeys.analytics.plots import as_markdown
    from journeys.simulation.plots import days_plot, hours_plot, reasons_plot

    days = days_plot("Messages by day", [(name, run["by_day"]) for name, run in runs])
    title_of_hours = f"Messages by hour in {runs[0][1]['timezone']}"
    hours = hours_plot(title_of_hours, [(name, run["by_hour"]) for name, run in runs])
    steps = []
    for name, run in runs:
        title = "Messages by step" + (f", {name}" if len(runs) > 1 else "")
        steps.append(as_markdown(reasons_plot(title, run["by_step"]), title))
    return {
        "by_day": [as_markdown(days, "Messages by day")],
        "by_hour": [as_markdown(hours, title_of_hours)],
        "by_step": steps,
    }


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a line in its place without rows."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    if not lines:
        return "None."
    return "\n".join([f"| {' | '.join(headings)} |", "|" + "---|" * len(headings), *lines])
