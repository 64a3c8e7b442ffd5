"""A journey drawn as a graph, from top to bottom: the places of its boxes and edges. Pure.

A definition nests the steps of a branch, so the layout follows the nesting: the branches of a step
stand side by side below it, each in a column of its own, and join above the next step. So edges
cross neither boxes nor each other, and no library for general graphs is needed. A step stands above
its first branch, so that a phone shows a whole path from its beginning.
"""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import NamedTuple
from urllib.parse import urlencode

from flows.http.staff.journeys.steps import ShownBranch, ShownStep
from flows.http.staff.words import counted

# In pixels. A line of text has LETTERS letters of 13 pixels at most.
BOX, LINE, PAD = 224, 18, 9
SIDE, CURVE, SHORT = 20, 34, 14
MARGIN = 8
LETTERS = 28


class DrawnText(NamedTuple):
    """A line of text, centred at x. style: a CSS class. link: a URL; empty: none."""

    x: float
    y: float
    text: str
    style: str = ""
    link: str = ""


class DrawnBox(NamedTuple):
    """A box. kind: a CSS class."""

    x: float
    y: float
    height: float
    kind: str


class Drawing(NamedTuple):
    """Everything to draw. lines: paths of SVG; arrows: those that end at a box. box: the width of
    each box.
    """

    width: float
    height: float
    boxes: Sequence[DrawnBox]
    lines: Sequence[str]
    arrows: Sequence[str]
    texts: Sequence[DrawnText]
    box: float = BOX


class _Point(NamedTuple):
    x: float
    y: float


class _Label(NamedTuple):
    """Lines of text before they have a place."""

    text: str
    style: str = ""
    link: str = ""


def draw(journey: str, entry: str, entered: int, steps: Sequence[ShownStep]) -> Drawing:
    """Lay out a journey. journey: its name, for links. entry: in words."""
    pen = _Pen(f"/journeys/{journey}")
    centre = MARGIN + BOX / 2
    labels = [*_wrapped(entry, 3, "name"), _Label(f"{entered:,} entered", "soft")]
    bottom = pen.box(labels, "start", centre, MARGIN)
    bottom, ends = pen.sequence(steps, centre, bottom, [_Point(centre, bottom)])
    if ends:
        top = pen.join(ends, centre, bottom)
        bottom = pen.box([_Label("End", "name")], "end", centre, top)
    return Drawing(
        width=_width(steps) + 2 * MARGIN,
        height=bottom + MARGIN,
        boxes=pen.boxes,
        lines=pen.lines,
        arrows=pen.arrows,
        texts=pen.texts,
    )


def _width(steps: Sequence[ShownStep]) -> float:
    return max((_step_width(step) for step in steps), default=BOX)


def _step_width(step: ShownStep) -> float:
    columns = [_width(branch.steps) for branch in step.branches]
    return max(BOX, sum(columns) + SIDE * (len(columns) - 1))


def _wrapped(text: str, most: int, style: str = "", link: str = "") -> Iterator[_Label]:
    for line in wrap(text, LETTERS, max_lines=most, placeholder=" …"):
        yield _Label(line, style, link)


