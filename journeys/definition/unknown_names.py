"""Warn of attributes, events and topics in a library that nothing knows, with a suggestion.

A name is known if customers or events have it, if Segue or a journey writes it, or, where there are
no customers or events yet, unless it is much like a name that is known, usual or used more often.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from config.errors import SegueError
from config.policy import Policy
from config.text.suggestions import ALIKE, alike
from journeys.definition.catalog import Catalog
from journeys.definition.journey import EventEntry, Version
from journeys.definition.steps import UpdateStep, WaitStep
from profiles.attributes.names import NAME_ATTRIBUTES
from profiles.conditions.language import PROFILE_COLUMNS
from profiles.seen_names import SeenNames

_Kind = Literal["attribute", "event", "topic"]
# How alike a name must be to another one to be unknown without any evidence.
_SURELY_ALIKE = 0.8
# Attributes that Segment's clients send by these names.
_USUAL = {
    "email",
    "phone",
    *PROFILE_COLUMNS,
    *(name for names in NAME_ATTRIBUTES for name in names),
}
# Names that most shops use: they are not known before they are seen, but others are taken for them.
_USUAL_ATTRIBUTES = {"lifetime_value", "loyalty_tier", "plan", "orders", "gender", "company"}
_USUAL_EVENTS = {
    *("signed_up", "product_viewed", "product_added", "cart_viewed", "cart_abandoned"),
    *("checkout_started", "order_completed", "order_refunded", "review_left", "page_viewed"),
    *("subscription_started", "subscription_cancelled", "trial_started"),
}
_UNKNOWN = {
    "attribute": "no customer has the attribute {name!r}",
    "event": "no event {name!r} has arrived",
    "topic": "the policy has no topic {name!r}",
}


class _Use(NamedTuple):
    kind: _Kind
    name: str
    where: str


def unknown_names(
    catalog: Catalog, policy: Policy, seen: SeenNames, own_events: Collection[str]
) -> list[str]:
    """The warnings, in the order of the places. own_events: events that Segue itself records."""
    uses = list(dict.fromkeys(_uses(catalog)))
    written = {
        name
        for version in catalog.current.values()
        for node in version.journey.graph.values()
        if isinstance(node.step, UpdateStep)
        for name in node.step.attributes
    }
    known: Mapping[_Kind, frozenset[str]] = {
        "attribute": frozenset({*_USUAL, *written, *seen.attributes}),
        "event": frozenset({*own_events, *seen.events}),
        "topic": frozenset({"*", *policy.topics}),
    }
    is_evident = {
        "attribute": bool(seen.attributes),
        "event": bool(seen.events),
        "topic": True,
    }
    usual = {"attribute": _USUAL_ATTRIBUTES, "event": _USUAL_EVENTS, "topic": set[str]()}
    often: dict[_Kind, Counter[str]] = defaultdict(Counter)
    for use in uses:
        often[use.kind][use.name] += 1
    found = []
    for kind, name, where in uses:
        if name in known[kind]:
            continue
        used = often[kind]
        others = set(known[kind] - {"*"})
        if not is_evident[kind]:
            if name in usual[kind]:
                continue
            others |= usual[kind] | {one for one in used if used[one] > used[name]}
        near = alike(name, sorted(others), ALIKE if is_evident[kind] else _SURELY_ALIKE)
        if near or is_evident[kind]:
            advice = f"; did you mean {near!r}?" if near else ""
            found.append(f"{where}: {_UNKNOWN[kind].format(name=name)}{advice}")
    return found


def _uses(catalog: Catalog) -> Iterator[_Use]:
    for trait in catalog.traits.of_events.values():
        yield _Use("event", trait.event, f"trait {trait.name}")
    for segment in catalog.segments.values():
        yield from _of_condition(segment.condition.model_dump(), f"segment {segment.name}")
    for name, version in sorted(catalog.current.items()):
        yield from _of_version(version, f"journey {name}")


def _of_version(version: Version, where: str) -> Iterator[_Use]:
    journey = version.journey
    if isinstance(journey.entry, EventEntry):
        yield _Use("event", journey.entry.event, f"{where}, entry")
    for condition in journey.conditions():
        yield from _of_condition(condition.model_dump(), where)
    for node in journey.graph.values():
        if isinstance(node.step, WaitStep) and node.step.date is not None:
            yield _Use("attribute", _first(node.step.date), f"{where}, step {node.step.name!r}")
    for step in journey.sends():
        for message in step.messages:
            # A template that can't be read is an error of its own.
            with suppress(SegueError):
                for variable in sorted(version.template(message).variables):
                    root, _, path = variable.partition(".")
                    if root == "profile" and path:
                        what = f"template {message.template!r} of {message.channel}"
                        yield _Use("attribute", _first(path), f"{where}, {what}")


def _of_condition(part: Any, where: str) -> Iterator[_Use]:
    """The names in a condition as JSON."""
    if isinstance(part, list | tuple):
        for one in part:
            yield from _of_condition(one, where)
    if not isinstance(part, dict):
        return
    match part.get("type"):
        case "test" if part["of"] == "trait":
            yield _Use("attribute", _first(part["name"]), where)
        case "did":
            yield _Use("event", part["event"], where)
        case "consented":
            yield _Use("topic", part["topic"], where)
        case "in_segment":
            return  # the segment itself is examined
    for value in part.values():
        yield from _of_condition(value, where)


def _first(path: str) -> str:
    """The attribute that a path begins with: address.country -> address."""
    return path.partition(".")[0].partition("[")[0]
