"""The examples of docs/journeys/steps.md do what the page says."""

import re
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import select

from config.clock.times import parse_duration
from config.clock.zones import format_local
from config.settings import ROOT
from journeys.definition import steps
from journeys.definition.journey import LaunchEntry, ScheduleEntry
from journeys.dsl import Journey, Segment
from journeys.tables import passages
from tests.support.shop import MONDAY, House, described

PAGE = (ROOT / "docs" / "journeys" / "steps.md").read_text(encoding="utf-8")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)


class Example(NamedTuple):
    step: str
    code: str
    told: list[str]


def examples() -> list[Example]:
    found: list[Example] = []
    for section in PAGE.split("\n## ")[1:]:
        code = ""
        for kind, text in _BLOCK.findall(section):
            if kind == "python":
                code = text
            else:
                found.append(Example(section.partition("\n")[0], code, text.splitlines()))
    return found


def at(line: str) -> int:
    """The instant of a line such as `Mon 15:00  ...`."""
    day, clock = line.split()[:2]
    hour, minute = clock.split(":")
    midnight = MONDAY - parse_duration("10h")
    return midnight + DAYS.index(day) * parse_duration("1d") + int(hour) * 3600 + int(minute) * 60


def clock(moment: int) -> str:
    """The instant as the page writes it: `Mon 15:00`."""
    day, _, hour, _ = format_local(moment, "Europe/London").split()
    return f"{day} {hour}"


def told(house: House, ann: int, journey: str) -> list[str]:
    """What happened to her, in the order of time."""
    graph = list(house.segue.catalog.journey(journey).journey.graph)
    found = [
        (row.send_at, graph.index(row.step), 0, f"{row.channel} {row.step} {row.state}")
        for row in house.rows(ann)
        if row.journey == journey
    ]
    with house.db.transaction(write=False) as tx:
        found += [
            (row.at, graph.index(row.step), 1, f"{row.step}: {row.outcome}")
            for row in tx.conn.execute(select(passages))
            if row.journey == journey
        ]
    for one in house.people(ann):
        if one.journey != journey:
            found.append((one.entered_at, len(graph), 0, f"{one.journey} begins"))
    return [f"{clock(moment)}  {text}" for moment, *_, text in sorted(found)]


@pytest.mark.parametrize("example", examples(), ids=lambda one: one.step)
def test_an_example_does_what_the_page_says(
    sqlite_house: House, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGUE_CALL_HOSTS", '["crm.shop.test"]')
    house = sqlite_house
    defined: dict[str, Any] = {}
    exec(example.code, defined)
    journey: Journey = defined["journey"]
    house.providers.hosts["crm.shop.test"] = lambda _: httpx.Response(204)
    segments = {one.name: one for one in defined.values() if isinstance(one, Segment)}
    house.open(journey, described(*journey.steps, name="welcome"), segments=segments)
    ann = house.customer("ann", attributes={"lifetime_value": 250, "renewal": "2026-03-06"})
    house.run()
    if isinstance(journey.entry, ScheduleEntry):
        house.launch(journey.name, journey.entry.segment)
    elif isinstance(journey.entry, LaunchEntry):
        house.launch(journey.name)
    events = [line for line in example.told if " event " in line]
    for line in events:
        house.until(at(line))
        house.did(ann, line.split()[-1], cart_id="c-9")
    house.until(MONDAY + parse_duration("6d"))
    assert told(house, ann, journey.name) == [line for line in example.told if line not in events]


def test_the_page_shows_every_step() -> None:
    kinds = {
        name.removesuffix("Step")
        for name, one in vars(steps).items()
        if isinstance(one, type) and name.endswith("Step") and not name.startswith("_")
    }
    assert {example.step for example in examples()} == kinds | {"Entries"}
