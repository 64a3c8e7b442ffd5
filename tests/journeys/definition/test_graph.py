"""Nested steps as a graph: every step once, no cycles, branches rejoin."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from journeys.definition.graph import END, build_graph, parents, steps_after
from journeys.definition.steps import ExitStep, Step
from journeys.dsl import (
    Email,
    Exit,
    Experiment,
    Journey,
    OnLaunch,
    Send,
    Split,
    Update,
    Wait,
    WaitUntil,
    arm,
    everyone,
    when,
)


def test_branches_rejoin_after_the_step_they_came_from() -> None:
    nodes = build_graph(
        [
            Wait("1h", "first"),
            Split(
                "fork",
                when(everyone(), [Update("left", a=1), Update("left 2", a=1)], "l"),
                when(everyone(), [], "empty"),
                otherwise=[Exit("leave")],
            ),
            WaitUntil("came", everyone(), timeout="1d", on_timeout=[Update("late", a=1)]),
            Experiment("test", arm("a", 1, [Update("arm", a=1)]), holdout=5),
        ]
    )
    assert {name: dict(node.edges) for name, node in nodes.items()} == {
        "first": {"next": "fork"},
        "fork": {"l": "left", "empty": "came", "otherwise": "leave"},
        "left": {"next": "left 2"},
        "left 2": {"next": "came"},
        "leave": {},
        "came": {"next": "test", "timeout": "late"},
        "late": {"next": "test"},
        "test": {"a": "arm", "holdout": END},
        "arm": {"next": END},
    }
    assert parents(nodes)["came"] == ["fork", "left 2"]
    assert parents(nodes)["first"] == []


@pytest.mark.parametrize(
    "steps",
    [
        [Exit("out"), Wait("1h", "never")],
        [Split("fork", when(everyone(), [Exit("a")]), otherwise=[Exit("b")]), Wait("1h", "never")],
        [
            WaitUntil("w", everyone(), timeout="1d", then=[Exit("a")], on_timeout=[Exit("b")]),
            Wait("1h", "never"),
        ],
        [Experiment("e", arm("a", 1, [Exit("b"), Wait("1h", "never")]))],
    ],
)
def test_an_unreachable_step_is_refused(steps: list[Step]) -> None:
    with pytest.raises(ValueError, match=r"step 'never' can't be reached.*move it into a branch"):
        build_graph(steps)


def test_a_duplicate_step_name_is_refused() -> None:
    steps: list[Step] = [
        Wait("1h", "pause"),
        Split("fork", when(everyone(), [Wait("2h", "pause")])),
    ]
    with pytest.raises(ValueError, match="two steps are named 'pause'; give one of"):
        build_graph(steps)
    with pytest.raises(ValidationError, match="two steps are named 'pause'"):
        Journey("j", entry=OnLaunch(), topic="news", steps=steps)


# Whatever is nested in whatever ------------------------------------------------------------------

# A tree of steps as plain data: ("wait",), ("split", [list, ...], otherwise) ...
Plan = tuple[Any, ...]


def plans() -> st.SearchStrategy[list[Plan]]:
    leaf = st.sampled_from([("wait",), ("send",), ("update",), ("exit",), ("wait",)])

    def nest(inner: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
        some = st.lists(inner, max_size=3)
        ways = st.lists(some, min_size=1, max_size=3)
        return st.one_of(
            st.tuples(st.just("split"), ways, some),
            st.tuples(st.just("until"), some, some),
            st.tuples(st.just("experiment"), ways, st.sampled_from([0, 10])),
        )

    return st.lists(st.recursive(leaf, nest, max_leaves=12), min_size=1, max_size=4)


def built(plan: Sequence[Plan], numbers: Iterator[int]) -> list[Step]:
    return [one(item, numbers) for item in plan]


def one(plan: Plan, numbers: Iterator[int]) -> Step:
    name = f"{plan[0]} {next(numbers)}"
    match plan:
        case ("wait",):
            return Wait("1h", name)
        case ("send",):
            return Send(name, Email("hello"))
        case ("update",):
            return Update(name, x=1)
        case ("exit",):
            return Exit(name)
        case ("split", ways, otherwise):
            branches = [
                when(everyone(), built(way, numbers), str(number))
                for number, way in enumerate(ways)
            ]
            return Split(name, *branches, otherwise=built(otherwise, numbers))
        case ("until", then, late):
            then, late = built(then, numbers), built(late, numbers)
            return WaitUntil(name, everyone(), timeout="1d", then=then, on_timeout=late)
        case ("experiment", ways, holdout):
            arms = [arm(str(number), 1, built(way, numbers)) for number, way in enumerate(ways)]
            return Experiment(name, *arms, holdout=holdout)
    raise AssertionError(plan)


def nested(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for _, branch in step.branches():
            yield from nested(branch)


def ends(step: Step) -> bool:
    """Whether no enrollment leaves the step."""
    branches = dict(step.branches())
    return all(
        bool(branches.get(outcome)) and any(ends(inner) for inner in branches[outcome])
        for outcome in step.outcomes()
    )


def has_dead_steps(steps: Sequence[Step]) -> bool:
    return any(ends(step) for step in steps[:-1]) or any(
        has_dead_steps(branch) for step in steps for _, branch in step.branches()
    )


class _Left(Exception):
    """An exit step was reached."""


def walked(steps: Sequence[Step], choices: Iterator[int], path: list[str]) -> None:
    """Walk through the nested steps by the drawn branches."""
    for step in steps:
        path.append(step.name)
        if isinstance(step, ExitStep):
            raise _Left
        outcomes = step.outcomes()
        outcome = outcomes[next(choices) % len(outcomes)]
        walked(dict(step.branches()).get(outcome, ()), choices, path)


@given(plans(), st.lists(st.integers(0, 5), min_size=40, max_size=40))
def test_the_graph_is_the_nested_steps(plan: list[Plan], drawn: list[int]) -> None:
    steps = built(plan, count())
    if has_dead_steps(steps):
        with pytest.raises(ValueError, match="can't be reached"):
            build_graph(steps)
        return
    nodes = build_graph(steps)

    # every nested step once
    assert list(nodes) == [step.name for step in nested(steps)]
    # edges go forward only, one for each outcome
    place = {name: number for number, name in enumerate(nodes)}
    for name, node in nodes.items():
        assert list(node.edges) == node.step.outcomes()
        assert all(target == END or place[target] > place[name] for target in node.edges.values())
    # everybody can be reached
    into = parents(nodes)
    assert [name for name in nodes if not into[name]] == [steps[0].name]

    # a walk through the graph is a walk through the nested steps
    expected: list[str] = []
    with suppress(_Left):
        walked(steps, iter(drawn * 5), expected)
    choices, path, at = iter(drawn * 5), list[str](), steps[0].name
    while at != END:
        path.append(at)
        outcomes = nodes[at].step.outcomes()
        at = nodes[at].edges[outcomes[next(choices) % len(outcomes)]] if outcomes else END
    assert path == expected


def test_the_steps_after_a_step_are_those_that_a_path_leads_to() -> None:
    steps: list[Step] = [
        Wait("1h", "first"),
        Split("way", when(everyone(), [Wait("2h", "a"), Wait("3h", "b")])),
        Wait("4h", "last"),
    ]
    graph = build_graph(steps)
    assert steps_after(graph, "a") == {"b", "last"}
    assert steps_after(graph, "first") == {"way", "a", "b", "last"}
    assert steps_after(graph, "last") == set()
