"""Segments as data and in Python, segments of segments, and journeys that name them."""

from pathlib import Path

import pytest

from config.policy import Policy
from journeys.definition.catalog import Catalog, load_catalog, read_library
from journeys.dsl import attribute, did
from profiles.conditions.language import Condition, InSegment

POLICY = Policy.model_validate({"topics": {"news": "News"}})
DATA = """
[buyers]
description = "Bought something"
event = "order_completed"

[german-buyers]
description = "Bought something, and live in Germany"
all = [{ segment = "buyers" }, { attribute = "country", is = "DE" }, { segment = "rich" }]
"""
PYTHON = """
from journeys.dsl import Segment, attribute, in_segment

segments = [
    Segment("rich", "Spent a lot", attribute("ltv") > 200),
    Segment("poor", "All others who bought", in_segment("buyers") & ~in_segment("rich")),
]
"""
JOURNEY = """
from journeys.dsl import Journey, OnSegment, Split, Update, Wait, in_segment, when

journey = Journey("j", entry=OnSegment("german-buyers"), topic="news", steps=[
    Split("who", when(~in_segment("poor"), [Update("mark", seen=True)])),
    Wait("1d"),
])
"""


class Shop:
    """A library and the definitions beside it."""

    def __init__(self, folder: Path) -> None:
        self.library, self.definitions = folder / "library", folder
        (self.library / "j").mkdir(parents=True)
        self.write(DATA, PYTHON, JOURNEY)

    def write(self, data: str, python: str = PYTHON, journey: str = JOURNEY) -> None:
        (self.definitions / "segments.toml").write_text(data, encoding="utf-8")
        (self.library / "segments.py").write_text(python, encoding="utf-8")
        (self.library / "j" / "journey.py").write_text(journey, encoding="utf-8")

    def load(self) -> Catalog:
        return load_catalog(POLICY, self.library, self.definitions)

    def faults(self) -> list[str]:
        return [str(one) for one in read_library(POLICY, self.library, self.definitions)[1]]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


BOUGHT: Condition = did("order_completed")
RICH: Condition = attribute("ltv") > 200
POOR: Condition = InSegment(segment="buyers", condition=BOUGHT) & ~InSegment(
    segment="rich", condition=RICH
)


def test_segments_of_both_kinds_nest(shop: Shop) -> None:
    catalog = shop.load()
    assert list(catalog.segments) == ["everyone", "rich", "poor", "buyers", "german-buyers"]
    assert catalog.segment("poor").condition == POOR
    assert set(catalog.segment("german-buyers").condition.event_names()) == {"order_completed"}
    assert set(catalog.segment("german-buyers").condition.trait_names()) == {"country", "ltv"}


def test_a_version_keeps_the_conditions_of_its_segments(shop: Shop) -> None:
    before = shop.load().journey("j")
    assert list(before.journey.conditions()) == [~InSegment(segment="poor", condition=POOR)]
    shop.write(DATA.replace("order_completed", "paid"))
    after = shop.load().journey("j")
    assert after.digest != before.digest
    assert [set(one.event_names()) for one in after.journey.conditions()] == [{"paid"}]


def test_without_a_data_file_nothing_is_different(shop: Shop) -> None:
    (shop.definitions / "segments.toml").unlink()
    shop.write("", PYTHON.replace("buyers", "rich"), JOURNEY.replace("german-buyers", "rich"))
    assert list(shop.load().segments) == ["everyone", "rich", "poor"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("[a", "line 9: not valid TOML"),
        ("a = 3", "segment 'a': write a table: [a]"),
        ('[A]\ndescription = "x"\neveryone = true', "a name has lower-case letters"),
        ("[a]\neveryone = true", 'it needs description = "..."'),
        ('[a]\ndescription = "x"', "segment 'a': it says nothing that is a condition"),
        ('[rich]\ndescription = "x"\neveryone = true', "segments.py has a segment of this name"),
        (
            '[everyone]\ndescription = "x"\neveryone = true',
            "Segue itself has a segment of this name",
        ),
        (
            '[a]\ndescription = "x"\nsegment = "ritch"',
            "segment 'a': there is no segment 'ritch'; did you mean 'rich'? there are: a,",
        ),
        (
            '[a]\ndescription = "x"\nsegment = "a"',
            "segment 'a' is part of itself: a -> a; take one of these out of the other",
        ),
        (
            '[a]\ndescription = "x"\nsegment = "b"\n[b]\ndescription = "x"\nnot.segment = "c"\n'
            '[c]\ndescription = "x"\nany = [{ segment = "rich" }, { segment = "a" }]',
            "segment 'a' is part of itself: a -> b -> c -> a;",
        ),
    ],
)
def test_a_mistake_is_named_once(shop: Shop, data: str, says: str) -> None:
    shop.write(DATA + data if not data.startswith("a =") else data + DATA)
    faults = shop.faults()
    assert [says in one for one in faults] == [True], faults


def test_a_journey_names_a_segment_that_does_not_exist(shop: Shop) -> None:
    shop.write(DATA, journey=JOURNEY.replace('"poor"', '"pour"'))
    [fault] = shop.faults()
    assert fault.startswith("journey j, in_segment('pour'): there is no segment 'pour'; did you")


def test_every_mistake_of_a_file_is_found(shop: Shop) -> None:
    shop.write(DATA + '[a]\nevent = "x"\n[b]\ndescription = "x"\nevnt = "x"\n')
    assert len(shop.faults()) == 2
