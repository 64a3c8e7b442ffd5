"""Take the pictures that need Prefect: python -m tests.support.prefect_pictures

Its UI, and the page of the staff site that shows a journey's runs.
"""

import asyncio
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import httpx
from playwright.sync_api import Page

from config.clock.times import parse_instant
from config.settings import ROOT, Settings
from flows.app import Segue, open_segue
from flows.local.stack import Stack, on_free_ports
from flows.orchestration.api.form_updates import FormUpdates
from flows.orchestration.api.prefect_api import async_client
from profiles.sample.shop import load_sample_shop
from tests.support.http.chromium import chromium
from tests.support.http.staff import insert_user
from tests.support.staff_pictures import sign_in

IMAGES = ROOT / "docs" / "images"
_MONDAY = parse_instant("2026-03-02T09:00:00Z")
_LAUNCH = {"audience": "lapsed", "limit": 0, "dry_run": False}


def picture(page: Page, name: str) -> None:
    """Write the picture `<name>.png`."""
    page.wait_for_timeout(2000)  # the graph is drawn with an animation
    page.screenshot(path=IMAGES / f"{name}.png")
    sys.stdout.write(f"docs/images/{name}.png\n")


def take(page: Page, stack: Stack, run_id: str) -> None:
    """Take the picture of a run and of the form for another one."""
    ui = f"{stack.settings.prefect_url}/v2"
    page.set_viewport_size({"width": 1280, "height": 1010})
    page.goto(f"{ui}/runs/flow-run/{run_id}")
    page.get_by_role("tab", name="Task Runs").click()
    page.get_by_label("Task run sort order").click()
    page.get_by_role("option", name="Oldest to newest").click()
    picture(page, "prefect-run")
    deployment = httpx.get(
        f"{stack.settings.prefect_url}/api/deployments/name/win-back/win-back"
    ).json()
    page.goto(f"{ui}/deployments/deployment/{deployment['id']}/run")
    picture(page, "prefect-form")


def take_staff_site(page: Page) -> None:
    """Take the picture of the journey's runs on the staff site."""
    page.set_viewport_size({"width": 1280, "height": 1000})
    sign_in(page)
    page.goto("/journeys/win-back/runs")
    picture(page, "staff-runs")


async def update_forms(segue: Segue) -> None:
    async with async_client(segue.settings, 30) as http:
        await FormUpdates(segue).update(http)


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        ours = {"data_dir": Path(folder), "now": _MONDAY}
        settings = on_free_ports(Settings().model_copy(update=ours))
        settings = settings.model_copy(update={"prefect_api_url": f"{settings.prefect_url}/api"})
        segue = open_segue(settings)
        with closing(segue.db), Stack(segue.settings) as stack:
            load_sample_shop(segue.db, _MONDAY, customers=3000)
            stack.start_servers()
            stack.wait_for_servers()
            stack.start_runner(segue.catalog.current)
            asyncio.run(update_forms(segue))
            run_id = stack.prefect.start("win-back", _LAUNCH)
            stack.wait_until(lambda: stack.prefect.ended(run_id) is not None, "the run")
            with segue.db.transaction() as tx:
                insert_user(tx, "zoe", "admin")
            stack.start_staff_site()
            with chromium() as browser:
                take(browser.new_page(), stack, run_id)
                take_staff_site(browser.new_page(base_url=settings.staff_url))


if __name__ == "__main__":
    main()
