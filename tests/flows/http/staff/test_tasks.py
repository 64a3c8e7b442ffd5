"""What a marketer does in a week, on the staff site in a browser: each in at most six clicks."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from config.database.engine import Database
from tests.support.http.axe import skip_without_axe, violations
from tests.support.http.fake_prefect import FakePrefect, serving
from tests.support.http.staff import PASSWORD
from tests.support.http.staff_site import staff_site
from tests.support.patience import PATIENCE

MOST_CLICKS = 6
ME = "me@shop.example"


class Marketer:
    """A page whose clicks are counted. Choosing and filling in count as a click each."""

    def __init__(self, page: Page, prefect: FakePrefect) -> None:
        self.page = page
        self.prefect = prefect
        self.clicks = 0

    def _click(self, what: Locator) -> None:
        self.clicks += 1
        what.first.click()

    def link(self, name: str) -> None:
        self._click(self.page.get_by_role("link", name=re.compile(name)))

    def button(self, name: str) -> None:
        self._click(self.page.get_by_role("button", name=re.compile(name)))

    def open(self, name: str) -> None:
        self._click(self.page.locator("summary", has_text=name))

    def first(self, selector: str) -> None:
        self._click(self.page.locator(selector))

    def choose(self, label: str, value: str) -> None:
        self.clicks += 1
        self.page.get_by_label(label).select_option(value)

    def fill(self, label: str, value: str) -> None:
        self.clicks += 1
        self.page.get_by_label(label).fill(value)

    def journey(self, name: str) -> None:
        self.link("^Journeys$")
        self.link(f"^{name}$")

    def sees(self, text: str) -> None:
        expect(self.page.locator("main")).to_contain_text(text)


def dry_run(m: Marketer) -> None:
    m.journey("win-back")
    m.link("Start, schedule")
    assert violations(m.page) == []
    m.choose("Who enters", "lapsed")
    m.button("Try it")
    m.sees("3 entered; 2 sent")
    assert m.prefect.last[2]["parameters"]["dry_run"] is True


def launch(m: Marketer) -> None:
    m.journey("win-back")
    m.link("Start, schedule")
    m.choose("Who enters", "lapsed")
    m.button("Start now")
    m.sees("Runs")
    asked = m.prefect.last[2]["parameters"]
    assert asked == {"audience": "lapsed", "limit": 0, "dry_run": False}


def tomorrow_at_nine(m: Marketer) -> None:
    m.journey("win-back")
    m.link("Start, schedule")
    m.open("Start later")
    m.fill("Day and time", "2026-03-03T09:00")
    m.button("^Schedule$")
    m.sees("Runs")
    when = m.prefect.last[2]["state"]["state_details"]["scheduled_time"]
    assert when == "2026-03-03T09:00:00Z"


def watch(m: Marketer) -> None:
    m.sees("Why not now")
    m.journey("win-back")
    m.sees("Messages sent")


def why_not(m: Marketer) -> None:
    m.link("^People$")
    m.first("main table a")
    m.sees("Never in it")
    m.sees("What would go now")


def pause_and_resume(m: Marketer) -> None:
    m.journey("welcome")
    m.button("^Pause$")
    m.sees("welcome is paused")
    m.link("Go on")
    m.button("^Resume$")
    m.sees("welcome is running")


def results(m: Marketer) -> None:
    m.journey("win-back")
    m.link("^Report$")
    for word in ("opened", "clicked", "converted", "revenue"):
        expect(m.page.locator("main")).to_contain_text(re.compile(word, re.IGNORECASE))


def arms(m: Marketer) -> None:
    m.journey("welcome")
    m.link("Experiment")
    m.sees("Arms")


def preview(m: Marketer) -> None:
    m.journey("win-back")
    m.first(".steps a:has-text('we_miss_you')")
    m.link("who entered last")
    expect(m.page.locator("iframe.message")).to_be_visible()


def send_a_test(m: Marketer) -> None:
    preview(m)
    m.choose("Send it as a test to", ME)
    m.button("Send a test")
    m.sees("The provider can’t be reached")  # no provider runs here
    assert violations(m.page) == []
    m.page.get_by_role("link", name="Go on").click()  # the task is done before
    expect(m.page.locator("iframe.message")).to_be_visible()


def segment_size(m: Marketer) -> None:
    m.link("^Segments$")
    m.sees("60")


def stop_everything(m: Marketer) -> None:
    m.button("Stop everything")
    m.button("Pause every journey")
    m.sees("Every journey is paused")


TASKS: tuple[Callable[[Marketer], None], ...] = (
    *(dry_run, launch, tomorrow_at_nine, watch, why_not, pause_and_resume, results, arms),
    *(preview, send_a_test, segment_size, stop_everything),
)


@pytest.fixture
def marketer(browser: Browser, _sqlite_template: Path, tmp_path: Path) -> Iterator[Marketer]:
    skip_without_axe()
    file = tmp_path / "segue.db"
    file.write_bytes(_sqlite_template.read_bytes())
    prefect = FakePrefect()
    with (
        closing(Database(f"sqlite:///{file}")) as db,
        serving(prefect) as api,
        staff_site(db, 60, prefect_api_url=api, testers={"email": (ME,)}) as site,
    ):
        context = browser.new_context(base_url=site, reduced_motion="reduce")
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        yield Marketer(page, prefect)
        context.close()


def test_each_task_takes_at_most_six_clicks(marketer: Marketer) -> None:
    page = marketer.page
    page.goto("/sign-in")
    page.get_by_label("Name").fill("zoe")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Today")).to_be_visible()
    clicks = {}
    for task in TASKS:
        page.goto("/")
        marketer.clicks = 0
        task(marketer)
        clicks[task.__name__] = marketer.clicks
    assert {name: number for name, number in clicks.items() if number > MOST_CLICKS} == {}
