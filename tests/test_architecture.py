"""Imports go one way, only flows/ knows Prefect, only channels/ knows a provider."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["config", "profiles", "channels", "journeys", "sandbox", "flows"]
MAY_IMPORT = {
    "config": set[str](),
    "profiles": {"config"},
    "channels": {"config", "profiles"},
    "journeys": {"config", "profiles", "channels"},
    "sandbox": {"config", "profiles", "channels", "journeys"},
    "flows": {"config", "profiles", "channels", "journeys"},
}
PROVIDER_PACKAGES = {"sendgrid", "twilio", "firebase_admin"}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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


CLOCKS = {"time.time", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
# The sandbox plays somebody else's servers, which have a clock of their own.
ON_OUR_CLOCK = [layer for layer in LAYERS if layer != "sandbox"]


def test_nothing_reads_the_clock() -> None:
    wrong = set()
    for layer in ON_OUR_CLOCK:
        for file in files(layer):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and ast.unparse(node) in CLOCKS:
                    wrong.add(f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert wrong == set()
