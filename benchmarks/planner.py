"""Planner: decisions per second on one core, and their dependence on the length of the history.

`simple` and `three_caps` decide in memory, each decision at another time, as `segue decide` does.
`history_...` does what a planning chunk does, database included, for customers who got one message
a day for that many days. Messages older than every cap must cost nothing.
"""

import statistics
from collections.abc import Sequence
from functools import partial

from sqlalchemy import insert

from benchmarks.support.databases import on_sqlite
from benchmarks.support.material import AFTERNOON, fill, message_row
from benchmarks.support.runner import Benchmark, Figures, cost_of
from channels.messages import messages
from channels.rules.caps import Counted
from channels.rules.loaders import load_history, load_recipients
from channels.rules.planner import Planner, Wanted
from channels.rules.recipient import Situation, zones_for
from config.clock.times import DAY
from config.database.engine import Database
from config.policy import Policy

_LENGTHS = (10, 100, 1000, 10_000)
_WANTED = [
    Wanted(
        channel="email",
        kind="marketing",
        topic="promotions",
        offset=0,
        on_cap="defer",
        max_delay=7 * DAY,
    )
]
_OPEN = {
    "timezone": "Europe/London",
    "channels": {"email": {"windows": [{"days": "mon-sun", "from": "08:00", "to": "21:00"}]}},
}
_CAPS = [
    {"channels": ["email"], "limit": 1, "per": "day"},
    {"channels": ["email"], "limit": 4, "per": "week"},
    {"channels": "all", "limit": 6, "within": "7d"},
]
_SIMPLE = Policy.model_validate(_OPEN)
_CAPPED = Policy.model_validate({**_OPEN, "caps": _CAPS})


def _run(quick: bool) -> Figures:
    decisions, rounds = (200, 1) if quick else (20_000, 5)
    # one today and one every second day before: full for the day, but not for the week
    history = [
        Counted(send_at=AFTERNOON - ago * DAY, channel="email", kind="marketing", topic="")
        for ago in range(0, 20, 2)
    ]
    return {
        "simple_per_second": _rate(Planner(_SIMPLE), [], decisions, rounds),
        "three_caps_per_second": _rate(Planner(_CAPPED), history, decisions, rounds),
        **_by_length(people=2 if quick else 20, times=1 if quick else 25, rounds=rounds),
    }


def _rate(planner: Planner, history: Sequence[Counted], decisions: int, rounds: int) -> float:
    situation = Situation(
        zones=zones_for("Europe/Berlin", None, None, "UTC"), addresses=frozenset({"email"})
    )

    def decide() -> None:
        for now in range(AFTERNOON, AFTERNOON + decisions):
            planner.decide(situation, "any", _WANTED, history, now)

    return decisions / statistics.median(cost_of(decide).cpu for _ in range(rounds))


def _by_length(people: int, times: int, rounds: int) -> Figures:
    """Measure every length in every round: the ratio compares figures of the same minute."""
    ids = {
        length: range(1 + at * people, 1 + (at + 1) * people) for at, length in enumerate(_LENGTHS)
    }
    planner = Planner(_CAPPED)

    def write(db: Database) -> None:
        fill(db, people * len(_LENGTHS), AFTERNOON, alone=True)
        for length, some in ids.items():
            for profile_id in some:
                days = range(1, length + 1)
                rows = [
                    message_row(profile_id, -day, AFTERNOON - day * DAY, "sent") for day in days
                ]
                with db.transaction() as tx:
                    tx.conn.execute(insert(messages), rows)

    def decide(db: Database, some: range) -> None:
        for _ in range(times):
            with db.transaction(write=False) as tx:
                recipients = load_recipients(tx, _CAPPED, some)
                histories = load_history(tx, _CAPPED, recipients, tx.now + 7 * DAY)
                for profile_id in some:
                    counted = [past.counted for past in histories[profile_id]]
                    planner.decide(
                        recipients[profile_id].situation, "any", _WANTED, counted, tx.now
                    )

    with on_sqlite(write, AFTERNOON) as fresh:
        db = fresh()
        decide(db, ids[_LENGTHS[0]])  # warm up caches and compiled statements
        taken = [
            {length: cost_of(partial(decide, db, some)).cpu for length, some in ids.items()}
            for _ in range(rounds)
        ]
        db.close()
    return {
        **{
            f"history_{length}_per_second": people
            * times
            / statistics.median(of_round[length] for of_round in taken)
            for length in _LENGTHS
        },
        "ratio_of_longest_to_shortest": statistics.median(
            of_round[_LENGTHS[0]] / of_round[_LENGTHS[-1]] for of_round in taken
        ),
    }


PLANNER = Benchmark(
    "planner: decisions per second on one core",
    _run,
    {
        "simple_per_second": "at least 50,000",
        "three_caps_per_second": "at least 10,000",
        "ratio_of_longest_to_shortest": "about 1",
    },
)
