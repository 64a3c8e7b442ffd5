"""The sample shop: invented customers, a year of orders, and carts abandoned in the last days.

A seeded generator makes it: the same seed and time give the same shop. The customers are fictional:
addresses are in example.com, phone numbers in ranges reserved for fiction.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from random import Random
from typing import Any

from config.channels import ChannelName
from config.clock.times import DAY, HOUR, MINUTE, Instant
from config.database.engine import Database
from profiles.events import NewEvent, record_events
from profiles.identity.person import Person, normalise_email
from profiles.identity.phones import Phone, normalise_phone
from profiles.identity.upsert import upsert_people
from profiles.sample.data import GOODS, PLACES, SEASON, Region, fiction_numbers

_CHUNK = 250  # customers of one transaction
_YEAR = 365


def load_sample_shop(
    db: Database, now: Instant, customers: int = 3000, seed: int = 1
) -> Mapping[str, int]:
    """Load the shop as of `now`; repeating it changes nothing.

    All events are history, which journeys do not react to. Returns the numbers of customers and of
    events by name.
    """
    shop = _Shop(now, seed)
    people = shop.customers(customers)
    counts: Counter[str] = Counter()
    while chunk := list(islice(people, _CHUNK)):
        with db.transaction() as tx:
            report = upsert_people(tx, [person for person, _ in chunk], "sample shop")
            events = [
                event._replace(profile_id=profile_id, identifier=person.named_by)
                for profile_id, (person, history) in zip(report.profile_ids, chunk, strict=True)
                for event in history
                if profile_id is not None
            ]
            record_events(tx, events, worked=True)
        counts["customers"] += len(chunk) - len(report.refused)
        counts.update(event.name for event in events)
    return dict(counts)


class _Shop:
    """The generator, with one random source that is used in a fixed order."""

    def __init__(self, now: Instant, seed: int) -> None:
        self.now = now
        self.random = Random(seed)  # noqa: S311  nothing secret about it
        self.phones = {place.country: fiction_numbers(place.country) for place in PLACES}
        self.shares = list(accumulate(place.share for place in PLACES))
        midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0)
        self.days = [midnight - timedelta(days=back) for back in range(_YEAR, 0, -1)]
        self.season = list(accumulate(SEASON[day.month - 1] for day in self.days))

    def customers(self, number: int) -> Iterator[tuple[Person, list[NewEvent]]]:
        """Each customer with their history."""
        for index in range(1, number + 1):
            (place,) = self.random.choices(PLACES, cum_weights=self.shares)
            # most signed up long ago, a few this week
            came = self.now - int(self.random.betavariate(1, 1.6) * 2 * _YEAR * DAY) - HOUR
            favourite = self.random.choice(list(GOODS))
            orders = list(self._orders(index, came, favourite))
            spent = round(math.fsum(order.properties["total_gbp"] for order in orders), 2)
            person = self._person(index, place, came)
            traits = {
                "favourite_category": favourite,
                "lifetime_value": spent,
                "orders": len(orders),
                **person.attributes,
            }
            signed_up = NewEvent(
                profile_id=0,
                name="signed_up",
                occurred_at=came,
                dedupe_key=f"sample-signup-{index}",
                properties={},
            )
            history = [signed_up, *orders, *self._cart(index, favourite)]
            yield person._replace(attributes=traits), history

    def _person(self, index: int, place: Region, came: Instant) -> Person:
        first, last = (self.random.choice(names.split()) for names in place.names)
        age = timedelta(days=self.random.randint(18 * 365, 75 * 365))
        phone = self._phone(place.country)
        return Person(
            user_id=f"shop-{index:05}",
            email=normalise_email(f"{_ascii(first)}.{_ascii(last)}.{index}@example.com"),
            phone=phone,
            push_tokens=self._push_tokens(index),
            # missing for some customers, so that other sources of the zone are used
            country=place.country if self._happens(0.95) else None,
            timezone=self.random.choice(place.zones) if self._happens(0.7) else None,
            language=place.language,
            attributes={
                "first_name": first,
                "last_name": last,
                "birthday": (datetime.fromtimestamp(self.now, UTC) - age).date().isoformat(),
            },
            consent=self._consent(phone is not None),
            seen_at=came,
        )

    def _phone(self, country: str) -> Phone | None:
        number = next(self.phones[country], None) if self._happens(0.6) else None
        return normalise_phone(number, country) if number else None

    def _push_tokens(self, index: int) -> dict[str, str | None]:
        if not self._happens(0.45):
            return {}
        (platform,) = self.random.choices(("ios", "android", "web"), weights=(45, 45, 10))
        return {f"sample-{platform}-{index:05}": platform}

    def _consent(self, has_phone: bool) -> dict[tuple[ChannelName, str], bool]:
        consent: dict[tuple[ChannelName, str], bool] = {}
        if self._happens(0.8):
            consent["email", "*"] = self._happens(0.9)
        if self._happens(0.05):
            consent["email", "promotions"] = False
        if self._happens(0.06):
            consent["push", "*"] = False
        if has_phone:
            # SMS is opt-in; some have said yes, a few sent STOP
            chance = self.random.random()
            if chance < 0.45:
                consent["sms", "*"] = True
            elif chance < 0.48:
                consent["sms", "*"] = False
        return consent

    def _orders(self, index: int, came: Instant, favourite: str) -> Iterator[NewEvent]:
        """A year of orders, more before Christmas; none before the sign-up."""
        wanted = min(int(self.random.expovariate(1 / 6)), 40)
        days = self.random.choices(self.days, cum_weights=self.season, k=wanted)
        for number, day in enumerate(sorted(days), start=1):
            at = int(day.timestamp()) + int(self.random.triangular(7 * HOUR, 23 * HOUR, 19 * HOUR))
            items = self._items(favourite)
            if came < at < self.now:
                yield NewEvent(
                    profile_id=0,
                    name="order_completed",
                    occurred_at=at,
                    dedupe_key=f"sample-order-{index}-{number}",
                    properties={
                        "items": sum(item["quantity"] for item in items),
                        "total_gbp": _total(items),
                        "top_item": max(items, key=lambda item: item["price"])["name"],
                    },
                )

    def _cart(self, index: int, favourite: str) -> Iterator[NewEvent]:
        """Perhaps a cart of the last days, perhaps abandoned."""
        if not self._happens(0.05):
            return
        viewed = self.now - self.random.randint(3 * HOUR, 4 * DAY)
        items = self._items(favourite)
        cart = {
            "cart_id": f"cart-{index:05}",
            "items": items,
            "total": _total(items),
            "url": f"https://shop.example/cart/{index:05}",
        }
        yield NewEvent(
            profile_id=0,
            name="cart_viewed",
            occurred_at=viewed,
            dedupe_key=f"sample-cart-viewed-{index}",
            properties=cart,
        )
        if self._happens(0.6):
            left = viewed + self.random.randint(30 * MINUTE, 2 * HOUR)
            yield NewEvent(
                profile_id=0,
                name="cart_abandoned",
                occurred_at=left,
                dedupe_key=f"sample-cart-abandoned-{index}",
                properties=cart,
            )

    def _items(self, favourite: str) -> list[dict[str, Any]]:
        """One to four different goods, mostly in the favourite category."""
        items = {}
        for _ in range(self.random.randint(1, 4)):
            category = favourite if self._happens(0.6) else self.random.choice(list(GOODS))
            name, price = self.random.choice(GOODS[category])
            quantity = 1 if price > 50 else self.random.randint(1, 3)
            items[name] = {"name": name, "price": price, "quantity": quantity}
        return list(items.values())

    def _happens(self, chance: float) -> bool:
        return self.random.random() < chance


def _total(items: list[dict[str, Any]]) -> float:
    return round(math.fsum(item["price"] * item["quantity"] for item in items), 2)


def _ascii(name: str) -> str:
    """A name as part of an e-mail address: Jürgen -> jurgen."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
