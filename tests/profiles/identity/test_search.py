"""Staff find a customer by any spelling, or by the start of an identifier."""

import pytest

from profiles.attributes.names import full_name
from profiles.identity.search import FOUND_AT_MOST, find_profiles, newest_profiles, summaries
from tests.support.shop import House


def test_any_spelling_finds_the_customer(house: House) -> None:
    ann = house.customer("Ann.Smith", attributes={"first_name": "Ann", "last_name": "Smith"})
    bob = house.customer("bob", country="GB", phone=None, push_tokens={})
    with house.db.transaction() as tx:
        for text in (
            *("ann.smith@example.com", "  ANN.SMITH@Example.COM ", "Ann.Smith"),
            *("+447700900001", "+44 7700 900001", "00447700900001", "token-Ann.Smith"),
            *("ann.s", "ANN.SMITH@"),
        ):
            assert find_profiles(tx, text) == [ann], text
        for text in ("", "an", "zoe", "%", "___", "undefined"):
            assert find_profiles(tx, text) == [], text
        assert newest_profiles(tx, 1) == [bob]
        found = summaries(tx, [bob, 999, ann])
        assert [(one.id, one.name, one.email, one.phone, one.country) for one in found] == [
            (bob, "", "bob@example.com", "", "GB"),
            (ann, "Ann Smith", "ann.smith@example.com", "+447700900001", ""),
        ]
        assert [one.user_id for one in found] == ["bob", "Ann.Smith"]


def test_the_start_of_an_address_finds_some(house: House) -> None:
    made = [house.customer(f"many{number:02}") for number in range(FOUND_AT_MOST + 1)]
    with house.db.transaction() as tx:
        assert find_profiles(tx, "MANY") == made[:-1]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"name": "Ann", "first_name": "A"}, "Ann"),
        ({"first_name": "Ann", "last_name": "Smith"}, "Ann Smith"),
        ({"firstName": "Ann"}, "Ann"),
        ({"last_name": None}, ""),
    ],
)
def test_a_name_is_read_from_the_usual_attributes(attributes: dict[str, str], name: str) -> None:
    assert full_name(attributes) == name
