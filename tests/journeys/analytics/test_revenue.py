"""Revenue is the exact sum of orders in one currency; all others are counted apart."""

from random import Random
from typing import Any

import pytest

from config.clock.times import DAY, Instant
from config.database.engine import Database
from config.errors import SegueError
from config.settings import load_settings
from journeys.analytics.revenue import RevenueMapping, in_currency, read_orders
from profiles.events import NewEvent, record_events

NOW: Instant = 1_780_000_000
SHOP = RevenueMapping(event="order", amount="total", currency_property="", currency="EUR")
MANY = SHOP._replace(amount="totals.gross", currency_property="currency")


def record(db: Database, *orders: tuple[int, Instant, dict[str, Any]], name: str = "order") -> None:
    """Record events of these profiles at these times."""
    events = [
        NewEvent(
            profile_id=profile_id,
            name=name,
            occurred_at=at,
            dedupe_key=f"{name} {number}",
            properties=properties,
        )
        for number, (profile_id, at, properties) in enumerate(orders)
    ]
    with db.transaction() as tx:
        record_events(tx, events, worked=True)


def read(db: Database, mapping: RevenueMapping = SHOP, since: Instant = 0) -> Any:
    with db.transaction(write=False) as tx:
        return read_orders(tx, mapping, since, NOW)


def test_orders_come_by_profile_and_time(db: Database) -> None:
    db.now = NOW
    record(db, (2, 50, {"total": 1}), (1, 70, {"total": 0.1}), (1, 60, {"total": -0.3}))
    record(db, (1, 65, {"total": 5}), name="cart_viewed")
    found = read(db)
    assert found.profile_ids.tolist() == [1, 1, 2]
    assert found.times.tolist() == [60, 70, 50]
    assert [in_currency(amount) for amount in found.amounts.tolist()] == [-0.3, 0.1, 1.0]
    assert found.currency == "EUR"
    assert found.left_out() == []


def test_a_period_has_its_start_and_not_its_end(db: Database) -> None:
    db.now = NOW
    record(db, *((1, at, {"total": 1}) for at in (NOW - DAY - 1, NOW - DAY, NOW - 1, NOW)))
    assert read(db, since=NOW - DAY).times.tolist() == [NOW - DAY, NOW - 1]


def test_other_currencies_are_counted_and_never_added(db: Database) -> None:
    db.now = NOW
    record(
        db,
        (1, 10, {"totals": {"gross": 10.25}, "currency": "eur"}),
        (1, 11, {"totals": {"gross": 99}, "currency": "USD"}),
        (1, 12, {"totals": {"gross": 99}, "currency": "usd"}),
        (1, 13, {"totals": {"gross": 99}}),
        (1, 14, {"totals": {"gross": 99}, "currency": 978}),
    )
    found = read(db, MANY)
    assert found.amounts.tolist() == [102_500]
    assert found.left_out() == [
        "2 orders in an unstated currency are not part of the revenue",
        "2 orders in USD are not part of the revenue",
    ]


@pytest.mark.parametrize("amount", [None, "12.50", True, [1], {"a": 1}, 1e300, "missing"])
def test_what_is_no_amount_is_counted(db: Database, amount: object) -> None:
    db.now = NOW
    record(db, (1, 10, {} if amount == "missing" else {"total": amount}), (1, 11, {"total": 2}))
    found = read(db)
    assert found.amounts.tolist() == [20_000]
    assert found.left_out() == ["1 orders without a number as their amount are left out"]


def test_without_orders_there_is_no_revenue(db: Database) -> None:
    db.now = NOW
    assert read(db).amounts.tolist() == []


def test_sums_are_exact(db: Database) -> None:
    db.now = NOW
    rng = Random(14)
    cents = [rng.randrange(-(10**9), 10**9) for _ in range(500)]
    record(db, *((1, 10, {"total": cent / 100}) for cent in cents))
    assert in_currency(int(read(db).amounts.sum())) == sum(cents) / 100


def test_the_settings_map_the_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RevenueMapping.of(load_settings()) == RevenueMapping(
        event="order_completed", amount="total_gbp", currency_property="", currency="GBP"
    )
    monkeypatch.setenv("SEGUE_REVENUE_CURRENCY", "eur")
    monkeypatch.setenv("SEGUE_REVENUE_AMOUNT", "totals.gross")
    assert RevenueMapping.of(load_settings())[1:] == ("totals.gross", "", "EUR")
    monkeypatch.setenv("SEGUE_REVENUE_CURRENCY", "euro")
    with pytest.raises(SegueError, match="SEGUE_REVENUE_CURRENCY: 'euro' is not a currency"):
        load_settings()
    monkeypatch.setenv("SEGUE_REVENUE_CURRENCY", "EUR")
    monkeypatch.setenv("SEGUE_REVENUE_AMOUNT", "items[].price")
    with pytest.raises(SegueError, match=r"SEGUE_REVENUE_AMOUNT.* names several values"):
        load_settings()
