"""Who is in which arm of an experiment, since when, and whether they converted.

The arm of a profile is that of its first passage by the step, also after joins and re-entries. Two
tables have the passages: `passage`, and after its retention `experiment_arm`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, select, union_all

from config.clock.times import Instant
from config.database.engine import Tx
from journeys.analytics.revenue import Ids
from journeys.definition.catalog import Catalog
from journeys.definition.steps import HOLDOUT, ExperimentStep
from journeys.enrollments import enrollments
from journeys.tables import experiment_arms, passages

_e = enrollments.c
_drawn = union_all(
    *(
        select(
            *(table.c[name] for name in ("profile_id", "enrollment_id", "outcome", "at", "bucket"))
        ).where(table.c.journey == bindparam("of_journey"), table.c.step == bindparam("at_step"))
        for table in (passages, experiment_arms)
    )
).subquery()
_DRAWN = (
    select(_drawn.c.profile_id, _drawn.c.outcome, _drawn.c.at, _e.version, _e.converted_at)
    .join(enrollments, (_e.id == _drawn.c.enrollment_id) & (_e.bucket == _drawn.c.bucket))
    .order_by(_drawn.c.profile_id, _drawn.c.at, _drawn.c.enrollment_id)
)


class _Drawn(NamedTuple):
    """One passage by an experiment."""

    profile_id: int
    arm: str
    at: Instant
    version: str
    converted_at: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignments:
    """The people of an experiment, sorted by profile.

    arms: their names, the control first: the holdout, or else the first arm. profile_ids, places,
    since, converted: one element for each person; places are those in `arms`. expected: how many
    people the weights give each arm. mixed: people who took several arms before they were joined;
    they are in no figure.
    """

    arms: tuple[str, ...]
    profile_ids: Ids
    places: Ids
    since: Ids
    converted: NDArray[np.bool_]
    expected: tuple[float, ...]
    mixed: int


def read_assignments(tx: Tx, catalog: Catalog, journey: str, step: str) -> Assignments:
    """The people who were drawn by this experiment, in any version of the journey.

    Without those whose first passage was by a promoted arm, which draws nobody.
    """
    catalog.catch_up(tx)
    versions = _drawing(catalog, journey, step)
    arms = _arms(versions)
    numbers = {name: number for number, name in enumerate(arms)}
    expected = np.zeros(len(arms))
    found: list[tuple[int, int, int, bool]] = []
    mixed = 0
    given = {"of_journey": journey, "at_step": step}
    rows = map(_Drawn._make, tx.conn.execute(_DRAWN, given))
    for profile_id, theirs in groupby(rows, attrgetter("profile_id")):
        first, *others = theirs
        if first.version not in versions or first.arm not in numbers:
            continue
        if any(one.version in versions and one.arm != first.arm for one in others):
            mixed += 1
            continue
        converted = any(
            one.converted_at is not None and one.converted_at >= first.at
            for one in (first, *others)
        )
        found.append((profile_id, numbers[first.arm], first.at, converted))
        for arm, share in shares_of(versions[first.version]).items():
            expected[numbers[arm]] += share
    table = np.array(found, dtype=np.int64).reshape(-1, 4).T
    return Assignments(
        arms=arms,
        profile_ids=table[0],
        places=table[1],
        since=table[2],
        converted=table[3].astype(bool),
        expected=tuple(expected.tolist()),
        mixed=mixed,
    )


def control_first(step: ExperimentStep) -> list[str]:
    """The outcomes of an experiment, the control first: the holdout, or else the first arm."""
    return sorted(step.outcomes(), key=lambda arm: arm != HOLDOUT)


def _drawing(catalog: Catalog, journey: str, step: str) -> dict[str, ExperimentStep]:
    """The experiment in each version that draws, by digest, the current one first."""
    return {
        version.digest: node.step
        for version in catalog.versions(journey)
        if (node := version.journey.graph.get(step)) is not None
        and isinstance(node.step, ExperimentStep)
        and node.step.promoted is None
    }


def _arms(versions: Mapping[str, ExperimentStep]) -> tuple[str, ...]:
    """The arms of all versions, the control first."""
    names = dict.fromkeys(arm for one in versions.values() for arm in control_first(one))
    return tuple(sorted(names, key=lambda arm: arm != HOLDOUT))


def shares_of(step: ExperimentStep) -> dict[str, float]:
    """The part of people that each outcome gets, the control first."""
    weights = sum(arm.weight for arm in step.arms)
    drawn = 1 - step.holdout / 100
    shares = {arm.name: drawn * arm.weight / weights for arm in step.arms}
    return {arm: shares.get(arm, step.holdout / 100) for arm in control_first(step)}
