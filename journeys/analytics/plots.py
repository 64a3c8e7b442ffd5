"""Plots as SVG, for artifacts and docs. The same figures give the same text, byte for byte.

Text stays text, so that it can be searched and read aloud. A plot goes with a table of its numbers:
`as_markdown` gives both.
"""

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

# Dark enough on white, and told apart by people who do not see red and green (Okabe and Ito 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


class PlottedInterval(NamedTuple):
    """One line of an interval plot: a value with its bounds. NaN is left out."""

    label: str
    value: float
    low: float
    high: float


def new_figure(title: str, *, width: float = 8, height: float = 4) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def as_svg(figure: Figure) -> str:
    """The figure as an SVG document. A dollar sign in a text does not begin a formula."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "segue"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def as_markdown(svg: str, description: str) -> str:
    """An image for a Markdown artifact; the description is its alternative text."""
    return f"![{description}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def interval_plot(
    title: str, unit: str, groups: Sequence[tuple[str, Sequence[PlottedInterval]]]
) -> str:
    """Differences with their intervals around a line at 0, as SVG.

    groups: a name, as in "fixed horizon", with its intervals; each group has a colour. The groups
    have the same labels in the same order.
    """
    labels = [interval.label for interval in groups[0][1]] if groups else []
    rows = len(labels) * len(groups)
    figure, axes = new_figure(title, height=1.5 + 0.3 * rows)
    for number, (name, intervals) in enumerate(groups):
        shift = (number - (len(groups) - 1) / 2) * 0.25
        axes.errorbar(
            [interval.value for interval in intervals],
            [at + shift for at in range(len(intervals))],
            xerr=[
                [interval.value - interval.low for interval in intervals],
                [interval.high - interval.value for interval in intervals],
            ],
            fmt="o",
            capsize=3,
            color=COLOURS[number % len(COLOURS)],
            label=name,
        )
    axes.axvline(0, color="#6b7280", linewidth=1)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    if len(groups) > 1:
        axes.legend(frameon=False)
    return as_svg(figure)
