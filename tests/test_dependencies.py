"""pyproject.toml declares what is imported and nothing else.

docs/how-it-works/dependencies.md explains each package.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = ["config", "profiles", "channels", "journeys", "sandbox", "flows"]
TESTS = ["tests", "benchmarks"]
# Declared, but loaded by somebody else.
LOADED_BY_OTHERS = {
    "httptools": "uvicorn's HTTP parser",
    "psycopg": "SQLAlchemy's driver for PostgreSQL",
    "tzdata": "zoneinfo's data",
    "whenever": "Prefect's, with a version that its schedules work with",
}
TOOLS = {
    *("editables", "hatchling", "mypy", "pip", "pip-audit", "pytest-xdist", "ruff"),
    *("setuptools", "uv"),
}
# Many distributions share the namespace `google`; pydantic-core is a part of pydantic.
PACKAGE_OF = {"google": "google-auth", "pydantic_core": "pydantic"}


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in requirements}


def project() -> tuple[set[str], set[str]]:
    """The packages that the product needs, and those that only tests and tools need."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    read = tomllib.loads(text)["project"]
    return declared(read["dependencies"]), declared(read["optional-dependencies"]["dev"])


def modules(folders: list[str]) -> Iterator[str]:
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (name.name for name in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module


@cache
def distributions() -> dict[str, list[str]]:
    return {top: sorted(set(names)) for top, names in packages_distributions().items()}


def imported(folders: list[str]) -> set[str]:
    """The packages that the folders import, by the names that pyproject.toml uses."""
    ours = {*PRODUCT, *TESTS, *sys.stdlib_module_names}
    tops = {module.split(".")[0] for module in modules(folders)} - ours
    # A package that is not installed counts by its own name.
    found = {PACKAGE_OF.get(top) or distributions().get(top, [top])[0] for top in tops}
    return {name.lower().replace("_", "-") for name in found}


def test_what_the_product_imports_is_declared_and_the_other_way_round() -> None:
    product, _ = project()
    assert imported(PRODUCT) <= product
    assert product - imported(PRODUCT) == LOADED_BY_OTHERS.keys()


def test_what_only_tests_import_is_a_test_dependency() -> None:
    product, dev = project()
    assert imported(TESTS) - product == dev - TOOLS
    assert dev >= TOOLS
    assert dev & product == set()


def test_the_docs_explain_every_dependency() -> None:
    text = (ROOT / "docs" / "how-it-works" / "dependencies.md").read_text(encoding="utf-8")
    table = text.partition("\n## ")[0]
    cells = re.findall(r"^\| ([^|]+) \| ", table, re.MULTILINE)
    named = [name for cell in cells[1:] if "npm" not in cell for name in cell.split(", ")]
    packages = [re.split(r"[<>= ]", name)[0] for name in named]
    product, dev = project()
    assert sorted(packages) == sorted(product | dev)


def test_what_plots_and_compares_is_loaded_by_what_needs_it_only() -> None:
    """They take a second to load; no command or worker starts with them."""
    program = (
        "import sys, flows.cli.main, flows.worker.worker, flows.orchestration.library\n"
        "print(sorted({'numpy', 'scipy', 'matplotlib', 'splink', 'duckdb'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
