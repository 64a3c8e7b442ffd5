"""`personas.toml`: the order of the personas, and what is said of wrong ones."""

from pathlib import Path

import pytest

from config.policy import Policy
from journeys.definition.catalog import read_library
from journeys.definition.persona_file import read_personas
from journeys.dsl import Segment, attribute, everyone
from profiles.conditions.language import InSegment

RICH = Segment("rich", "Spent a lot", attribute("ltv") > 200)
OTHERS = '[[personas]]\nname = "others"\ndescription = "All others"\neveryone = true\n'
FIRST = '[[personas]]\nname = "champions"\ndescription = "Rich"\nsegment = "rich"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "personas.toml"


def test_personas_are_read_in_their_order(file: Path) -> None:
    assert read_personas(file, {}) == ([], [])
    file.write_text(FIRST + OTHERS)
    found, faults = read_personas(file, {"rich": RICH})
    assert faults == []
    assert found == [
        Segment("champions", "Rich", InSegment(segment="rich", condition=RICH.condition)),
        Segment("others", "All others", everyone()),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[personas", "not valid TOML"),
        ('[personas]\nname = "a"', "write each persona as [[personas]]"),
        ("[[persona]]\n", "write each persona as [[personas]]"),
        ('[[personas]]\ndescription = "d"\neveryone = true', 'persona 1: it needs name = "..."'),
        ('[[personas]]\nname = "A"\ndescription = "d"\neveryone = true', "lower-case letters"),
        ('[[personas]]\nname = "a"\neveryone = true', 'it needs description = "..."'),
        ('[[personas]]\nname = "a"\ndescription = "d"', "says nothing that is a condition"),
        (FIRST.replace('"rich"', '"ritch"') + OTHERS, "'champions': there is no segment 'ritch'"),
        (FIRST, "the last persona takes everybody else; end with one that has everyone = true"),
        (OTHERS + FIRST + OTHERS.replace("others", "rest"), "nobody reaches the personas after"),
        (OTHERS + OTHERS, "the persona 'others' is defined twice"),
    ],
)
def test_a_mistake_is_named(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    [fault] = read_personas(file, {"rich": RICH})[1]
    assert says in str(fault)


def test_the_library_has_them(tmp_path: Path) -> None:
    (tmp_path / "personas.toml").write_text(
        FIRST.replace('segment = "rich"', 'trait = "orders"\nabove = 2') + OTHERS
    )
    catalog, faults = read_library(Policy(), tmp_path, tmp_path)
    assert [one.name for one in catalog.personas] == ["champions", "others"]
    [fault] = faults
    assert str(fault).startswith("persona 'champions': there is no computed trait 'orders'")
