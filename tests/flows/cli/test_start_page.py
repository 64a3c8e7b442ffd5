"""The commands of docs/start/index.md, on its files."""

import re
from pathlib import Path

import pytest

from config.policy import load_policy
from config.settings import ROOT
from journeys.definition.catalog import LIBRARY
from tests.support.commands import commands
from tests.support.shop import House

PAGE = (ROOT / "docs" / "start" / "index.md").read_text(encoding="utf-8")
# Each file of the page: its name in the text before it, and its content.
FILES = re.findall(r"`([\w-]+\.(?:csv|toml))`(?: is)?:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_of_the_page_work(
    sqlite_house: House,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    house = sqlite_house
    house.open_library(LIBRARY, load_policy(ROOT / "config" / "policy.toml"))
    segue = commands(house, monkeypatch, capsys)
    monkeypatch.chdir(tmp_path)
    assert len(FILES) == 4
    for name, content in FILES:
        (tmp_path / name).write_text(content, encoding="utf-8")
    said = {}
    for line in re.findall(r"^segue (.*)$", PAGE, re.MULTILINE):
        said[line] = done = segue(*line.split())
        assert done.status == 0, (line, done.err)
    customers = "import customers.csv --map my-customers.toml"
    assert "ann@example.com" in said[f"{customers} --dry-run"].out
    assert "2 rows: 2 new" in said[customers].out
    orders = "import orders.csv --as-events order_completed --map my-orders.toml"
    assert "2 new" in said[orders].out
    assert "1" in said["launch win-back --audience lapsed --dry-run"].out
    assert "we miss you" in said["explain ann@example.com"].out
