"""Orders and what they brought: events that the settings map to an amount and a currency.

All sums are whole numbers of 1/10,000 of the currency, which is exact for every currency of ISO
4217, so that the order of additions changes nothing. An amount below 0 is a refund: it lowers the
revenue and is no order. Orders in other currencies, and those without a number as their amount,
are counted apart and never added.
"""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, bindparam, select

from config.clock.times import Instant
from config.database.engine import Tx
from config.settings import Settings
from profiles.conditions.json_path import Place, parse_path
from profiles.tables import events

Ids = NDArray[np.int64]
UNIT = 10_000  # amounts are in 1/UNIT of the currency
_LARGEST = 10**13  # of the currency; larger amounts are errors, and sums fit in 64 bits
_v = events.c


class RevenueMapping(NamedTuple):
    """Which event is an order, where its amount and currency are, and the currency of reports."""

    event: str
    amount: str
    currency_property: str
    currency: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The mapping in the settings."""
        return cls(
            event=settings.revenue_event,
            amount=settings.revenue_amount,
            currency_property=settings.revenue_currency_property,
            currency=settings.revenue_currency,
        )


@dataclass(slots=True)
class LeftOut:
    """Orders that no revenue contains.

    other_currencies: by currency; "" if none is stated. unreadable: those whose amount is missing
    or no number.
    """

    other_currencies: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    def amount_of(
        self, mapping: RevenueMapping, amount: Any, currency: str | None, orders: int = 1
    ) -> int | None:
        """The amount of an order in 1/UNIT of the currency; None if it is left out and counted.

        orders: how many orders have this amount and currency.
        """
        whole = None if amount is None else _in_units(amount)
        if mapping.currency_property and (currency or "").upper() != mapping.currency:
            self.other_currencies[(currency or "").upper()] += orders
            return None
        if whole is None:
            self.unreadable += orders
        return whole

    def said(self) -> list[str]:
        """Statements about these orders, for people."""
        said = [
            f"{number:,} orders in {currency or 'an unstated currency'} are not part of the revenue"
            for currency, number in sorted(self.other_currencies.items())
        ]
        if self.unreadable:
            said.append(f"{self.unreadable:,} orders without a number as their amount are left out")
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Orders and refunds in one currency, by profile and time.

    profile_ids, times, amounts: one element for each, sorted by profile and time; amounts in
    1/UNIT of the currency. left: orders that are left out.
    """

    currency: str
    profile_ids: Ids
    times: Ids
    amounts: Ids
    left: LeftOut

    def within(self, profile_ids: Ids, since: Ids, until: Ids) -> tuple[Ids, Ids]:
        """The amounts and the number of orders of each profile from `since` on and before `until`.

        profile_ids: sorted, each once; since, until: for each of them. Refunds lower the amount and
        are no orders.
        """
        place, theirs = places_of(profile_ids, self.profile_ids)
        at, amounts = self.times[theirs], self.amounts[theirs]
        inside = (at >= since[place]) & (at < until[place])
        sums = np.zeros((2, len(profile_ids)), dtype=np.int64)
        np.add.at(sums[0], place[inside], amounts[inside])
        np.add.at(sums[1], place[inside], amounts[inside] >= 0)
        return sums[0], sums[1]

    def left_out(self) -> list[str]:
        """Statements about what the revenue does not contain, for people."""
        return self.left.said()


def places_of(profile_ids: Ids, whose: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    """For rows of profiles: the places of those in `profile_ids`, and which rows these are.

    profile_ids: sorted, each once. whose: the profile of each row.
    """
    place = np.searchsorted(profile_ids, whose)
    known = place < len(profile_ids)
    known[known] = profile_ids[place[known]] == whose[known]
    return place[known], known


def read_orders(tx: Tx, mapping: RevenueMapping, since: Instant, until: Instant) -> Orders:
    """The orders of all profiles from `since` on and before `until`, by their own time."""
    rows = tx.conn.execute(
        select(_v.profile_id, _v.occurred_at, *order_values(mapping, sqlite=tx.is_sqlite))
        .where(
            _v.name == bindparam("event"),
            _v.occurred_at >= bindparam("since"),
            _v.occurred_at < bindparam("until"),
        )
        .order_by(_v.profile_id, _v.occurred_at, _v.id),
        {"event": mapping.event, "since": since, "until": until},
    )
    left = LeftOut()
    found = [
        (profile_id, at, whole)
        for profile_id, at, amount, currency in rows
        if (whole := left.amount_of(mapping, amount, currency)) is not None
    ]
    profile_ids, times, amounts = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return Orders(
        currency=mapping.currency,
        profile_ids=profile_ids,
        times=times,
        amounts=amounts,
        left=left,
    )


def in_currency(amount: float) -> float:
    """An amount in the currency, from 1/UNIT of it."""
    return amount / UNIT


def order_values(
    mapping: RevenueMapping, *, sqlite: bool
) -> tuple[ColumnElement[float], ColumnElement[str]]:
    """The amount and the currency of an order; NULL if they are missing or of another type."""
    paths = (mapping.amount, mapping.currency_property or "currency")
    number, text = (
        Place(sqlite=sqlite, document=_v.properties, members=parse_path(path)[0]) for path in paths
    )
    return number.value(0.0).label("amount"), text.value("").label("currency")


def _in_units(amount: Any) -> int | None:
    """A number in 1/UNIT of the currency; None if it is too large."""
    exact = Decimal(str(amount))
    if abs(exact) > _LARGEST:
        return None
    return int((exact * UNIT).to_integral_value())
