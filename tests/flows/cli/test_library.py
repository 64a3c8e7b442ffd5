"""`segue journeys`, `segue segments` and `segue --version`."""

import orjson
from typer.testing import CliRunner

from flows.cli.main import app
from journeys.dsl import Email, Send, Wait
from journeys.operations.control import pause
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


def test_the_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.stdout.startswith("segue 0.")
