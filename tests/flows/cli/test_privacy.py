"""What a person may ask for, on the command line."""

import orjson

from journeys.dsl import Email, Send
from tests.support.commands import Segue
from tests.support.shop import House, described
from tests.support.worlds.personal import tables_of


def test_a_person_is_erased_after_a_dry_run(house: House, segue: Segue) -> None:
    house.open(described(Send("hello", Email("hello"))))
    ann = house.customer("ann")
    house.launch("j")
    before = tables_of(house.db, ann)
    said = segue("erase", "ann@example.com", "--dry-run")
    assert said.status == 0
    assert "nothing was changed" in said.out
    for table in ("profile", "identifier", "message", "enrollment"):
        assert table in said.out
    planned = orjson.loads(segue("erase", "ann", "--dry-run", "--json").out)
    assert planned["erased"] is False
    assert planned["rows"]["identifier"] == 4
    assert tables_of(house.db, ann) == before
    done = orjson.loads(segue("erase", "ann", "--json", "--by", "zoe").out)
    assert done == {**planned, "erased": True}
    assert tables_of(house.db, ann) == set()
    again = segue("erase", "ann")
    assert again.status == 1
    assert "no customer has the identifier 'ann'" in again.err
    house.customer("bob")
    assert "erased." in segue("erase", "bob").out