class _Pen:
    """Collects what is drawn."""

    def __init__(self, url: str) -> None:
        self.boxes: list[DrawnBox] = []
        self.lines: list[str] = []
        self.arrows: list[str] = []
        self.texts: list[DrawnText] = []
        self._url = url

    def sequence(
        self, steps: Sequence[ShownStep], centre: float, bottom: float, ends: list[_Point]
    ) -> tuple[float, list[_Point]]:
        """Draw steps one below the other. bottom: of what is above them. ends: of the edges that
        lead to them. Returns the new bottom, and the ends of the edges that go on.
        """
        for step in steps:
            top = self.join(ends, centre, bottom)
            bottom = self.box(list(self._labels(step)), _kind(step), centre, top)
            if step.is_end:
                return bottom, []
            if step.branches:
                bottom, ends = self._branches(step, centre, bottom)
            else:
                bottom = self._edge_label(_went_on(step), centre, bottom)
                ends = [_Point(centre, bottom)]
        return bottom, ends

    def join(self, ends: Sequence[_Point], centre: float, bottom: float) -> float:
        """Lead edges to the box that is next; returns its top."""
        top = bottom + (SHORT if all(end.x == centre for end in ends) else CURVE)
        for end in ends:
            self.arrows.append(_curve(end, bottom, _Point(centre, top)))
        return top

    def box(self, labels: Sequence[_Label], kind: str, centre: float, top: float) -> float:
        """Draw a box with lines of text; returns its bottom."""
        height = LINE * len(labels) + 2 * PAD
        self.boxes.append(DrawnBox(x=centre - BOX / 2, y=top, height=height, kind=kind))
        self._write(labels, centre, top + PAD)
        return top + height

    def _branches(
        self, step: ShownStep, centre: float, bottom: float
    ) -> tuple[float, list[_Point]]:
        drawn, x = [], centre
        for branch in step.branches:
            self.lines.append(_curve(_Point(centre, bottom), bottom, _Point(x, bottom + CURVE)))
            end = self._write(list(_branch_label(branch)), x, bottom + CURVE)
            drawn.append(self.sequence(branch.steps, x, end, [_Point(x, end)]))
            x += _width(branch.steps) + SIDE
        lowest = max(one for one, _ in drawn)
        return lowest, [end for _, ends in drawn for end in ends]

    def _edge_label(self, text: str, x: float, top: float) -> float:
        if not text:
            return top
        self.lines.append(_curve(_Point(x, top), top, _Point(x, top + SHORT)))
        return self._write(list(_wrapped(text, 2, "soft")), x, top + SHORT)

    def _write(self, labels: Sequence[_Label], x: float, top: float) -> float:
        for label in labels:
            self.texts.append(DrawnText(x, top + LINE * 0.72, *label))
            top += LINE
        return top

    def _labels(self, step: ShownStep) -> Iterator[_Label]:
        """The text in the box of a step."""
        about = f"{self._url}/experiment?{urlencode({'step': step.name})}"
        yield from _wrapped(step.name, 2, "name", about if step.is_experiment else "")
        details = f": {'; '.join(step.details)}" if step.details else ""
        yield from _wrapped(f"{step.kind}{details}", 4, "soft")
        for one in step.messages:
            query = urlencode({"step": step.name, "member": one.member})
            name = f"{one.channel} “{one.template}”"
            yield from _wrapped(name, 2, "", f"{self._url}/message?{query}")
            yield from _wrapped(one.details, 2, "soft")
            yield from _wrapped(one.counts, 2, "soft")
        if step.here:
            link = f"{self._url}/people?{urlencode({'step': step.name})}"
            yield _Label(f"{counted(step.here, 'person is', 'people are')} here", "here", link)


def _kind(step: ShownStep) -> str:
    if step.is_send:
        return "send"
    return "end" if step.is_end else "decision" if step.branches else ""


def _went_on(step: ShownStep) -> str:
    if not step.left:
        return ""
    return f"{step.left:,} went on" + (f", {step.converted}" if step.converted else "")


def _branch_label(branch: ShownBranch) -> Iterator[_Label]:
    yield from _wrapped(branch.label, 3)
    if branch.share:
        yield _Label(f"{branch.taken:,} ({branch.share})", "soft")
    if branch.converted:
        yield _Label(branch.converted, "soft")


def _curve(start: _Point, bottom: float, end: _Point) -> str:
    """A path from one point straight down to `bottom`, then in a curve to another point."""
    path = f"M{start.x:g} {start.y:g}V{bottom:g}"
    if start.x == end.x:
        return f"{path}V{end.y:g}"
    middle = (bottom + end.y) / 2
    return f"{path}C{start.x:g} {middle:g} {end.x:g} {middle:g} {end.x:g} {end.y:g}"
