"""The commands that pages show, on the sample shop's journeys."""

import re
import shlex
from pathlib import Path

import pytest

from config.policy import load_policy
from config.settings import ROOT
from journeys.definition.catalog import LIBRARY
from tests.support.commands import commands
from tests.support.shop import House

# Other tests run these pages: test_start_page, test_report, test_simulation.
PAGES = (
    *("README", "docs/marketer/staff", "docs/marketer/experiments", "docs/operate/faults"),
    *("docs/reference/decide", "docs/start/clients"),
)
# They run until they are stopped.
SERVERS = (["staff", "serve"], ["work"])
# What stands for a name of the reader's.
NAMES = {"J": "win-back"}


def shown(page: str) -> list[list[str]]:
    """The commands of a page, without `segue`."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    found = [line[1:] for line in lines if line and line[0].removeprefix(".venv/bin/") == "segue"]
    assert found
    return [[NAMES.get(word, word) for word in line] for line in found]


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_work(
    sqlite_house: House,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    page = (ROOT / f"{name}.md").read_text(encoding="utf-8")
    # The cases of `segue decide` and `segue lift`: a case may be broken into lines on the page.
    cases = re.findall(r"```json\n(\{.*?\})\n```", page, re.DOTALL)[:1]
    lines = [case if case.count("\n{") else case.replace("\n", " ") for case in cases]
    (tmp_path / "cases.jsonl").write_text("".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    sqlite_house.open_library(LIBRARY, load_policy(ROOT / "config" / "policy.toml"))
    sqlite_house.customer("c1")
    segue = commands(sqlite_house, monkeypatch, capsys)
    for words in shown(page):
        if words[:2] in SERVERS:
            continue
        said = segue(*words)
        assert said.status == 0, (words, said.err)
