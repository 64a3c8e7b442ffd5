"""axe-core, which finds what makes a page hard to use for people with disabilities."""

from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Page

_FILE = Path(__file__).parents[2] / "flows/http/axe/node_modules/axe-core/axe.min.js"
_RUN = """rules => axe.run(rules.length ? {runOnly: rules} : {}).then(found => found.violations
    .filter(one => ["serious", "critical"].includes(one.impact))
    .map(one => [one.id, ...one.nodes.map(node => node.html)]))"""


def skip_without_axe() -> None:
    """Skip the calling test if axe-core is not installed."""
    if not _FILE.exists():
        pytest.skip("put axe-core there: npm ci --prefix tests/flows/http/axe")


@cache
def _source() -> str:
    return _FILE.read_text(encoding="utf-8")


def violations(page: Page, *rules: str) -> list[list[str]]:
    """The serious violations on a page: the rule, and the HTML of each element. rules: default
    all."""
    page.evaluate(_source())
    found: list[list[str]] = page.evaluate(_RUN, list(rules))
    return found
