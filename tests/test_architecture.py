"""Imports go one way; only flows/ imports Prefect, and only channels/ the providers' packages."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["config", "profiles", "channels", "journeys", "sandbox", "flows"]
EVERYWHERE = [*LAYERS, "tests", "benchmarks"]
MAY_IMPORT = {
    "config": set[str](),
    "profiles": {"config"},
    "channels": {"config", "profiles"},
    "journeys": {"config", "profiles", "channels"},
    "sandbox": {"config", "profiles", "channels", "journeys"},
    "flows": {"config", "profiles", "channels", "journeys"},
}
PROVIDER_PACKAGES = {"sendgrid", "twilio", "firebase_admin"}


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def files(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_those_below_it(layer: str) -> None:
    above = set(LAYERS) - MAY_IMPORT[layer] - {layer}
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files(layer)
        for name in imported(file)
        if name in above
    }
    assert wrong == set()
    assert files(layer)


def test_no_product_file_imports_the_sandbox() -> None:
    """flows/local starts it as a process."""
    wrong = {
        str(file.relative_to(ROOT))
        for layer in LAYERS
        if layer != "sandbox"
        for file in files(layer)
        if "sandbox" in imported(file)
    }
    assert wrong == set()


def test_a_provider_does_not_ask_for_the_mode() -> None:
    """Where the sandbox takes the messages, it gets other settings."""
    helpers = {"base.py", "registry.py", "sending.py", "transport.py", "webhook.py", "__init__.py"}
    for file in (ROOT / "channels" / "providers").glob("*.py"):
        if file.name not in helpers:
            asked = {
                ast.unparse(node)
                for node in ast.walk(parsed(file))
                if isinstance(node, ast.Attribute)
            }
            assert not asked & {"settings.providers", "settings.sandbox_url"}, file.name


def test_only_flows_knows_prefect_and_only_channels_knows_a_provider() -> None:
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for layer in LAYERS
        for file in files(layer)
        for name in imported(file)
        if (name == "prefect" and layer != "flows")
        or (name in PROVIDER_PACKAGES and layer not in ("channels", "sandbox"))
    }
    assert wrong == set()


# patch("..."), patch.object(...), monkeypatch.setattr(...)
PATCHES = {"patch", "object", "setattr"}


def last_name(called: ast.expr) -> str | None:
    """`setattr` of `monkeypatch.setattr`."""
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else None


CLOCKS = {"time.time", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
LAST_OF_CLOCKS = {name.rpartition(".")[2] for name in CLOCKS}
# The sandbox plays somebody else's servers, which have a clock of their own.
ON_OUR_CLOCK = [layer for layer in LAYERS if layer != "sandbox"]


def test_nothing_reads_the_clock() -> None:
    wrong = set()
    for layer in ON_OUR_CLOCK:
        for file in files(layer):
            for node in ast.walk(parsed(file)):
                if (
                    isinstance(node, ast.Attribute)
                    and node.attr in LAST_OF_CLOCKS
                    and ast.unparse(node) in CLOCKS
                ):
                    wrong.add(f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert wrong == set()


LIBRARY_FILES = [
    *(ROOT / "journeys" / "library").rglob("*.py"),
    *(ROOT / "journeys" / "confirm_subscription").rglob("*.py"),
    *(ROOT / "tests" / "chaos" / "library").rglob("*.py"),
]
DOCS_WITH_JOURNEYS = [ROOT / "README.md", ROOT / "docs" / "journeys" / "index.md"]


def imports_outside_the_dsl(source: str) -> set[str]:
    return {
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import)
        or (isinstance(node, ast.ImportFrom) and node.module != "journeys.dsl")
    }


def test_a_library_imports_from_the_dsl_alone() -> None:
    assert len(LIBRARY_FILES) >= 8
    for file in LIBRARY_FILES:
        assert imports_outside_the_dsl(file.read_text(encoding="utf-8")) == set(), file


@pytest.mark.parametrize("file", DOCS_WITH_JOURNEYS, ids=lambda file: str(file.name))
def test_an_example_in_the_docs_runs(file: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)
    journeys = [example for example in examples if "journeys.dsl" in example]
    assert journeys
    for example in journeys:
        assert imports_outside_the_dsl(example) == set()
        exec(example, {})


def test_channels_are_described_with_config_alone() -> None:
    """config/channels.py loads these files, so their imports must be below config."""
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / "channels" / "kinds").glob("*.py")
        for name in imported(file)
        if name in set(LAYERS) - {"config"}
    }
    assert wrong == set()
    loads = [
        str(file.relative_to(ROOT))
        for layer in ("config", "profiles")
        for file in files(layer)
        if "import_module" in file.read_text(encoding="utf-8")
    ]
    assert loads == ["config/channels.py"]


# The sandbox plays the providers, and names things as they do; each name is also defined elsewhere.
DEFINED_TWICE = {"Entry", "Reply", "Strings", "Text"}


def type_names(file: Path) -> Iterator[str]:
    """The public classes, type aliases and constructors of a file: names like CamelCase."""
    for node in parsed(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        else:
            names = []
        yield from (name for name in names if re.fullmatch(r"[A-Z]+[a-z]\w*", name))


def test_a_type_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for layer in LAYERS:
        for file in files(layer):
            for name in type_names(file):
                places.setdefault(name, []).append(str(file.relative_to(ROOT)))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert twice.keys() == DEFINED_TWICE, twice
    assert all(any(place.startswith("sandbox/") for place in where) for where in twice.values())


def test_no_test_replaces_a_private_constant() -> None:
    """A wait that a test shortens is a field of config.timing.Timing, which is passed in."""
    wrong = {
        f"{file.relative_to(ROOT)}:{node.lineno} {node.value}"
        for file in files("tests")
        for call in ast.walk(parsed(file))
        if isinstance(call, ast.Call) and last_name(call.func) in PATCHES
        for node in call.args[:2]
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.search(r"(^|\.)_[A-Z][A-Z_]*$", node.value)
    }
    assert wrong == set()


ADDRESS_RULES = ROOT / "profiles" / "identity" / "addresses.py"


def conditions_on_retired_at(source: str) -> Iterator[str]:
    """`x.retired_at is None`, `x["retired_at"] is not None`, `x.retired_at.is_(None)`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            nothing = any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
            subject = node.left if nothing else None
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            subject = node.func.value if node.func.attr in ("is_", "is_not") else None
        else:
            continue
        if subject is not None and "retired_at" in ast.unparse(subject):
            yield f"{subject.lineno} {ast.unparse(node)}"


