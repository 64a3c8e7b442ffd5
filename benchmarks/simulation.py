"""Simulation: 30 days of cart recovery and win-back, for a shop in which both have been running.

The reference is a launch of as many people (benchmarks/launch.py): they enter and an e-mail each is
planned. The simulation copies the shop, moves and sends everything of the month, and reads the
results.
"""

import random
from collections.abc import Iterator
from typing import Any

from sqlalchemy import insert

from benchmarks.launch import enter_and_plan
from benchmarks.support.databases import on_sqlite
from benchmarks.support.material import EMAIL, MORNING, catalog_of, fill, policy
from benchmarks.support.runner import Benchmark, Figures, against, cost_of
from config.clock.times import DAY, HOUR
from config.database.engine import Database
from config.settings import load_settings
from journeys.definition.catalog import Catalog, load_catalog
from journeys.enrollments import enrollments
from journeys.simulation.clock import SimulatedShop
from journeys.simulation.copy import snapshot
from journeys.simulation.results import Results
from journeys.simulation.simulate import Question, simulate
from profiles.tables import events

_DAYS = 30
_JOURNEYS = ("cart-recovery", "win-back")
# Shares of the customers. Win-back has written to nine of ten lapsed ones in the last months, so
# that the others are a month's worth.
_LAPSED, _WRITTEN_TO = 0.3, 0.9
_CART = 0.04
# The mean days since the last order of the others.
_ORDERED = 20
_CHUNK = 5000


def _catalog() -> Catalog:
    library = load_catalog(policy())
    return Catalog({name: library.current[name] for name in _JOURNEYS}, library.segments)


def _fill(db: Database, people: int) -> None:
    fill(db, people, MORNING, alone=True)
    catalog = _catalog()
    win_back = catalog.journey("win-back")
    with db.transaction() as tx:
        catalog.register(tx)
    chance = random.Random(1)
    happened = [one for number in range(1, people + 1) for one in _history(number, chance)]
    before = [
        _enrollment(row["profile_id"], win_back.digest, chance)
        for row in happened
        if row["name"] == "order_completed"
        and row["occurred_at"] < MORNING - 90 * DAY
        and chance.random() < _WRITTEN_TO
    ]
    with db.transaction() as tx:
        for rows, table in ((happened, events), (before, enrollments)):
            for start in range(0, len(rows), _CHUNK):
                tx.conn.execute(insert(table), rows[start : start + _CHUNK])


def _history(number: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    """The last order of a customer, and perhaps a cart of the last weeks."""
    days = min(1 + int(chance.expovariate(1 / _ORDERED)), 90)
    if chance.random() < _LAPSED:
        days = chance.randint(91, 400)
    yield _event(number, "order_completed", days * DAY, {"total_gbp": 20, "items": 1})
    if chance.random() < _CART:
        cart = {"cart_id": f"c{number}", "items": [{"name": "Lamp", "price": 20, "quantity": 1}]}
        yield _event(number, "cart_abandoned", chance.randint(HOUR, 28 * DAY), cart)


def _event(number: int, name: str, ago: int, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "profile_id": number,
        "name": name,
        "occurred_at": MORNING - ago,
        "received_at": MORNING - ago,
        "properties": properties,
        "dedupe_key": name,
        "worked_at": MORNING - ago,
    }


def _enrollment(number: int, version: str, chance: random.Random) -> dict[str, Any]:
    entered_at = MORNING - chance.randint(30, 150) * DAY
    return {
        "profile_id": number,
        "journey": "win-back",
        "version": version,
        "context": {},
        "entered_at": entered_at,
        "since": entered_at,
        "step": "mark lapsed",
        "arrived_at": entered_at,
        "due_at": None,
        "ended_at": entered_at + 8 * DAY,
        "end_reason": "completed",
    }


def _simulated(db: Database) -> Results:
    shop = SimulatedShop(catalog=_catalog(), policy=policy(), settings=load_settings())
    question = Question(journeys=_JOURNEYS, audience=None, days=_DAYS)
    with snapshot(db) as tx:
        [results] = simulate(tx, shop, question)
    return results


def _run(quick: bool) -> Figures:
    people = 500 if quick else 100_000
    with on_sqlite(lambda db: _fill(db, people), MORNING) as fresh:
        shop, launched = fresh(), fresh()
        done: list[Results] = []
        ours = cost_of(lambda: done.append(_simulated(shop)))
        launch = cost_of(lambda: enter_and_plan(launched, catalog_of(EMAIL)))
        shop.close()
        launched.close()
    [results] = done
    ratios = against("launch", [(ours, launch)])
    return {
        "people": people,
        "entered": results.entered.total(),
        "sent": results.sent.total(),
        "people_days_per_second": people * _DAYS / ours.wall,
        "people_days_per_cpu_second": people * _DAYS / ours.cpu,
        "cpu_times_a_launch": 1 / ratios["cpu_ratio_to_launch"],
    }


SIMULATION = Benchmark(
    "simulation: 30 days of cart recovery and win-back",
    _run,
    {"cpu_times_a_launch": "at most 6"},
)
