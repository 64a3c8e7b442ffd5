"""A headless browser of this machine that opens one page, if there is one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_STOPS_WITHIN = 10.0  # seconds


def browser() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def opened_page(program: str, url: str) -> Iterator[None]:
    """Show the page, with a profile of its own, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="segue-browser-", ignore_cleanup_errors=True) as folder:
        command = [
            program,
            "--headless=new",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--no-proxy-server",
            f"--user-data-dir={folder}",
            # Chromium's own sandbox refuses to work for root.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            url,
        ]
        with subprocess.Popen(  # noqa: S603  an installed browser, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield
            finally:
                process.terminate()
                try:
                    process.wait(_STOPS_WITHIN)
                except subprocess.TimeoutExpired:
                    process.kill()
