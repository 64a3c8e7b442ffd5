"""A simulation as Markdown for an artifact: plots, each with its numbers as a table.

Counts only: Prefect holds no personal data.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from config.clock.times import format_duration
from flows.orchestration.pages.labels import plain

_TOTALS = ("people", "entered", "sent", "not_sent", "converted", "unsubscribes")


def simulation_page(found: dict[str, Any]) -> str:
    """The page of the results as `flows.simulate.as_json` gives them."""
    # Matplotlib takes half a second to import.
    from journeys.analytics.plots import as_markdown
    from journeys.simulation.plots import days_plot, hours_plot, reasons_plot

    runs = [("now", found)]
    if "compared" in found:
        runs.append((found["compare"], found["compared"]))
    names = [name for name, _ in runs]
    parts = [
        f"# {', '.join(found['journeys'])}",
        f"{found['from']} to {found['to']}, {found['seeds']:,} runs. Nothing was sent or stored.",
        *(f"- {warning}" for warning in found["warnings"]),
        *(
            f"- {name}: {reason} ({number:,})"
            for name, reasons in found["why_not"].items()
            for reason, number in reasons.items()
        ),
        table(
            ("", *names), ((plain(one), *(total(run, one) for _, run in runs)) for one in _TOTALS)
        ),
        table(
            ("messages a person", *names),
            (
                (part, *(str(run["messages_a_person"][part]) for _, run in runs))
                for part in ("p50", "p95", "p100")
            ),
        ),
        "## By day",
        as_markdown(days_plot("Messages by day", _of(runs, "by_day")), "Messages by day"),
        _by_time("day", runs, "by_day"),
        "## By hour",
        as_markdown(hours_plot("Messages by hour", _of(runs, "by_hour")), "Messages by hour"),
        _by_time("hour", runs, "by_hour"),
        "## By step",
        as_markdown(reasons_plot("Messages by step", found["by_step"]), "Messages by step"),
        table(
            ("journey", "step", "channel", "sent", "not sent", "reasons"),
            (
                (
                    *(one["journey"], one["step"], one["channel"], f"{one['sent']:,}"),
                    f"{sum(one['not_sent'].values()):,}",
                    ", ".join(f"{n:,} {plain(why)}" for why, n in sorted(one["not_sent"].items())),
                )
                for one in found["by_step"]
            ),
        ),
        "## Held back",
        table(
            ("journey", "step", "channel", "by", "messages", "median", "95 %", "longest"),
            (
                (
                    *(one["journey"], one["step"], one["channel"], one["by"]),
                    f"{one['messages']:,}",
                    *(format_duration(one[name]) for name in ("median", "p95", "longest")),
                )
                for one in found["held_back"]
            ),
        ),
        "## Collisions",
        table(
            ("not sent", "because of", "how", "messages"),
            (
                (
                    f"{one['journey']} / {one['step']}",
                    f"{one['by_journey']} / {one['by_step']}",
                    *(one["what"], f"{one['messages']:,}"),
                )
                for one in found["collisions"]
            ),
        ),
        "## Providers",
        table(
            ("provider", "messages", "rate a second", "busiest hour", "in it", "longest wait"),
            (
                (
                    *(one["provider"], f"{one['messages']:,}", str(one["rate"] or "no limit")),
                    *(one["busiest"], f"{one['most_in_an_hour']:,}", format_duration(one["waits"])),
                )
                for one in found["providers"]
            ),
        ),
        "## What customers answer",
        table(
            ("journey", "channel", "answer", "rate", "counted on", "of"),
            (
                (
                    *(one["journey"], one["channel"], one["answer"], f"{one['value']:.3f}"),
                    *(one["source"], f"{one['of']:,}"),
                )
                for one in found["rates"]
            ),
        ),
    ]
    return "\n\n".join(parts)


def total(run: dict[str, Any], name: str) -> str:
    """A total, with the extremes of the seeds if they differ."""
    value = run[name]
    number = sum(value.values()) if isinstance(value, dict) else value
    low, high = run["range"].get(name, (number, number))
    return f"{number:,}" if low == high else f"{number:,} ({low:,} to {high:,})"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a line in its place without rows."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    if not lines:
        return "None."
    return "\n".join([f"| {' | '.join(headings)} |", "|" + "---|" * len(headings), *lines])


def _of(runs: Sequence[tuple[str, dict[str, Any]]], name: str) -> list[tuple[str, dict[str, Any]]]:
    return [(title, run[name]) for title, run in runs]


def _by_time(what: str, runs: Sequence[tuple[str, dict[str, Any]]], name: str) -> str:
    places = sorted(
        {place for _, run in runs for place in run[name]}, key=lambda one: (len(one), one)
    )
    headings = [what]
    for title, _ in runs:
        headings += [f"sent, {title}", f"not sent, {title}"]
    return table(
        headings,
        (
            (
                place,
                *(
                    f"{run[name].get(place, {}).get(part, 0):,}"
                    for _, run in runs
                    for part in ("sent", "not_sent")
                ),
            )
            for place in sorted(places, key=lambda one: (len(one), one))
        ),
    )
