"""Statements are built once: no function that runs for each event or message builds one.

SQLAlchemy takes longer to build a statement and its cache key than a database to execute it. So a
statement stands at module level, or a function with `lru_cache` returns it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What runs for each event, enrollment or message.
MODULES = sorted(
    [
        *(ROOT / "channels/messages").glob("*.py"),
        *(ROOT / "journeys/enrollments").glob("*.py"),
        *(ROOT / "journeys/operations").glob("*.py"),
        *(ROOT / "journeys/engine").glob("*.py"),
        *(ROOT / "journeys/explain").glob("*.py"),
        *(ROOT / "channels/rules").glob("*.py"),
        *(ROOT / "channels/outbox").glob("*.py"),
        *(ROOT / "profiles").rglob("*.py"),
    ]
)
# These run rarely: every few minutes, or at a command or a request for a report.
RARE = {
    "channels/outbox/unknown.py": {"unknown_messages"},
    "journeys/operations/doctor.py": {"_questions"},
    "journeys/operations/migration.py": {"plan_migration"},
    "journeys/operations/counts.py": {"summarise"},
}

EXECUTE = {"execute", "rows", "write"}
BUILD = {"delete", "exists", "insert", "select", "union_all", "update"}
# Whoever takes one of these is called anew for each transaction.
VALUES = {"chunk", "cohort", "conn", "tx"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> dict[str, Function]:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, Function)}


def is_cached(function: Function) -> bool:
    return any("cache" in ast.unparse(decorator) for decorator in function.decorator_list)


def calls(function: Function) -> Iterator[str]:
    """The names of the functions and methods that it calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTE | {"where"}:
                yield node.func.attr


def builders(source: str) -> set[str]:
    """The functions of a module that build a statement in each transaction."""
    found = functions(ast.parse(source))
    called = {name: set(calls(one)) for name, one in found.items() if not is_cached(one)}
    often = {
        name
        for name, names in called.items()
        if EXECUTE & names or VALUES & {arg.arg for arg in found[name].args.args}
    }
    building = {name for name, names in called.items() if names & (BUILD | {"where"})}
    # With a function that returns a statement or a part of one, its caller builds the statement.
    while more := {n for n, names in called.items() if names & (building - often)} - building:
        building |= more
    return building & often


def test_no_function_builds_a_statement_in_each_transaction() -> None:
    found = {
        str(file.relative_to(ROOT)): builders(file.read_text(encoding="utf-8")) for file in MODULES
    }
    assert {file: names for file, names in found.items() if names} == RARE


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("FOUND = select(c.id)\ndef read(tx): tx.conn.execute(FOUND)", set()),
        ("def read(tx): tx.conn.execute(select(c.id))", {"read"}),
        ("def read(tx): tx.conn.execute(FOUND.where(c.id == 1))", {"read"}),
        ("def built(): return select(c.id)\nFOUND = built()", set()),
        ("def built(): return select(c.id)\ndef read(tx): tx.conn.execute(built())", {"read"}),
        ("@lru_cache\ndef built(): return select(c.id)\ndef read(tx): built()", set()),
    ],
)
def test_what_counts_as_building(source: str, found: set[str]) -> None:
    assert builders(source) == found