def test_which_address_is_in_use_is_decided_in_one_file() -> None:
    """Others ask is_in_use, is_retired, is_suppressed and their like of profiles/identity."""
    wrong = set()
    for layer in LAYERS:
        for file in files(layer):
            if file == ADDRESS_RULES or "migrations" in file.parts:
                continue
            source = file.read_text(encoding="utf-8")
            wrong |= {
                f"{file.relative_to(ROOT)}:{found}" for found in conditions_on_retired_at(source)
            }
            wrong |= {
                f"{file.relative_to(ROOT)} imports {name.name}"
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.ImportFrom)
                for name in node.names
                if name.name in ("suppressions", "Suppression")
            }
    assert wrong == set()
    assert len(list(conditions_on_retired_at(ADDRESS_RULES.read_text(encoding="utf-8")))) == 2


MANY = 4  # from this many values on, each is named


def classes_in(tree: ast.Module) -> set[str]:
    """The names of a file's classes, but not of those that take any number of values."""
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and not any(
            isinstance(method, ast.FunctionDef)
            and method.name == "__init__"
            and method.args.vararg is not None
            for method in node.body
        )
    }


def positional_constructions(tree: ast.Module, ours: set[str]) -> Iterator[str]:
    """`Claim(1, 2, 3, 4)`, `module.Claim(1, 2, 3, 4)`, `cls(1, 2, 3, 4)`.

    ours: the names of all classes of this project.
    """
    imported_here = {
        name.asname or name.name: name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in EVERYWHERE
        for name in node.names
    }
    own = {"cls"} | classes_in(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or len(node.args) < MANY:
            continue
        first, _, rest = ast.unparse(node.func).partition(".")
        known = first in own if not rest else first in imported_here and rest in ours
        if not (known or (not rest and imported_here.get(first) in ours)):
            continue
        yield f"{node.lineno} {ast.unparse(node)}"


def test_many_values_are_given_by_keyword() -> None:
    """Values of one type can be exchanged by mistake; whole rows are read with `_make`."""
    trees = {file: parsed(file) for layer in EVERYWHERE for file in files(layer)}
    ours = set().union(*(classes_in(tree) for tree in trees.values()))
    wrong = {
        f"{file.relative_to(ROOT)}:{found}"
        for file, tree in trees.items()
        for found in positional_constructions(tree, ours)
    }
    assert wrong == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class A: pass\nA(1, 2, 3, 4)", True),
        ("class A: pass\nA(1, 2, 3, d=4)", False),
        ("class A:\n def __init__(self, *all): pass\nA(1, 2, 3, 4)", False),
        ("class A: pass\nA._make(row)", False),
        ("from channels.links import Link\nLink(1, 2, 3, 4)", True),
        ("from channels.links import Link as Other\nOther(1, 2, 3, 4)", True),
        ("from channels import links\nlinks.Link(1, 2, 3, 4)", True),
        ("from rich.link import Link\nLink(1, 2, 3, 4)", False),
        ("class A:\n def of(cls): return cls(1, 2, 3, 4)", True),
    ],
)
def test_a_positional_construction_is_found(source: str, found: bool) -> None:
    assert bool([*positional_constructions(ast.parse(source), {"A", "Link"})]) is found


def test_rows_of_the_core_are_typed() -> None:
    """A NamedTuple beside the statement describes its columns, in place of Row[Any]."""
    wrong = {
        f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
        for layer in LAYERS
        for file in files(layer)
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Subscript) and ast.unparse(node) == "Row[Any]"
    }
    assert wrong == set()
