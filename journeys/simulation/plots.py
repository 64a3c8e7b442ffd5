"""The plots of a simulation, as SVG. Each shows numbers that its tables have too."""

from collections.abc import Mapping, Sequence
from typing import Any

from journeys.analytics.plots import COLOURS, as_svg, new_figure


def days_plot(title: str, runs: Sequence[tuple[str, Mapping[str, Mapping[str, int]]]]) -> str:
    """Sent messages by day. runs: a name with `by_day`; two of them are drawn side by side."""
    days = sorted({day for _, by_day in runs for day in by_day})
    return _bars(title, "messages sent", days, runs)


def hours_plot(title: str, runs: Sequence[tuple[str, Mapping[str, Mapping[str, int]]]]) -> str:
    """Sent messages by hour of the day, in the brand's time zone."""
    return _bars(title, "messages sent", [str(hour) for hour in range(24)], runs)


def _bars(
    title: str,
    unit: str,
    labels: Sequence[str],
    runs: Sequence[tuple[str, Mapping[str, Mapping[str, int]]]],
) -> str:
    figure, axes = new_figure(title)
    width = 0.8 / len(runs)
    for number, (name, counts) in enumerate(runs):
        axes.bar(
            [place + number * width for place in range(len(labels))],
            [counts.get(label, {}).get("sent", 0) for label in labels],
            width=width,
            align="edge",
            color=COLOURS[number],
            label=name,
        )
    every = max(1, len(labels) // 12)
    axes.set_xticks(
        range(0, len(labels), every), [label[-5:] for label in labels[::every]], rotation=45
    )
    axes.set_ylabel(unit)
    if len(runs) > 1:
        axes.legend(frameon=False)
    return as_svg(figure)


def reasons_plot(title: str, steps: Sequence[Mapping[str, Any]]) -> str:
    """Sent and not sent messages by step and channel. steps: `by_step` of the results."""
    labels = [f"{one['journey']} / {one['step']}, {one['channel']}" for one in steps]
    figure, axes = new_figure(title, height=1.5 + 0.3 * len(labels))
    sent = [one["sent"] for one in steps]
    refused = [sum(one["not_sent"].values()) for one in steps]
    places = range(len(labels))
    axes.barh(places, sent, color=COLOURS[0], label="sent")
    axes.barh(places, refused, left=sent, color=COLOURS[1], label="not sent")
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlabel("messages")
    axes.legend(frameon=False)
    return as_svg(figure)
