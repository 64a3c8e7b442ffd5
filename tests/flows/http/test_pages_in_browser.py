"""The customers' pages in a real browser: by keyboard, at phone width, without JavaScript."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from config.clock.times import DAY, HOUR
from flows.http.app import create_app
from flows.http.pages.texts import languages
from profiles.tables import preferences, profiles
from tests.support.http.page_customers import Shop
from tests.support.patience import PATIENCE

DESKTOP = ViewportSize(width=1100, height=800)
PHONE = ViewportSize(width=390, height=844)


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    # Our own scripts that measure still run.
    context = browser.new_context(viewport=request.param, java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    context.close()


@pytest.fixture
def site(small_shop: Shop) -> Iterator[str]:
    """The receiver on a port of its own, as the worker serves it."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(small_shop.house.segue, lambda _: None)
    config = uvicorn.Config(app, lifespan="off", ws="none", access_log=False, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


# Every text that can be seen against what lies behind it, and every control's edge.
FAINT = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => parts(color).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (parts(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const element of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(element);
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (says && element.checkVisibility() && element.tagName !== "OPTION") {
      const ratio = contrast(style.color, behind(element));
      if (ratio < 4.5) faint.push([element.tagName, element.textContent, ratio]);
    }
    if (["SELECT", "BUTTON"].includes(element.tagName)) {
      const ratio = contrast(style.borderTopColor, behind(element.parentElement));
      if (ratio < 3) faint.push([element.tagName, "edge", ratio]);
    }
  }
  return faint;
}"""


def is_fit(page: Page, language: str = "en") -> None:
    """Nothing too faint to read, nothing wider than the screen, nothing too small for a finger."""
    assert page.viewport_size is not None
    width = page.viewport_size["width"]
    assert page.locator("html").get_attribute("lang") == language
    assert page.evaluate(FAINT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for control in page.locator("select, button, .tick label").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= 44, control
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_unsubscribe(page: Page, small_shop: Shop, site: str) -> None:
    page.goto(site + small_shop.u())
    is_fit(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="You are unsubscribed")).to_be_visible()
    is_fit(page)
    assert small_shop.said()["email", "offers"] is False
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name="You are subscribed again")).to_be_visible()
    assert small_shop.said()["email", "offers"] is True
    expect(page.get_by_role("link")).to_have_count(0)


def focused(page: Page) -> str:
    """What the keyboard is at, by name; its focus has to show."""
    name, outline = page.evaluate(
        """() => {
          const at = document.activeElement;
          const label = at.labels && at.labels.length ? at.labels[0] : at;
          const style = getComputedStyle(at);
          return [label.textContent.trim(), [style.outlineStyle, parseFloat(style.outlineWidth)]];
        }"""
    )
    assert outline[0] == "solid", name
    assert outline[1] >= 2, name
    return str(name)


def firsts(page: Page) -> list[Locator]:
    """The first box of each channel."""
    return page.locator("fieldset .tick:first-of-type input").all()


def test_the_form_is_filled_in_by_keyboard_alone(page: Page, small_shop: Shop, site: str) -> None:
    page.goto(site + small_shop.p())
    is_fit(page)
    if page.viewport_size == DESKTOP:
        tops = {box["y"] for box in map(Locator.bounding_box, firsts(page)) if box}
        assert len(tops) == 1
    topics = ["News & <more>", "Offers", "Your orders"]
    way = [
        *topics,
        *topics,
        "No texts at all, not even about an order",
        *topics,
        "Most messages in a week",
        "From",
        "Until",
        "Your time zone",
        "Your language",
        "Save",
    ]
    typed = {
        "Most messages in a week": "2",
        "From": "10",
        "Until": "12",
        "Your time zone": "Japan",
        "Your language": "Deu",
    }
    for number, expected in enumerate(way):
        page.keyboard.press("Tab")
        assert focused(page) == expected
        if number in (4, 7):  # offers by text, news in the app
            page.keyboard.press("Space")
        if expected in typed:
            page.keyboard.type(typed[expected])
    page.keyboard.press("Enter")

    # in the language that was chosen
    expect(page.get_by_role("status")).to_contain_text("Gespeichert")
    assert page.title().startswith("Gespeichert")
    is_fit(page, "de")
    assert small_shop.said() == {
        ("email", "*"): True,
        ("sms", "*"): True,
        ("sms", "offers"): False,
        ("push", "news"): False,
    }
    [row] = small_shop.rows(preferences)
    assert (row.per_week, row.opens, row.closes) == (2, 10 * HOUR, 12 * HOUR)
    assert (row.timezone, row.language) == ("Asia/Tokyo", "de")


def test_the_pages_fit_in_every_language(page: Page, small_shop: Shop, site: str) -> None:
    for language in languages()[1:]:
        with small_shop.house.db.transaction() as tx:
            tx.conn.execute(profiles.update().values(language=language))
        for path in (small_shop.p(), small_shop.u()):
            page.goto(site + path)
            is_fit(page, language)


def test_every_field_is_found_by_its_label(page: Page, small_shop: Shop, site: str) -> None:
    page.goto(site + small_shop.p())
    for channel in ("E-mail", "Text messages", "App notifications"):
        group = page.get_by_role("group", name=channel)
        assert group.get_by_role("checkbox", name="Offers").is_checked()
    page.get_by_role("group", name="E-mail").get_by_label("Offers").uncheck()
    page.get_by_role("checkbox", name="No texts at all").check()
    hours = page.get_by_role("group", name="Best time of day")
    hours.get_by_role("combobox", name="From").select_option("20:00")
    page.get_by_role("combobox", name="Your time zone").select_option(label="Germany, Berlin")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert small_shop.said() == {
        ("email", "*"): True,
        ("email", "offers"): False,
        ("sms", "*"): False,
    }
    assert small_shop.rows(preferences)[0].closes == DAY
    page.get_by_role("button", name="Stop everything").click()
    expect(page.get_by_role("status")).to_contain_text("Everything is stopped")
    assert page.get_by_role("checkbox", checked=True).count() == 1  # no texts at all


def test_a_mistake_leads_to_its_field(page: Page, small_shop: Shop, site: str) -> None:
    page.goto(site + small_shop.p())
    page.get_by_label("From").select_option("10:00")
    page.get_by_label("Until").select_option("10:00")
    page.get_by_label("Your language").select_option("it")
    italian = page.get_by_label("Your language").locator("option", has_text="Italiano")
    assert italian.get_attribute("lang") == "it"
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_be_focused()
    is_fit(page)
    assert page.title().startswith("Not saved")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    until = page.get_by_label("Until")
    expect(until).to_be_focused()
    expect(until).to_have_accessible_description("Choose an end that is later than 10:00.")
    assert until.get_attribute("aria-invalid") == "true"
    until.select_option("12:00")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert small_shop.rows(preferences)[0].closes == 12 * HOUR
    assert small_shop.rows(preferences)[0].language == "it"


def test_a_page_without_a_form(page: Page, site: str) -> None:
    page.goto(site + "/u/none")
    expect(page.get_by_role("heading", name="This link does not work")).to_be_visible()
    is_fit(page)


def test_no_script_runs_and_nothing_is_loaded_from_anywhere(
    browser: Browser, small_shop: Shop, site: str
) -> None:
    small_shop.house.change(small_shop.ann, first_name="<script>")
    hostile = {"language": "</option><script>document.title=1</script>"}
    with small_shop.house.db.transaction() as tx:
        tx.conn.execute(profiles.update().values(hostile))
        own = preferences.insert().values(profile_id=small_shop.ann, changed_at=0)
        tx.conn.execute(own.values(hostile))
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(site + small_shop.p())
    assert page.title() == "What you get, and when · The Shop"
    languages = page.get_by_label("Your language").locator("option").all_inner_texts()
    assert all("</option><script>" in one for one in languages[:2])
    page.get_by_role("button", name="Save").click()
    assert {url for url in asked if not url.startswith("data:")} == {site + small_shop.p()}
    assert complaints == []
    page.close()
