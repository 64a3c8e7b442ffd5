"""The real files: one year of a shop's orders, imported unchanged."""

import csv
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import func, select

from config.clock.times import Instant, parse_instant
from config.database.engine import Database
from profiles.imports.importer import import_file
from profiles.sample.shop import load_sample_shop
from profiles.tables import consents, events, identifiers, profiles
from tests.support.proof import cases
from tests.support.shared_data import DATA, needs_orders
from tests.support.shop import House

NOW: Instant = 1_323_475_200  # 2011-12-10T00:00:00Z, the day after the last order

pytestmark = needs_orders


@pytest.mark.proof
def test_the_real_customers_and_orders_come_in_as_they_are(db: Database, tmp_path: Path) -> None:
    """`make test` takes one order in ten here, and all of them in tests/flows/cli/test_cli.py."""
    db.now = NOW
    # copied, so that a refused row would not write beside the originals
    shutil.copyfile(DATA / "customers.csv", tmp_path / "customers.csv")
    with (DATA / "orders.csv").open(encoding="utf-8", newline="") as file:
        head, *lines = file
    assert len(lines) == 22190
    lines = lines[:: cases(test=10, prove=1)]
    (tmp_path / "orders.csv").write_text("".join([head, *lines]), encoding="utf-8", newline="")
    orders = list(csv.DictReader([head, *lines]))

    people = import_file(db, tmp_path / "customers.csv")
    assert (people.read, people.created, people.refused) == (4372, 4372, 0)
    assert people.unknown_countries == {"Unspecified": 4, "European Community": 1}
    history = import_file(db, tmp_path / "orders.csv", as_event="order_completed")
    assert (history.read, history.created, history.refused) == (len(lines), len(lines), 0)
    assert history.profiles_created == 0

    with db.transaction(write=False) as tx:
        known = Counter(tx.conn.execute(select(identifiers.c.kind)).scalars())
        countries = Counter(tx.conn.execute(select(profiles.c.country)).scalars())
        said = Counter(
            tuple(row) for row in tx.conn.execute(select(consents.c.channel, consents.c.granted))
        )
        stored = tx.conn.execute(
            select(identifiers.c.value.label("user_id"), events)
            .join_from(events, identifiers, identifiers.c.profile_id == events.c.profile_id)
            .where(identifiers.c.kind == "user_id", events.c.worked_at.is_not(None))
        ).all()
    assert known == {"user_id": 4372, "email": 4372, "phone": 963, "push_token": 1774}
    assert (countries["GB"], countries["IE"], countries["ZA"], countries["JE"]) == (3950, 3, 1, 9)
    assert countries[None] == 5
    assert said == {
        ("email", True): 4156,
        ("email", False): 216,
        ("sms", True): 684,
    }
    in_file = {
        (row["customer_id"], row["invoice"]): (
            parse_instant(row["ordered_at"]),
            {
                "items": int(row["items"]),
                "total_gbp": float(row["total_gbp"]),
                "top_item": row["top_item"],
            },
        )
        for row in orders
    }
    assert {
        (row.user_id, row.dedupe_key): (row.occurred_at, row.properties) for row in stored
    } == in_file

    # again: nothing changes
    db.now = NOW + 60
    people = import_file(db, tmp_path / "customers.csv")
    assert (people.created, people.updated, people.unchanged) == (0, 0, 4372)
    history = import_file(db, tmp_path / "orders.csv", as_event="order_completed")
    assert (history.created, history.unchanged) == (0, len(lines))
    with db.transaction(write=False) as tx:
        assert tx.conn.execute(select(func.max(profiles.c.updated_at))).scalar_one() == NOW


@pytest.mark.proof
def test_orders_before_customers_give_the_same(db: Database, tmp_path: Path) -> None:
    shutil.copyfile(DATA / "customers.csv", tmp_path / "customers.csv")
    with (DATA / "orders.csv").open(encoding="utf-8") as file:
        lines = list(islice(file, 1 + cases(test=1000, prove=22190)))
    (tmp_path / "orders.csv").write_text("".join(lines), encoding="utf-8")
    customers = {one["customer_id"] for one in csv.DictReader(lines)}
    history = import_file(db, tmp_path / "orders.csv", as_event="order_completed")
    assert (history.created, history.profiles_created) == (len(lines) - 1, len(customers))
    people = import_file(db, tmp_path / "customers.csv")
    counts = people.created, people.updated, people.refused
    assert counts == (4372 - len(customers), len(customers), 0)


def test_the_shared_data_can_be_imported_into_the_sample_shop(
    sqlite_house: House, tmp_path: Path
) -> None:
    """No name or address of one is among those of the other, which no engine changes."""
    load_sample_shop(sqlite_house.db, NOW)
    shutil.copyfile(DATA / "customers.csv", tmp_path / "customers.csv")
    people = import_file(sqlite_house.db, tmp_path / "customers.csv")
    assert (people.created, people.refused) == (4372, 0)
