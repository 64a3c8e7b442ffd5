"""The waterfall of a pair of profiles: what each column adds to the weight, as SVG and as a table.

It names columns and how they compare, never what they contain, so that Prefect may show it.
"""

from collections.abc import Sequence
from typing import Any

from journeys.analytics.plots import COLOURS, as_svg, new_figure

HEADINGS = ("Column", "How it compares", "Weight", "Sum")


def rows(bars: Sequence[Sequence[Any]]) -> list[tuple[str, str, str, str]]:
    """The table behind the picture: column, level, weight, and the sum up to there."""
    found, total = [], 0.0
    for column, level, weight in bars:
        total += weight
        found.append((_named(column), level, f"{weight:+.1f}", f"{total:+.1f}"))
    return found


def waterfall(title: str, bars: Sequence[Sequence[Any]]) -> str:
    """The picture, an SVG document. bars: column, level and weight, the prior first."""
    figure, axes = new_figure(title, height=1.5 + 0.35 * len(bars))
    total = 0.0
    for at, (_, _, weight) in enumerate(bars):
        axes.barh(at, weight, left=total, color=COLOURS[0] if weight >= 0 else COLOURS[1])
        total += weight
    axes.axvline(0, color="#6b7280", linewidth=1)
    axes.axvline(total, color="#6b7280", linewidth=1, linestyle=":")
    labels = [f"{_named(column)}: {level}" if level else column for column, level, _ in bars]
    axes.set_yticks(range(len(bars)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(f"weight; 0 is as likely as not, this pair has {total:+.1f}")
    return as_svg(figure)


def _named(column: str) -> str:
    return column.replace("_", " ")
