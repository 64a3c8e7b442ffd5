"""`traits.toml`: its forms, and what is said of wrong ones."""

from pathlib import Path

import pytest

from config.clock.times import DAY
from journeys.dsl import prop
from profiles.computed.definitions import EventTrait, QuantileTrait, read_traits

GOOD = """
[traits.spent_year]
description = "Spent within a year"
sum = "order_completed"
property = "total"
within = "365d"
where = [{ property = "status", is = "paid" }]

[traits.money]
description = "By spending, 5 is best"
quantile = "spent_year"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "traits.toml"


def test_traits_are_read(file: Path) -> None:
    file.write_text(GOOD)
    traits, faults = read_traits(file)
    assert faults == []
    assert traits.all == {
        "spent_year": EventTrait(
            name="spent_year",
            description="Spent within a year",
            measure="sum",
            event="order_completed",
            property="total",
            within="365d",
            where=(prop("status") == "paid",),
        ),
        "money": QuantileTrait(
            name="money", description="By spending, 5 is best", quantile="spent_year"
        ),
    }
    assert traits.of_events["spent_year"].within == 365 * DAY


def test_without_a_file_there_are_none(file: Path) -> None:
    traits, faults = read_traits(file)
    assert not traits
    assert faults == []


def test_the_digest_follows_what_decides_the_values(file: Path) -> None:
    digests = []
    for text in (GOOD, GOOD.replace("within a year", "in a year"), GOOD.replace("365d", "30d")):
        file.write_text(text)
        digests.append(read_traits(file)[0].of_events["spent_year"].digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[traits", "line 12: not valid TOML"),
        ('[orders]\ncount = "a"', "there is no 'orders'; write each trait as [traits.NAME]"),
        ('[traits.Orders]\ncount = "a"', "a name has lower-case letters"),
        ('[traits.a]\ndescription = "d"', "write one of count, sum"),
        ('[traits.a]\ndescription = "d"\ncuont = "a"', "did you mean 'count'?"),
        ('[traits.a]\ndescription = "d"\ncount = "a"\nsum = "a"', "write one of count, sum"),
        ('[traits.a]\ncount = "a"', "description: it is needed"),
        (
            '[traits.a]\ndescription = "d"\ncount = "a"\nwihtin = "3d"',
            "it has no 'wihtin'; did you mean 'within'?",
        ),
        (
            '[traits.a]\ndescription = "d"\ncount = "a"\nproperty = "x"',
            "count looks at the events; leave property out",
        ),
        ('[traits.a]\ndescription = "d"\nsum = "a"', 'add property = "total"'),
        (
            '[traits.a]\ndescription = "d"\nsum = "a"\nproperty = "items[].price"',
            "names several values; name one",
        ),
        ('[traits.a]\ndescription = "d"\ncount = "a"\nwithin = "soon"', "not a duration"),
        (
            '[traits.a]\ndescription = "d"\ncount = "a"\nwhere = [{ property = "x" }]',
            "'x' is compared with nothing",
        ),
        (
            '[traits.a]\ndescription = "d"\nquantile = "spent_yaer"',
            "there is no trait 'spent_yaer' with numbers; did you mean 'spent_year'?",
        ),
        (
            '[traits.a]\ndescription = "d"\nquantile = "spent_year"\ngroups = 1',
            "it must be at least 2",
        ),
    ],
)
def test_a_mistake_is_named(file: Path, text: str, says: str) -> None:
    file.write_text(GOOD + text)
    [fault] = read_traits(file)[1]
    assert says in str(fault)
    assert str(fault).startswith(str(file))
