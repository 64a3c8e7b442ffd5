"""Every flow that Prefect runs: each journey of the library, and the one that controls them.

`flows.orchestration.library.cart_recovery` is an entrypoint.

Importing this loads the policy and the journeys, and touches no database.
"""

from typing import Any

from prefect import Flow

from config.errors import SegueError
from config.policy import load_policy
from config.settings import load_settings
from flows.orchestration.journey import journey_flow
from flows.orchestration.journey_controls_flow import controls_flow
from flows.orchestration.names import HOLDING, attribute
from journeys.definition.catalog import load_catalog

# Upper case, so that no journey's attribute can have the same name.
CATALOG = load_catalog(load_policy(load_settings().policy_file))
if HOLDING in CATALOG.current:
    raise SegueError(f"a journey can't be called {HOLDING!r}, as a deployment of ours is")
FLOWS: dict[str, Flow[Any, Any]] = {
    **{name: journey_flow(version, CATALOG) for name, version in CATALOG.current.items()},
    HOLDING: controls_flow(CATALOG),
}
globals().update({attribute(name): found for name, found in FLOWS.items()})
