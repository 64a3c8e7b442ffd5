"""`segue journeys`, `segue segments` and `segue --version`."""

import orjson
from typer.testing import CliRunner

from config.clock.zones import zone
from flows.cli.main import app
from journeys.dsl import Email, Segment, Send, Wait, attribute
from journeys.operations.control import pause
from journeys.operations.segment_counts import count_segments
from tests.support.commands import Segue
from tests.support.shop import House, described


def test_journeys_with_their_state_and_people(house: House, segue: Segue) -> None:
    other = described(Wait("1d"), name="other")
    house.open(described(Send("hello", Email("hello")), Wait("1d")), other)
    house.customer("ann")
    house.launch("j")
    pause(house.db, "other")
    listed = orjson.loads(segue("journeys", "--json").out)["journeys"]
    assert [(one["journey"], one["state"], one["active"]) for one in listed] == [
        ("j", "running", 1),
        ("other", "paused", 0),
    ]
    assert "paused" in segue("journeys").out


def test_segments_with_their_sizes(house: House, segue: Segue) -> None:
    house.open(described(Wait("1d")))
    house.customer("ann")
    [everyone] = orjson.loads(segue("segments", "--json").out)["segments"]
    assert everyone == {"segment": "everyone", "people": 1, "description": "Every customer"}
    assert "everyone" in segue("segments").out


def test_one_segment_with_its_people_and_days(house: House, segue: Segue) -> None:
    rich = Segment("rich", "Spent a lot", attribute("ltv") > 200)
    house.open(described(Wait("1d")), segments={"rich": rich})
    for number in range(12):
        house.customer(attributes={"ltv": 300, "first_name": f"Name{number}", "last_name": "Mill"})
    count_segments(house.db, [rich], zone("UTC"))
    house.later("1d")
    house.customer(attributes={"ltv": 201})
    count_segments(house.db, [rich], zone("UTC"))
    shown = orjson.loads(segue("segments", "rich", "--json").out)
    assert shown["people"] == 13
    assert shown["condition"] == "attribute ltv > 200"
    assert len(shown["some"]) == 10
    assert shown["some"][0]["name"] == "Name0 M."
    assert "…" in shown["some"][0]["email"]
    assert shown["days"] == [
        {"day": "2026-03-03", "people": 13},
        {"day": "2026-03-02", "people": 12},
    ]
    text = segue("segments", "rich").out
    assert "2026-03-03" in text
    assert "c1@example.com" not in text
    wrong = segue("segments", "ritch")
    assert wrong.status == 1
    assert "did you mean 'rich'?" in wrong.err


def test_the_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.stdout.startswith("segue 0.")
