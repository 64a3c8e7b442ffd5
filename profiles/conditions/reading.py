"""Read conditions from TOML, where they are written as tables.

    all = [
        { attribute = "country", is = "DE" },
        { event = "order_completed", within = "90d", at_least = 2 },
        { not = { segment = "lapsed" } },
    ]

docs/journeys/segments.md is the reference.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from config.errors import SegueError
from config.text.strict import describe_errors
from config.text.suggestions import meant
from profiles.conditions.language import (
    AllOf,
    AnyOf,
    Condition,
    Consented,
    Did,
    Everyone,
    HasAddress,
    InSegment,
    Not,
    Operator,
    Test,
)

# How values are compared, by the key in the file.
_COMPARISONS: Mapping[str, Operator] = {
    "is": "==",
    "is_not": "!=",
    "above": ">",
    "at_least": ">=",
    "below": "<",
    "at_most": "<=",
    "one_of": "in",
    "contains": "contains",
}
_EXISTS = "exists"
_CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)
_Table = Mapping[str, Any]


def read_condition(table: object, place: str) -> Condition:
    """The condition of a table. Raises SegueError that begins with `place`."""
    if not isinstance(table, Mapping):
        raise SegueError(
            f"{place}: {table!r} is no condition; write a table such as "
            '{ attribute = "country", is = "DE" }'
        )
    kinds = [key for key in table if key in _KINDS]
    if not kinds:
        strange = next(iter(table), "")
        raise SegueError(
            f"{place}: it says nothing that is a condition; {meant(strange, _KINDS)}"
            f"write one of {', '.join(_KINDS)}"
        )
    if len(kinds) > 1:
        raise SegueError(
            f"{place}: {' and '.join(map(repr, kinds))} are two conditions; write them as two "
            "tables in all = [...] or any = [...]"
        )
    [kind] = kinds
    try:
        return _CONDITION.validate_python(_KINDS[kind](table, f"{place}, {kind}"))
    except ValidationError as error:
        raise SegueError(f"{place}, {kind}: {describe_errors(error)}") from error


def _attribute(table: _Table, place: str) -> Condition:
    return _compared("attribute", "trait", table, place)


def _group(table: _Table, place: str) -> Condition:
    return _compared("group", "group", table, place)


def _compared(kind: str, of: str, table: _Table, place: str) -> Condition:
    tests = _tests(kind, of, table, place)
    return tests[0] if len(tests) == 1 else AllOf(conditions=tests)


def _tests(kind: str, of: str, table: _Table, place: str) -> tuple[Test, ...]:
    _only(table, (kind, *_COMPARISONS, _EXISTS), place)
    tests: list[Condition] = []
    for key, value in table.items():
        if key in _COMPARISONS:
            given = tuple(value) if isinstance(value, list) else value
            tests.append(_test(of, table[kind], _COMPARISONS[key], given))
    found = tuple(one for one in tests if isinstance(one, Test))
    if _EXISTS in table:
        if table[_EXISTS] is not True:
            raise SegueError(f"{place}: exists is true; for the opposite write not = {{ ... }}")
        found += (_test(of, table[kind], "exists", None),)
    if not found:
        raise SegueError(
            f"{place}: {table[kind]!r} is compared with nothing; add one of "
            f"{', '.join((*_COMPARISONS, _EXISTS))}"
        )
    return found


def _test(of: str, name: object, op: Operator, value: object) -> Test:
    return Test.model_validate({"of": of, "name": name, "op": op, "value": value})


def _event(table: _Table, place: str) -> Condition:
    _only(table, ("event", "where", "within", "at_least"), place)
    given = {key: table[key] for key in ("event", "within", "at_least") if key in table}
    return Did.model_validate({**given, "where": read_tests(table.get("where", []), place)})


def read_tests(where: object, place: str) -> tuple[Test, ...]:
    """The tests of an event's properties. Raises SegueError that begins with `place`."""
    if not isinstance(where, list) or not all(isinstance(one, Mapping) for one in where):
        raise SegueError(
            f'{place}: where is a list of tables, such as [{{ property = "total", above = 50 }}]'
        )
    tests: list[Test] = []
    for one in where:
        if "property" not in one:
            raise SegueError(f'{place}, where: write {{ property = "total", above = 50 }}')
        tests += _tests("property", "property", one, f"{place}, where")
    return tuple(tests)


def _trait(table: _Table, place: str) -> Condition:
    return _compared("trait", "computed", table, place)


def _consent(table: _Table, place: str) -> Condition:
    _only(table, ("consent", "topic"), place)
    return Consented.model_validate({"channel": table["consent"], "topic": table.get("topic", "*")})


def _reachable(table: _Table, place: str) -> Condition:
    _only(table, ("reachable",), place)
    return HasAddress.model_validate({"channel": table["reachable"]})


def _segment(table: _Table, place: str) -> Condition:
    _only(table, ("segment",), place)
    return InSegment.model_validate({"segment": table["segment"]})


def _everyone(table: _Table, place: str) -> Condition:
    _only(table, ("everyone",), place)
    if table["everyone"] is not True:
        raise SegueError(f"{place}: write everyone = true")
    return Everyone()


def _all(table: _Table, place: str) -> Condition:
    return AllOf(conditions=_listed("all", table, place))


def _any(table: _Table, place: str) -> Condition:
    return AnyOf(conditions=_listed("any", table, place))


def _not(table: _Table, place: str) -> Condition:
    _only(table, ("not",), place)
    return Not(condition=read_condition(table["not"], place))


def _listed(kind: str, table: _Table, place: str) -> tuple[Condition, ...]:
    _only(table, (kind,), place)
    parts = table[kind]
    if not isinstance(parts, list) or not parts:
        raise SegueError(f"{place}: it is a list of conditions, such as {kind} = [{{ ... }}]")
    return tuple(read_condition(one, f"{place}[{number}]") for number, one in enumerate(parts))


def _only(table: _Table, known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            raise SegueError(
                f"{place}: it has no {key!r}; {meant(key, known)}there are: {', '.join(known)}"
            )


_KINDS: Mapping[str, Callable[[_Table, str], Condition]] = {
    "attribute": _attribute,
    "group": _group,
    "trait": _trait,
    "event": _event,
    "consent": _consent,
    "reachable": _reachable,
    "segment": _segment,
    "everyone": _everyone,
    "all": _all,
    "any": _any,
    "not": _not,
}
