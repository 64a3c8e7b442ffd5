"""A real year of a wholesaler's orders: win-back and cart recovery in the month after it."""

from pathlib import Path

import pytest

from tests.support.pictures import load_year, simulated
from tests.support.shared_data import needs_orders

pytestmark = needs_orders


@pytest.mark.long
def test_the_month_after_a_real_year(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'segue.db'}"
    load_year(url)
    win_back, carts = simulated(url)
    assert win_back["people"] == win_back["entered"] > 1400
    assert win_back["sent"]["email"] > 1400
    assert win_back["messages_a_person"]["p100"] <= 4
    assert sum(win_back["sent"].values()) > 2000
    assert win_back["not_sent"]["no_address"] > 0
    assert carts["people"] == 4372
    assert 100 < carts["entered"] < 400
    assert min(carts["by_day"]) >= "2011-12-09"
    assert len(carts["by_day"]) > 15, "carts come on many days"
    assert {rate["source"] for rate in carts["rates"]} == {"average shop"}
