"""The staff site in a real browser: accessible, light and dark, wide and narrow, by keyboard."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import ViewportSize as Size

from config.database.engine import Database
from tests.support.http.axe import skip_without_axe, violations
from tests.support.http.staff import PASSWORD
from tests.support.http.staff_site import staff_site
from tests.support.patience import PATIENCE

WIDE, PHONE = Size(width=1280, height=900), Size(width=390, height=844)
MAIL = "/journeys/win-back/message?step=we+miss+you&member=email%3Awe_miss_you"
# Those that look different without customers, and the others.
PAGES = (
    *("/", "/people", "/journeys/win-back", MAIL, "/segments/lapsed", "/approvals"),
    *("/yardstick", "/journeys/win-back/report", "/journeys/welcome/experiment?step=which+nudge"),
)
ONLY_WITH_PEOPLE = (
    *("/stop", "/journeys", "/journeys/welcome", "/segments", "/staff", "/password", "/account"),
    "/personas",
    *("/people/1", f"{MAIL}&person=1"),
    *("/journeys/win-back/people?step=we+miss+you", "/journeys/win-back/stop"),
)


@pytest.fixture(scope="module", params=["people", "nobody"])
def site(
    request: pytest.FixtureRequest, _sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """With the sample shop after a launch, or without customers."""
    file = tmp_path_factory.mktemp("staff") / "segue.db"
    file.write_bytes(_sqlite_template.read_bytes())
    customers = 60 if request.param == "people" else 0
    with closing(Database(f"sqlite:///{file}")) as db, staff_site(db, customers) as url:
        yield f"{url}#{request.param}"


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    skip_without_axe()
    # Without motion: colours change at once, not over a fifth of a second.
    context = browser.new_context(
        viewport=WIDE, base_url=site.partition("#")[0], reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    context.close()


def test_every_page_is_accessible_and_fits(page: Page, site: str) -> None:
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto("/")
    assert violations(page) == []
    # By keyboard alone: the focus is in the first field.
    page.keyboard.type("zoe")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Today")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    with_people = site.endswith("#people")
    for path in PAGES + (ONLY_WITH_PEOPLE if with_people else ()):
        page.set_viewport_size(WIDE)
        page.emulate_media(color_scheme="light")
        page.goto(path)
        expect(page.locator("h1")).to_have_count(1)
        assert violations(page) == [], path
        if with_people:
            page.emulate_media(color_scheme="dark")
            assert violations(page, "color-contrast") == [], path
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        for control in page.locator("button:visible, [role=button]:visible").all():
            box = control.bounding_box()
            assert box is not None
            assert box["height"] >= 32, (path, control)
    assert errors == []


def test_an_editor_stops_everything_and_resumes(page: Page, site: str) -> None:
    page.goto("/sign-in")
    page.get_by_label("Name").fill("zoe")
    page.get_by_label("Password").fill("wrong password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name=re.compile("Stop everything")).click()
    page.get_by_role("button", name="Pause every journey").click()
    expect(page.get_by_role("status")).to_contain_text("Every journey is paused")
    page.get_by_role("link", name="Go on").click()
    page.get_by_role("link", name="win-back").first.click()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_contain_text("win-back is running")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
