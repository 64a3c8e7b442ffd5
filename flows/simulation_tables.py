"""The results of a simulation as tables, for the terminal and for Prefect.

Two compared runs are side by side where they have the same rows, else one after the other.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from config.clock.times import format_rounded

# A run's name, and its results as `flows.simulate.as_json` gives them.
Runs = Sequence[tuple[str, dict[str, Any]]]
_TOTALS = ("people", "entered", "sent", "not_sent", "converted", "unsubscribes")
_QUANTILES = ("median", "p95", "longest")


class ResultTable(NamedTuple):
    """A table for people. part: of the results."""

    part: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def runs_of(found: dict[str, Any]) -> Runs:
    """The runs of an answer: `now`, and the compared one."""
    runs = [("now", found)]
    if "compared" in found:
        runs.append((found["compare"], found["compared"]))
    return runs


def notes(runs: Runs) -> Iterator[str]:
    """What a replay knows, the warnings, and why people did not enter or move; of a compared run
    with its name.
    """
    for name, run in runs:
        of = f"{name}: " if len(runs) > 1 else ""
        if (known := run["replayed"]) is not None:
            yield (
                f"{of}a replay of what happened: customers answered "
                f"{known['answered_as_then']:,} messages as they did, and "
                f"{known['answered_by_rates']:,} by rates, since those were not sent then"
            )
        for warning in run["warnings"]:
            yield f"{of}warning: {warning}"
        for journey, reasons in run["why_not"].items():
            for reason, number in reasons.items():
                yield f"{of}{journey}: {reason}" + (f" ({number:,})" if number > 1 else "")


def tables(runs: Runs) -> Iterator[ResultTable]:
    """Every table of the results; one without rows has nothing to show."""
    names = tuple(name for name, _ in runs)
    yield ResultTable("totals", ("", *names), list(_totals(runs)))
    for part, what in (("by_day", "day"), ("by_hour", "hour")):
        heading = f"{what} in {runs[0][1]['timezone']}"
        yield ResultTable(part, (heading, *_twice(names)), _by_time(runs, part))
    headings = ("journey", "step", "channel", *_twice(names), *_each("reasons", names))
    yield ResultTable("by_step", headings, _by_step(runs))
    yield _listed(
        runs,
        "held_back",
        ("held back at", "channel", "by", "messages", "median", "95 %", "longest"),
        lambda one: (
            f"{one['journey']} / {one['step']}",
            *(one["channel"], one["by"], f"{one['messages']:,}"),
            *(format_rounded(one[name]) for name in _QUANTILES),
        ),
    )
    yield _listed(
        runs,
        "collisions",
        ("not sent", "because of", "how", "messages"),
        lambda one: (
            f"{one['journey']} / {one['step']}",
            f"{one['by_journey']} / {one['by_step']}",
            *(one["what"], f"{one['messages']:,}"),
        ),
    )
    yield _listed(
        runs,
        "providers",
        ("provider", "messages", "rate a second", "busiest hour", "in it", "longest wait"),
        lambda one: (
            *(one["provider"], f"{one['messages']:,}", str(one["rate"] or "no limit")),
            *(one["busiest"], f"{one['most_in_an_hour']:,}", format_rounded(one["waits"])),
        ),
    )
    yield _listed(
        runs,
        "rates",
        ("journey", "channel", "answer", "rate", "counted on", "of"),
        lambda one: (
            *(one["journey"], one["channel"], one["answer"], f"{one['value']:.3f}"),
            *(one["source"], f"{one['of']:,}"),
        ),
    )

    yield _listed(
        runs,
        "delays",
        ("answer", "to", "half within", "counted on", "of"),
        lambda one: (
            *(one["answer"], one["where"], format_rounded(one["median"])),
            *(one["source"], f"{one['of']:,}"),
        ),
    )


def total(run: dict[str, Any], name: str) -> str:
    """A total, with the extremes of the seeds if they differ."""
    value = run[name]
    number = sum(value.values()) if isinstance(value, dict) else value
    low, high = run["range"].get(name, (number, number))
    return f"{number:,}" if low == high else f"{number:,} ({low:,} to {high:,})"


def _totals(runs: Runs) -> Iterator[tuple[str, ...]]:
    for name in _TOTALS:
        yield (name.replace("_", " "), *(total(run, name) for _, run in runs))
    for part in ("sent", "not_sent"):
        for kind in sorted({kind for _, run in runs for kind in run[part]}):
            numbers = (f"{run[part].get(kind, 0):,}" for _, run in runs)
            yield (f"{_plain(part)}: {_plain(kind)}", *numbers)
    for part in ("p50", "p95", "p100"):
        numbers = (str(run["messages_a_person"][part]) for _, run in runs)
        yield (f"messages a person, {part}", *numbers)


def _by_time(runs: Runs, part: str) -> list[tuple[str, ...]]:
    places = {place for _, run in runs for place in run[part]}
    none = {"sent": 0, "not_sent": 0}
    return [
        (
            place,
            *(
                f"{run[part].get(place, none)[what]:,}"
                for _, run in runs
                for what in ("sent", "not_sent")
            ),
        )
        for place in sorted(places, key=lambda one: (len(one), one))
    ]


def _by_step(runs: Runs) -> list[tuple[str, ...]]:
    """A step that only one of the runs has is shown too, with empty cells for the other."""
    found = [
        {(one["journey"], one["step"], one["channel"]): one for one in run["by_step"]}
        for _, run in runs
    ]
    rows = []
    for place in dict.fromkeys(place for steps in found for place in steps):
        cells: list[str] = []
        for steps in found:
            one = steps.get(place)
            refused = 0 if one is None else sum(one["not_sent"].values())
            cells += ["", ""] if one is None else [f"{one['sent']:,}", f"{refused:,}"]
        reasons = (_reasons(steps[place]) if place in steps else "" for steps in found)
        rows.append((*place, *cells, *reasons))
    return rows


def _reasons(step: dict[str, Any]) -> str:
    return ", ".join(
        f"{number:,} {_plain(why)}" for why, number in sorted(step["not_sent"].items())
    )


def _listed(
    runs: Runs,
    part: str,
    headings: tuple[str, ...],
    cells: Callable[[dict[str, Any]], tuple[str, ...]],
) -> ResultTable:
    if len(runs) == 1:
        return ResultTable(part, headings, [cells(one) for one in runs[0][1][part]])
    rows = [(name, *cells(one)) for name, run in runs for one in run[part]]
    return ResultTable(part, ("run", *headings), rows)


def _twice(names: Sequence[str]) -> list[str]:
    if len(names) == 1:
        return ["sent", "not sent"]
    return [f"{what}, {name}" for name in names for what in ("sent", "not sent")]


def _each(what: str, names: Iterable[str]) -> list[str]:
    every = list(names)
    return [what] if len(every) == 1 else [f"{what}, {name}" for name in every]


def _plain(code: str) -> str:
    return code.replace("_", " ")
