"""The sample shop: complete, plausible, reproducible, and without real data."""

from collections import Counter

import phonenumbers
import pytest
from sqlalchemy import select

from config.clock.times import DAY, Instant
from config.clock.zones import zone_names
from config.database.engine import Database
from config.policy import load_policy
from config.settings import load_settings
from profiles.attributes.countries import country_code
from profiles.sample.data import PLACES, fiction_numbers
from profiles.sample.shop import load_sample_shop
from profiles.tables import consents, events, identifiers, profiles

NOW: Instant = 1_790_000_000  # a Monday in September 2026
SIZE = 600


def test_the_shop_has_consistent_data(db: Database) -> None:
    db.now = NOW
    counts = load_sample_shop(db, NOW, SIZE)
    assert counts["customers"] == counts["signed_up"] == SIZE
    assert counts["cart_viewed"] > counts["cart_abandoned"] > 0
    with db.transaction(write=False) as tx:
        people = tx.conn.execute(select(profiles)).all()
        history = tx.conn.execute(select(events)).all()
        known = tx.conn.execute(select(identifiers)).all()
        said = tx.conn.execute(select(consents)).all()
    assert len(people) == SIZE
    assert Counter(row.name for row in history) == {
        name: number for name, number in counts.items() if name != "customers"
    }

    # history only: all of it past, none of it for journeys to react to
    assert all(row.occurred_at < NOW and row.worked_at == NOW for row in history)
    orders = [row for row in history if row.name == "order_completed"]
    assert min(row.occurred_at for row in orders) >= NOW - 366 * DAY
    assert all(row.occurred_at >= NOW - 5 * DAY for row in history if row.name.startswith("cart_"))
    buyers = {row.profile_id for row in orders}
    lately = {row.profile_id for row in orders if row.occurred_at > NOW - 90 * DAY}
    assert len(buyers - lately) > SIZE / 10  # whom to win back
    spent: Counter[int] = Counter()
    for row in orders:
        spent[row.profile_id] += row.properties["total_gbp"]
    for person in people:
        assert person.attributes["lifetime_value"] == pytest.approx(spent[person.id], abs=0.01)

    cart = next(row for row in history if row.name == "cart_abandoned").properties
    assert cart["url"].startswith("https://shop.example/")
    assert cart["total"] == pytest.approx(sum(i["price"] * i["quantity"] for i in cart["items"]))

    assert {row.country for row in people} == {place.country for place in PLACES} | {None}
    assert {row.timezone for row in people} - {None} <= zone_names()
    assert {row.platform for row in known if row.kind == "push_token"} == {"ios", "android", "web"}
    phones = sum(row.kind == "phone" for row in known)
    opted_in = sum(row.channel == "sms" and row.granted for row in said)
    assert 0.35 < opted_in / phones < 0.55
    assert {(row.channel, row.granted) for row in said} == {
        ("email", True),
        ("email", False),
        ("sms", True),
        ("sms", False),
        ("push", False),
    }


def test_the_same_seed_and_moment_give_the_same_shop(db: Database) -> None:
    db.now = NOW
    counts = load_sample_shop(db, NOW, 60)
    with db.transaction(write=False) as tx:
        before = [tx.conn.execute(select(table)).all() for table in (profiles, events, consents)]
    assert load_sample_shop(db, NOW, 60) == counts
    with db.transaction(write=False) as tx:
        after = [tx.conn.execute(select(table)).all() for table in (profiles, events, consents)]
    assert after == before


def test_another_seed_gives_another_shop(db: Database) -> None:
    assert load_sample_shop(db, NOW, 60, seed=2) != load_sample_shop(db, NOW, 60, seed=3)


def test_all_topics_are_those_of_the_policy(db: Database) -> None:
    load_sample_shop(db, NOW, SIZE)
    with db.transaction(write=False) as tx:
        topics = set(tx.conn.execute(select(consents.c.topic)).scalars())
    assert topics - {"*"} <= set(load_policy(load_settings().policy_file).topics)


def test_the_shop_uses_no_common_test_numbers(db: Database) -> None:
    """A file of test customers can be imported into the sample shop."""
    load_sample_shop(db, NOW, SIZE)
    with db.transaction(write=False) as tx:
        taken = set(tx.conn.execute(select(identifiers.c.value)).scalars())
    assert not any(value.startswith("+447700900") for value in taken)


@pytest.mark.parametrize("country", [place.country for place in PLACES])
def test_numbers_are_possible_each_once_and_of_their_country(country: str) -> None:
    assert country_code(country) == country
    numbers = list(fiction_numbers(country))
    assert len(set(numbers)) == len(numbers)
    for number in numbers[:: len(numbers) // 50 or 1]:
        parsed = phonenumbers.parse(number)
        assert phonenumbers.is_possible_number(parsed)
        calling_code = phonenumbers.country_code_for_region(country)
        assert parsed.country_code == calling_code
