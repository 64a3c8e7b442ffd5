"""Plots are SVG documents with their texts, and the same figures give the same document."""

import xml.etree.ElementTree as ET
from math import nan

from journeys.analytics.plots import PlottedInterval, as_markdown, interval_plot

_NOT_KNOWN = PlottedInterval(label="C & <D> $1$", value=nan, low=nan, high=nan)
_GROUPS = [
    ("fixed horizon", [PlottedInterval(label="B", value=0.3, low=0.1, high=0.5), _NOT_KNOWN]),
    ("always valid", [PlottedInterval(label="B", value=0.3, low=-0.1, high=0.7), _NOT_KNOWN]),
]


def test_an_interval_plot_has_its_texts_and_is_the_same_every_time() -> None:
    svg = interval_plot("Conversions", "points", _GROUPS)
    assert svg == interval_plot("Conversions", "points", _GROUPS)
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {"".join(text.itertext()).strip() for text in root.iter() if "text" in str(text.tag)}
    assert texts >= {"Conversions", "points", "B", "C & <D> $1$", "fixed horizon", "always valid"}


def test_a_plot_without_intervals_is_drawn() -> None:
    assert ET.fromstring(interval_plot("Nobody yet", "points", [])).tag.endswith("svg")


def test_markdown_holds_the_image_with_its_description() -> None:
    assert as_markdown("<svg/>", "arms") == "![arms](data:image/svg+xml;base64,PHN2Zy8+)"
