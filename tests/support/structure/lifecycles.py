"""Generate the state diagrams of docs/how-it-works/lifecycles.md from the tables of transitions.

`python -m tests.support.structure.lifecycles` updates the page.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from channels.messages.states import (
    AFTER_CLAIM,
    DEVICE_ALLOWED,
    NOT_HANDED_OVER,
    UP_TO_CLAIM,
    MessageState,
)
from journeys.enrollments.states import ALLOWED as ENROLLMENT

DOCS = Path(__file__).parents[3] / "docs" / "how-it-works" / "lifecycles.md"

_BLOCK = re.compile(r"```mermaid\n.*?```", re.DOTALL)
_HANDED_OVER: Collection[MessageState] = ("sending", "unknown", "sent", "delivered")

# By transition: the states that may follow each state; None: there is no row yet.
Lifecycle = Mapping[str, Mapping[Any, Collection[str]]]


def edges(lifecycle: Lifecycle) -> Iterator[tuple[str, str | None, str]]:
    """Each transition with a state before and a state after it."""
    for transition, following in lifecycle.items():
        for before, states in following.items():
            for after in states:
                yield transition, before, after


def allowed(lifecycle: Lifecycle, transition: str) -> set[tuple[str | None, str]]:
    """The states before and after a transition, as pairs."""
    return {(before, after) for name, before, after in edges(lifecycle) if name == transition}


def functions(module: ModuleType) -> set[str]:
    """The names of the public functions that a module defines."""
    return {
        name
        for name, one in vars(module).items()
        if isinstance(one, FunctionType) and one.__module__ == module.__name__
        if not name.startswith("_")
    }


def diagram(lifecycle: Lifecycle, begins: Collection[str] | None = None) -> str:
    """A Mermaid state diagram. `begins`: only transitions from these states."""
    labels: dict[tuple[str | None, str], list[str]] = {}
    for transition, before, after in edges(lifecycle):
        if begins is None or before in begins:
            labels.setdefault((before, after), []).append(transition)
    arrows = (
        f"    {before or '[*]'} --> {after}: {', '.join(transitions)}"
        for (before, after), transitions in labels.items()
    )
    return "\n".join(("stateDiagram-v2", *arrows))


def diagrams() -> list[str]:
    """The diagrams of the page, in its order."""
    return [
        diagram(UP_TO_CLAIM),
        diagram(AFTER_CLAIM, _HANDED_OVER),
        diagram(AFTER_CLAIM, NOT_HANDED_OVER),
        diagram(DEVICE_ALLOWED),
        diagram(ENROLLMENT),
    ]


def with_diagrams(page: str) -> str:
    """The page with current diagrams."""
    new = iter(diagrams())
    return _BLOCK.sub(lambda _: f"```mermaid\n{next(new)}\n```", page)


if __name__ == "__main__":
    DOCS.write_text(with_diagrams(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
