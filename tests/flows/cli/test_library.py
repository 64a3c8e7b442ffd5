"""`segue journeys`, `segue segments` and `segue --version`."""

import orjson
from typer.testing import CliRunner

from config.clock.zones import zone
from flows.cli.main import app
from journeys.dsl import Email, Segment, Send, Wait, attribute, everyone
from journeys.operations.control import pause
from journeys.operations.segment_counts import count_segments
from profiles.computed.definitions import ComputedTraits, EventTrait
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
    assert shown["some"][0]["email"] == "c…@example.com"
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


def test_the_computed_traits_and_their_people(house: House, segue: Segue) -> None:
    since = EventTrait(name="since", description="Days", measure="days_since", event="ordered")
    house.open(described(Wait("1d")), traits=ComputedTraits([since]))
    house.did(house.customer("ann"), "ordered")
    house.customer("bob")
    first, second = (
        orjson.loads(segue("traits", *options, "--json").out)["traits"]
        for options in ((), ("--now",))
    )
    assert first == [{"trait": "since", "people": 0, "description": "Days"}]
    assert second == [{"trait": "since", "people": 1, "description": "Days"}]


def test_without_traits_the_command_says_where_to_define_them(house: House, segue: Segue) -> None:
    house.open(described(Wait("1d")))
    assert "traits.toml defines them" in segue("traits").out


def test_the_personas(house: House, segue: Segue) -> None:
    rich = Segment("rich", "Spent a lot", attribute("ltv") > 200)
    rest = Segment("rest", "All others", everyone())
    house.open(described(Wait("1d")), personas=[rich, rest])
    house.customer(attributes={"ltv": 300})
    house.customer()
    assert segue("personas", "--now").status == 0
    assert orjson.loads(segue("personas", "--json").out) == {
        "personas": [
            {"persona": "rich", "people": 1, "journeys": {}, "description": "Spent a lot"},
            {"persona": "rest", "people": 1, "journeys": {}, "description": "All others"},
        ],
        "moves": [],
    }
    assert "All others" in segue("personas").out


def test_without_personas_the_command_says_where_to_define_them(house: House, segue: Segue) -> None:
    house.open(described(Wait("1d")))
    assert "personas.toml defines them" in segue("personas").out


def test_the_audit_of_data(house: House, segue: Segue) -> None:
    house.open(described(Wait("1d")))
    assert "nothing is collected yet" in segue("audit-data").out
    house.customer(attributes={"shoe_size": 42})
    assert orjson.loads(segue("audit-data", "--unread", "--json").out)["data"] == [
        {
            "kind": "attribute",
            "name": "shoe_size",
            "number": 1,
            "newest": "2026-03-02T10:00:00Z",
            "read_by": [],
        }
    ]
    assert "shoe_size" in segue("audit-data").out


def test_the_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.stdout.startswith("segue 0.")
