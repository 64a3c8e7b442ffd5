"""The browser of the tests: Debian's Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium")
_ABSENT = "no Chromium: apt-get install chromium"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=_ABSENT)


def skip_without_chromium() -> None:
    """Skip the calling test if there is no browser."""
    if CHROMIUM is None:
        pytest.skip(_ABSENT)


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Run a browser with these arguments until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *arguments]
        )
        yield browser
        browser.close()
