"""Compare the planner with the reference on random cases.

    python -m tests.support.planning.compare_planner --cases 20000 --seed 1

prints the first disagreements, each reduced to a minimal case, and their number. Exits with 1 if
there are any.
"""

import argparse
import copy
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

import orjson

from channels.rules.cases import answer_case
from channels.rules.planner import Planner
from config.policy import Policy
from tests.support.planning.random_cases import random_case, step_of
from tests.support.planning.reference import reference_answer

# Every case has its own policy, so this one is not used.
DEFAULT = Planner(Policy())
COMPARED = ("channel", "outcome", "send_at", "reason", "timezone", "timezone_source")
WITH_RULE = ("capped", "window_closed", "no_common_time", "group_incomplete")


def disagreement(case: dict[str, Any]) -> str | None:
    """The difference between the answers of planner and reference, as text; None if they agree."""
    expected = reference_answer(case, step_of(case))["decisions"]
    try:
        answer = answer_case(case, DEFAULT)
    except Exception as error:
        return f"planner raised {type(error).__name__}: {error}\nreference {_line(expected)}"
    decisions = answer["decisions"]
    shown = [{key: decision[key] for key in COMPARED} for decision in decisions]
    if shown != expected or answer["id"] != case["id"]:
        return f"planner   {_line(shown)}\nreference {_line(expected)}"
    for decision in decisions:
        if (decision["rule"] is not None) != (decision["reason"] in WITH_RULE):
            return f"rule is {decision['rule']!r} with reason {decision['reason']!r}"
    return None


def smallest(case: dict[str, Any]) -> dict[str, Any]:
    """Reduce a case as long as planner and reference disagree on it."""
    for smaller in _smaller(case):
        if disagreement(smaller):
            return smallest(smaller)
    return case


def _smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in (("history",), ("policy", "caps"), ("send", "messages")):
        length = len(_at(case, path))
        for place in range(length):
            yield _without(case, path, place)
    for channel, rules in case["policy"]["channels"].items():
        yield _without(case, ("policy", "channels"), channel)
        for key in rules:
            yield _without(case, ("policy", "channels", channel), key)
        for place in range(len(rules.get("windows", []))):
            if len(rules["windows"]) > 1:
                yield _without(case, ("policy", "channels", channel, "windows"), place)
    for place, message in enumerate(case["send"]["messages"]):
        for key in message.keys() & {"after", "on_cap", "max_delay"}:
            yield _without(case, ("send", "messages", place), key)
    for place, cap in enumerate(case["policy"]["caps"]):
        for key in cap.keys() & {"topic", "counts"}:
            yield _without(case, ("policy", "caps", place), key)


def _at(case: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        case = case[key]
    return case


def _without(case: dict[str, Any], path: tuple[Any, ...], key: Any) -> dict[str, Any]:
    copied = copy.deepcopy(case)
    del _at(copied, path)[key]
    return copied


def _line(value: Any) -> str:
    return orjson.dumps(value).decode()


def main() -> int:
    arguments = argparse.ArgumentParser(description="Planner against reference.")
    arguments.add_argument("--cases", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--show", type=int, default=5, help="how many disagreements to print")
    options = arguments.parse_args()
    random = Random(options.seed)
    found = 0
    for number in range(options.cases):
        case = random_case(random)
        if not disagreement(case):
            continue
        found += 1
        if found <= options.show:
            case = smallest(case)
            sys.stdout.write(f"case {number}: {_line(case)}\n{disagreement(case)}\n\n")
            sys.stdout.flush()
    sys.stdout.write(f"{options.cases} cases, {found} disagreements\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
