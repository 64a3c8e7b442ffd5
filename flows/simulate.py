"""`segue simulate`: read the shop, simulate, and put the results into one JSON object."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from config.channels import by_channel
from config.clock.times import DAY, Instant, format_instant
from config.clock.zones import zone
from config.database.engine import Database, Tx
from config.database.schema import refuse_other_schema
from config.errors import SegueError
from config.garbage import collect_less_often
from config.policy import load_policy
from config.settings import Settings
from journeys.definition.catalog import Catalog, load_catalog
from journeys.definition.collisions import collision_warnings
from journeys.simulation.clock import SimulatedShop
from journeys.simulation.copy import snapshot
from journeys.simulation.rates import AnswerKind
from journeys.simulation.results import Results, share
from journeys.simulation.simulate import Question, simulate

K = TypeVar("K")
# A step is warned of if at least this share of at least so many of its messages is capped.
_ALWAYS, _ENOUGH = 0.9, 10


MOST_DAYS, MOST_SEEDS = 366, 1000


def answer(
    settings: Settings,
    *,
    journey: str | None,
    audience: str | None,
    days: int,
    people: int | None = None,
    seeds: int = 1,
    shares: Mapping[AnswerKind, float | None] = MappingProxyType({}),
    compare: str | None = None,
    replay: date | None = None,
) -> dict[str, Any]:
    """Simulate, and return the results as `as_json`, with those of `compare` as `compared`.

    journey: None: all. shares: given rates of answers; None: learnt. compare: a policy file or a
    version. replay: a past day, in the policy's time zone: what happened from its beginning on is
    repeated, at most until now. Raises SegueError.
    """
    if journey is None and (audience or people):
        raise SegueError("an audience and a limit belong to the launch of one journey")
    if replay is not None and audience is not None:
        raise SegueError("a replay repeats the launches that were made: leave out the audience")
    if people is not None and audience is None:
        raise SegueError("a limit needs an audience")
    with reading(settings) as tx:
        shop = open_shop(settings, tx)
        since = None
        if replay is not None:
            since, days = _past_period(replay, days, shop.policy.timezone, tx.now)
        question = Question(
            journeys=tuple(shop.catalog.current) if journey is None else (journey,),
            audience=audience,
            days=days,
            people=people,
            given={kind: share for kind, share in shares.items() if share is not None},
            seeds=seeds,
            since=since,
        )
        found = as_json(shop, question, simulate(tx, shop, question))
        if compare is not None:
            other = compared_shop(tx, shop, question, compare)
            found["compare"] = compare
            found["compared"] = as_json(other, question, simulate(tx, other, question))
    return found


def _past_period(day: date, days: int, timezone: str, now: Instant) -> tuple[Instant, int]:
    """The beginning of a past day, and for how many whole days it can be replayed."""
    since = int(datetime.combine(day, time.min, zone(timezone)).timestamp())
    possible = (now - since) // DAY
    if possible < 1:
        raise SegueError(f"--replay {day}: not a whole day has passed since then")
    return since, min(days, possible)


@contextmanager
def reading(settings: Settings) -> Iterator[Tx]:
    """One snapshot of the installation's database, in which nothing can be written.

    Raises SegueError if the database can't be reached, or has the schema of another release.
    """
    collect_less_often()
    db = Database(settings.database, now=settings.now, read_only=True)
    try:
        with snapshot(db) as tx:
            refuse_other_schema(tx, db.shown)
            yield tx
    finally:
        db.close()


def open_shop(settings: Settings, tx: Tx, policy_file: Path | None = None) -> SimulatedShop:
    """The library, the policy and the stored versions; registers nothing. Raises SegueError."""
    policy = load_policy(policy_file or settings.policy_file)
    catalog = load_catalog(policy, settings.library, settings.definitions)
    catalog.catch_up(tx)
    return SimulatedShop(catalog=catalog, policy=policy, settings=settings)


def compared_shop(tx: Tx, shop: SimulatedShop, question: Question, other: str) -> SimulatedShop:
    """The shop with another policy, if `other` is a .toml file, or with another version of the
    journey in question, named by its digest. Raises SegueError.
    """
    if other.endswith(".toml"):
        return open_shop(shop.settings, tx, Path(other))
    if len(question.journeys) != 1:
        raise SegueError("only one journey can be compared with another version of it")
    [journey] = question.journeys
    known = {one.digest: one for one in shop.catalog.versions(journey)}
    if other not in known:
        current, *older = known
        raise SegueError(
            f"there is no version {other!r} of {journey}; there are: {current} (current)"
            + "".join(f", {one}" for one in older)
        )
    # Promotions would make the current version of another one.
    versions = {**shop.catalog.current, journey: known[other]}
    changed = Catalog(versions, shop.catalog.segments, traits=shop.catalog.traits, promotions=False)
    changed.catch_up(tx)
    return replace(shop, catalog=changed)


def warnings(shop: SimulatedShop, question: Question, results: Results) -> list[str]:
    """The messages that another one always caps, by the definitions and in the simulation."""
    journeys = {name: shop.catalog.journey(name).journey for name in question.journeys}
    found = collision_warnings(journeys, shop.policy)
    # Of each step the messages on the channels on which any was capped.
    wanted: Counter[tuple[str, str]] = Counter()
    for (journey, step, _), counted in results.by_step.items():
        if counted.not_sent["capped"]:
            wanted[journey, step] += counted.sent + counted.planned + counted.not_sent["capped"]
    for one in results.collisions:
        of = wanted[one.journey, one.step]
        if one.what == "capped" and of >= _ENOUGH and one.messages >= _ALWAYS * of:
            found.append(
                f"{one.journey} / {one.step}: {one.messages:,} of {of:,} messages were capped by "
                f"{one.by_journey} / {one.by_step}"
            )
    return found


def as_json(shop: SimulatedShop, question: Question, results: Sequence[Results]) -> dict[str, Any]:
    """The results as one object.

    Counts are means over the seeds, and `range` has the extremes. Lists are those of the first.
    """
    first = results[0]
    totals = {
        "entered": [one.entered.total() for one in results],
        "sent": [one.sent.total() for one in results],
        "not_sent": [one.not_sent.total() for one in results],
        "unsubscribes": [answered(one)["unsubscribed"] for one in results],
        "converted": [one.converted.total() for one in results],
    }
    return {
        "journeys": list(question.journeys),
        "audience": question.audience,
        "from": format_instant(first.start),
        "to": format_instant(first.end),
        "timezone": shop.policy.timezone,
        "days": question.days,
        "seeds": question.seeds,
        "replayed": _replayed(first),
        "people": first.people,
        "entered": _mean(totals["entered"]),
        "sent": by_channel(_means(one.sent for one in results)),
        "not_sent": _means(one.not_sent for one in results),
        "planned": by_channel(_means(one.planned for one in results)),
        "by_day": _by_time(one.by_day for one in results),
        "by_hour": _by_time(one.by_hour for one in results),
        "by_step": [
            {
                **{"journey": journey, "step": step, "channel": channel, "sent": one.sent},
                **{"planned": one.planned, "not_sent": dict(one.not_sent)},
            }
            for (journey, step, channel), one in first.by_step.items()
        ],
        "warnings": warnings(shop, question, first),
        "why_not": {name: dict(reasons) for name, reasons in first.why.items()},
        "messages_a_person": {
            f"p{part}": _mean([share(one.a_person, part / 100) for one in results])
            for part in (50, 95, 100)
        },
        "held_back": [one._asdict() for one in first.held_back],
        "collisions": [one._asdict() for one in first.collisions],
        "providers": [
            {**one._asdict(), "busiest": format_instant(one.busiest)} for one in first.load
        ],
        "answers": _means(answered(one) for one in results),
        "unsubscribes": _mean(totals["unsubscribes"]),
        "converted": _mean(totals["converted"]),
        "rates": [
            {"journey": journey, "channel": channel, "answer": kind, **rate._asdict()}
            for (journey, channel, kind), rate in sorted(first.rates.items())
        ],
        "delays": [
            {"answer": kind, "where": where, **delay._asdict()}
            for (kind, where), delay in sorted(first.delays.items())
        ],
        "range": {name: [min(some), max(some)] for name, some in totals.items()},
    }


def _replayed(results: Results) -> dict[str, int] | None:
    if results.replayed is None:
        return None
    as_then, by_rates = results.replayed
    return {"answered_as_then": as_then, "answered_by_rates": by_rates}


def answered(results: Results) -> Counter[str]:
    """The answers of all journeys and channels, by kind."""
    found: Counter[str] = Counter()
    for (_, _, kind), number in results.answers.items():
        found[kind] += number
    return found


def _mean(numbers: Sequence[int]) -> int:
    return round(sum(numbers) / len(numbers))


def _in_order(name: object) -> tuple[int, str]:
    """Hours as numbers, other names as texts."""
    return (name if isinstance(name, int) else 0, str(name))


def _means(counted: Iterable[Mapping[K, int]]) -> dict[K, int]:
    every = list(counted)
    names = sorted({name for one in every for name in one}, key=_in_order)
    return {name: _mean([one.get(name, 0) for one in every]) for name in names}


def _by_time(counted: Iterable[Mapping[K, tuple[int, int]]]) -> dict[str, dict[str, int]]:
    every = list(counted)
    sent = _means({name: pair[0] for name, pair in one.items()} for one in every)
    not_sent = _means({name: pair[1] for name, pair in one.items()} for one in every)
    return {str(name): {"sent": sent[name], "not_sent": not_sent[name]} for name in sent}
