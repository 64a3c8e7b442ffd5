"""Promote an arm of an experiment: everybody who enters the journey from now on takes it.

The journey gets a new version. Who is in it finishes on the version they entered; `segue migrate`
moves them. docs/decisions/0035-promotion-and-holdout.md
"""

from config.database.arrays import insert_or_update
from config.database.change_counter import count_change
from config.database.engine import Tx
from config.errors import SegueError
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.definition.steps import ExperimentStep
from journeys.tables import promotions

_r = promotions.c
_PUT = insert_or_update(_r.journey, _r.step, _r.arm, _r.promoted_at)


def experiment_of(version: Version, step: str) -> ExperimentStep:
    """The experiment of that name. Raises SegueError if the version has none."""
    node = version.journey.graph.get(step)
    if node is None or not isinstance(node.step, ExperimentStep):
        names = [
            name
            for name, one in version.journey.graph.items()
            if isinstance(one.step, ExperimentStep)
        ]
        has = f"; it has: {', '.join(map(repr, names))}" if names else ""
        raise SegueError(f"{version.journey.name} has no experiment {step!r}{has}")
    return node.step


def promote(tx: Tx, catalog: Catalog, journey: str, step: str, arm: str) -> Version:
    """Promote an arm, or `holdout`; a later promotion replaces it. Returns the new version.

    Raises SegueError if there is no such journey, experiment or arm.
    """
    outcomes = experiment_of(catalog.journey(journey), step).outcomes()
    if arm not in outcomes:
        raise SegueError(f"the experiment {step!r} has no arm {arm!r}; it has: {outcomes}")
    _PUT(tx.conn, [(journey, step, arm, tx.now)])
    count_change(tx)
    tx.cache.pop("promotion", None)
    catalog.register(tx)
    return catalog.journey(journey)
