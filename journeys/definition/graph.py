"""A journey's nested steps as a directed acyclic graph, in topological order.

A branch rejoins at the step after the one it branched from, unless it exits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from journeys.definition.steps import FAILED, HOLDOUT, NEXT, OTHERWISE, TIMEOUT, ExitStep, Step

# The target of edges that leave the journey.
END = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A step and its edges: the target (a step's name, or END) of each outcome."""

    step: Step
    edges: Mapping[str, str]

    def leads(self, outcome: str) -> str | None:
        """The target of an outcome; None: the step has no such outcome.

        If the step has no `failed` edge, FAILED takes the first of its edges `otherwise`,
        `timeout`, `holdout` and `next`.
        """
        if outcome == FAILED and FAILED not in self.edges:
            ways = (one for one in (OTHERWISE, TIMEOUT, HOLDOUT, NEXT) if one in self.edges)
            outcome = next(ways, FAILED)
        return self.edges.get(outcome)


def build_graph(steps: Sequence[Step]) -> dict[str, Node]:
    """Nodes by step name, in topological order; enrollments start at the first.

    Raises ValueError for a duplicate step name and for a step that can't be reached.
    """
    nodes = dict[str, Node]()
    for name, node in _nodes(steps, END):
        if name in nodes:
            raise ValueError(f"two steps are named {name!r}; give one of them another name=")
        nodes[name] = node
    reached = {steps[0].name} if steps else set()
    for name, node in nodes.items():
        if name not in reached:
            raise ValueError(
                f"step {name!r} can't be reached: every path to it exits; "
                "move it into a branch or remove it"
            )
        reached.update(node.edges.values())
    return nodes


def _nodes(steps: Sequence[Step], after: str) -> Iterator[tuple[str, Node]]:
    for number, step in enumerate(steps):
        following = steps[number + 1].name if number + 1 < len(steps) else after
        branches = dict(step.branches())
        edges = {
            outcome: branches[outcome][0].name if branches.get(outcome) else following
            for outcome in step.outcomes()
        }
        yield step.name, Node(step, edges)
        for branch in branches.values():
            yield from _nodes(branch, following)


def parents(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """The predecessors of each step, by step name."""
    into: dict[str, list[str]] = {name: [] for name in nodes}
    for name, node in nodes.items():
        for target in dict.fromkeys(node.edges.values()):
            if target != END:
                into[target].append(name)
    return into


def steps_after(nodes: Mapping[str, Node], name: str) -> set[str]:
    """The steps to which a path leads from a step."""
    after: set[str] = set()
    for step, node in nodes.items():  # in topological order
        if step == name or step in after:
            after.update(node.edges.values())
    return after - {END}


__all__ = ["END", "ExitStep", "Node", "build_graph", "parents", "steps_after"]
