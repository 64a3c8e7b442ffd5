"""The drawn graph of a journey: nothing overlaps, and edges lead to boxes."""

import re
from collections.abc import Iterator
from itertools import combinations, count

from hypothesis import given
from hypothesis import strategies as st

from flows.http.staff.journeys.graph import BOX, Drawing, draw
from flows.http.staff.journeys.steps import ShownBranch, ShownStep


def _step(name: str, branches: list[ShownBranch], *, is_end: bool = False) -> ShownStep:
    return ShownStep(
        name=name,
        kind="Send",
        is_send=not branches,
        is_experiment=False,
        is_end=is_end,
        details=["when it is time, and not before that"],
        messages=[],
        branches=branches,
        here=3,
        left=1200,
        converted="4.2 % converted",
    )


def _branch(steps: list[ShownStep]) -> ShownBranch:
    return ShownBranch(
        label="if they bought",
        taken=600,
        share="50 %",
        converted="4.2 % converted",
        steps=steps,
    )


_STEPS: st.SearchStrategy[list[ShownStep]] = st.recursive(
    st.builds(list[ShownStep]),
    lambda inner: st.lists(
        st.one_of(
            st.just(_step("plain", [])),
            st.lists(inner.map(_branch), min_size=2, max_size=3).map(
                lambda branches: _step("split", branches)
            ),
        ),
        max_size=3,
    ),
    max_leaves=8,
)


def ends_of(paths: list[str]) -> Iterator[tuple[float, float]]:
    for path in paths:
        numbers = [float(one) for one in re.findall(r"[-0-9.]+", path)]
        yield (numbers[-2], numbers[-1]) if "C" in path else (numbers[0], numbers[-1])


def _boxes_of(steps: list[ShownStep]) -> int:
    return sum(1 + sum(_boxes_of(list(one.steps)) for one in step.branches) for step in steps)


def _check(drawing: Drawing) -> None:
    for one, other in combinations(drawing.boxes, 2):
        assert (
            one.x + BOX <= other.x
            or other.x + BOX <= one.x
            or one.y + one.height <= other.y
            or other.y + other.height <= one.y
        ), (one, other)
    for box in drawing.boxes:
        assert 0 <= box.x <= box.x + BOX <= drawing.width
        assert 0 <= box.y <= box.y + box.height <= drawing.height
    tops = {(box.x + BOX / 2, box.y) for box in drawing.boxes}
    assert set(ends_of(list(drawing.arrows))) <= tops
    assert len(tops) == len(drawing.boxes)
    for first, second in combinations(drawing.texts, 2):
        if first.y == second.y:
            assert abs(first.x - second.x) >= BOX, "texts beside each other are in columns"


@given(_STEPS)
def test_boxes_and_texts_are_apart_and_edges_end_at_boxes(steps: list[ShownStep]) -> None:
    drawing = draw("j", "a launch", 7, steps)
    _check(drawing)
    assert len(drawing.boxes) == _boxes_of(steps) + 2, "and the entry and the end"
    reached = set(ends_of(list(drawing.arrows)))
    assert len(reached) == len(drawing.boxes) - 1, "an edge leads to each, but the entry"


def test_a_branch_that_leaves_does_not_lead_on() -> None:
    numbers = count()
    leaves = _branch([_step(f"out {next(numbers)}", [], is_end=True)])
    drawing = draw("j", "a launch", 7, [_step("both leave", [leaves, leaves])])
    assert [box.kind for box in drawing.boxes] == ["start", "decision", "send", "send"]
    drawing = draw("j", "a launch", 7, [_step("one leaves", [leaves, _branch([])])])
    assert [box.kind for box in drawing.boxes][-1] == "end"
    assert len(drawing.arrows) == 3
