"""A report as text, and its plot, which can be read on a wide screen and on a phone."""

from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from config.clock.times import MINUTE
from journeys.analytics.reports import views
from journeys.analytics.reports.figures import By, Delays, Figures, JourneyReport
from journeys.analytics.reports.period import ReportPeriod
from tests.support.shop import MONDAY


def mails(sent: int, *, complained: int = 0, gmail: int = 0, key: str = "others") -> Figures:
    counts = Counter({("sent", "email"): sent, ("complained", "email"): complained})
    return Figures(key=key, counts=counts, unreported=gmail)


def a_report(by: By, groups: list[Figures]) -> JourneyReport:
    total = Figures(key="", entered=2_000, active=5, goals=30)
    for one in groups:
        total.add(one)
    return JourneyReport(
        journey="win-back",
        by=by,
        period=ReportPeriod(first=None, last=None, zone="Europe/London"),
        launch=None,
        counted_at=MONDAY,
        first_entry=MONDAY,
        currency="GBP",
        goal=None,
        total=total,
        groups=groups,
        channels=[],
        steps=[],
        ended=Counter(),
        links=[],
        mailboxes=[],
        outcomes=Counter(),
        delays=[],
        method=[],
        notes=[],
        empty="",
    )


def step(name: str, channel: str, **counts: int) -> Figures:
    found = Counter({(measure, channel): number for measure, number in counts.items()})
    return Figures(key=name, part=channel, counts=found)


STEPS = a_report(
    "step",
    [
        step("we miss you", "email", sent=1_900, opened=800, clicked=120, converted=30),
        step("we miss you", "sms", sent=420, converted=9),
        step("a last word for those who stay away", "email", sent=1_500, opened=300, clicked=22),
    ],
)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (mails(0), "no mails"),
        (mails(20_000, complained=19), "19 (0.10%): below 0.1%"),
        (mails(20_000, complained=20), "20 (0.10%): at or above 0.1%; stay below it"),
        (mails(20_000, complained=60), "60 (0.30%): at or above 0.3%, where mails are refused"),
        (mails(30_000, complained=60, gmail=10_000), "60 (0.30%): at or above 0.3%, where mails"),
        (mails(999, complained=1), "(in fewer than 1,000 mails one complaint is enough)"),
        (mails(500, gmail=500, key="Gmail"), "not known: Gmail shows them in its Postmaster Tools"),
    ],
)
def test_complaints_are_compared_with_the_limits(figures: Figures, words: str) -> None:
    assert words in views.complaints(figures)


def test_delays_are_those_that_half_95_of_100_and_all_do_not_exceed() -> None:
    delays = Delays("email", Counter({10: 50, 60: 45, 600: 5}), 2)
    assert [delays.quantile(part) // MINUTE for part in (0.5, 0.51, 0.95, 1)] == [10, 60, 60, 600]


def test_the_headline_has_no_0_for_what_nobody_reports() -> None:
    texts = a_report("step", [step("hello", "sms", sent=5)])
    assert views.headline(texts) == ("2,000 entered; 5 sent; not known opened; not known clicked")


def test_the_same_figures_give_the_same_plot() -> None:
    assert views.plot(STEPS) == views.plot(STEPS)
    many = a_report("week", [step(f"2026-{week:02}", "email", sent=week) for week in range(1, 30)])
    assert "the last 12 of 29" in views.plot(many)


@pytest.mark.parametrize("width", [1280, 390])
def test_no_text_of_the_plot_is_cut_off(browser: Browser, tmp_path: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_content(f"<style>svg {{ max-width: 100%; height: auto }}</style>{views.plot(STEPS)}")
    page.screenshot(path=tmp_path / f"{width}.png")
    whole = page.locator("svg").bounding_box()
    assert whole is not None
    assert whole["width"] <= width
    texts = page.locator("svg text").all()
    assert len(texts) > 15
    for text in texts:
        box = text.bounding_box()
        assert box is not None
        assert box["x"] >= whole["x"] - 1
        assert box["x"] + box["width"] <= whole["x"] + whole["width"] + 1
        assert box["y"] + box["height"] <= whole["y"] + whole["height"] + 1
    page.close()
