"""Segment's own client library, with another host."""

from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from segment.analytics.client import Client
from sqlalchemy import select, update

from config.clock.times import DAY
from flows.http.backlog import Backlog
from flows.http.errors import Refusal
from profiles.events import PROFILE_CHANGED
from profiles.tables import events, identifiers, profiles
from tests.support.http.receiving import (
    WRITE_KEY,
    Receiving,
    happened,
    leave_unworked,
    names,
    receiving,
)
from tests.support.shop import House


@pytest.mark.parametrize("packs", [False, True])
def test_a_client_library_works_with_only_its_host_changed(
    house: House, receiver: Receiving, packs: bool
) -> None:
    house.db.now = None
    trouble: list[object] = []
    client = Client(
        WRITE_KEY,
        host=receiver.url,
        gzip=packs,
        on_error=lambda error, _items: trouble.append(error),
        upload_interval=0.05,
    )
    client.identify("u1", {"email": "Ann@example.com", "firstName": "Ann", "plan": "b"})
    client.track("u1", "cart_abandoned", {"cart_id": "c1", "items": [{"sku": 1}]})
    client.track(None, "product_viewed", anonymous_id="a1")
    client.page("u1", "Shop", "Cart", {"url": "https://shop.example/cart"})
    client.screen("u1", "Shop", "Basket")
    client.group("u1", 77, {"name": "Acme"})
    client.alias("a1", "u1")
    client.track("u1", "long ago", timestamp=datetime.now(UTC) - timedelta(days=1))
    client.shutdown()

    assert trouble == []
    with house.db.transaction(write=False) as tx:
        [person] = tx.conn.execute(select(profiles)).all()
        known = {row.kind: row.value for row in tx.conn.execute(select(identifiers))}
    assert person.attributes == {
        "first_name": "Ann",
        "plan": "b",
        "group_id": "77",
        "group_name": "Acme",
    }
    assert known == {"user_id": "u1", "anonymous_id": "a1", "email": "ann@example.com"}
    by_name = {event.name: event for event in happened(house)}
    assert set(by_name) == {
        *("cart_abandoned", "product_viewed", "page_viewed", "screen_viewed", "long ago"),
        PROFILE_CHANGED,
    }
    assert by_name["cart_abandoned"].properties == {"cart_id": "c1", "items": [{"sku": 1}]}
    ago = by_name["long ago"].received_at - by_name["long ago"].occurred_at
    assert abs(ago - DAY) <= 1
    assert receiver.told > 0


def test_a_client_that_is_slowed_loses_nothing(
    sqlite_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = sqlite_house
    house.open(backlog_limit=1)
    leave_unworked(house, 2)
    slowed = Event()
    look = Backlog.check

    async def check(self: Backlog) -> None:
        try:
            await look(self)
        except Refusal:
            slowed.set()
            raise

    monkeypatch.setattr(Backlog, "check", check)
    house.shorten(backlog_retry=1)
    trouble: list[object] = []
    with receiving(house.segue) as receiver:
        client = Client(
            WRITE_KEY,
            host=receiver.url,
            upload_interval=0.05,
            on_error=lambda error, _items: trouble.append(error),
        )
        client.track("u1", "cart_abandoned")
        assert slowed.wait(10)
        assert "cart_abandoned" not in names(house)
        with house.db.transaction() as tx:
            tx.conn.execute(update(events).values(worked_at=tx.now))
        client.shutdown()
    assert trouble == []
    assert names(house)[-1] == "cart_abandoned"
