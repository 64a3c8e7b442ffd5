"""Compare two groups that a line of JSON describes: the cases of `segue lift`.

docs/marketer/experiments.md describes them. A case is
`{"kind": "proportion", "control": [people, conversions], "arm": [...]}`, or of the kind
`mean` with `[people, sum, sum of squares]`.
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from journeys.analytics.statistics import Comparison, Estimate, Sample, compare, mean, proportion

_PARTS = {
    "proportion": ("people", "conversions"),
    "mean": ("people", "sum", "sum of squares"),
}


def lift(case: Mapping[str, Any]) -> dict[str, Any]:
    """Four estimates, each `[difference, [low, high], p]`, with null for what has no value.

    If something has no value, `undefined` says what and why. Raises ValueError for an invalid case.
    """
    kind = case.get("kind")
    if not isinstance(kind, str) or kind not in _PARTS:
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(_PARTS)}")
    groups = {name: _group(name, kind, case.get(name)) for name in ("control", "arm")}
    answer: dict[str, Any] = estimates(compare(**groups))
    reasons = list(_undefined(**groups))
    return {**answer, "undefined": reasons} if reasons else answer


def estimates(found: Comparison) -> dict[str, list[Any] | None]:
    """The four estimates of a comparison, each `[difference, [low, high], p]` or null."""
    return {
        "absolute_fixed": _listed(found.absolute_fixed),
        "absolute_sequential": _listed(found.absolute_sequential),
        "relative_fixed": _listed(found.relative_fixed),
        "relative_sequential": _listed(found.relative_sequential),
    }


def _listed(estimate: Estimate) -> list[Any] | None:
    difference, low, high, p = (
        number if isfinite(number := float(part)) else None
        for part in (estimate.difference, estimate.low, estimate.high, estimate.p)
    )
    if difference is None:
        return None
    interval = None if low is None or high is None else [low, high]
    return [difference, interval, None if interval is None else p]


def _group(name: str, kind: str, given: object) -> Sample:
    parts = _PARTS[kind]
    if not isinstance(given, list) or len(given) != len(parts):
        raise ValueError(f"{name}: it must be a list [{', '.join(parts)}]")
    for part, number in zip(parts, given, strict=True):
        if isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
            raise ValueError(f"{name}: {part} must be a number, and is {number!r}")
    n, *sums = (float(number) for number in given)
    if n < 0 or n != int(n):
        raise ValueError(f"{name}: people must be a whole number of at least 0")
    if not n and any(sums):
        raise ValueError(f"{name}: without people its sums are 0")
    if kind == "proportion":
        if not 0 <= sums[0] <= n:
            raise ValueError(f"{name}: conversions must be from 0 to the number of people")
        return proportion(n, sums[0])
    try:
        return mean(n, *sums)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _undefined(control: Sample, arm: Sample) -> Iterator[str]:
    for name, group in (("control", control), ("arm", arm)):
        if group.n == 0:
            yield f"every figure: the {name} has no people"
        elif group.n == 1:
            yield f"intervals: the {name} has one person, and no variance"
    if not (control.n and arm.n):
        return
    if not control.mean:
        yield "relative figures: the control's mean is 0"
    if control.n > 1 and arm.n > 1:
        if not (control.variance or arm.variance):
            yield "intervals: all values of a group are equal"
        elif control.mean and not (arm.mean or arm.variance):
            yield "relative intervals: all values of the arm are 0"
