"""Every flow that Prefect runs: one for each journey, one that controls them, one that approves
launches, one that simulates journeys, the yardstick, and one that finds duplicates.

Each flow is an attribute, which Prefect uses as the entrypoint, such as
`flows.orchestration.library.cart_recovery`. The import loads the policy and the journeys, without
the database.
"""

from typing import Any

from prefect import Flow

from config.errors import SegueError
from config.policy import load_policy
from config.settings import load_settings
from flows.orchestration.approvals_flow import approvals_flow
from flows.orchestration.duplicates_flow import duplicates_flow
from flows.orchestration.journey import journey_flow
from flows.orchestration.journey_controls_flow import controls_flow
from flows.orchestration.names import (
    APPROVALS,
    CONTROLS,
    DUPLICATES,
    SIMULATION,
    YARDSTICK,
    attribute,
)
from flows.orchestration.simulation_flow import simulation_flow
from flows.orchestration.yardstick_flow import yardstick_flow
from journeys.definition.catalog import load_catalog

# Upper case, so that no journey's attribute can have the same name.
_SETTINGS = load_settings()
CATALOG = load_catalog(load_policy(_SETTINGS.policy_file), _SETTINGS.library, _SETTINGS.definitions)
for name in (CONTROLS, APPROVALS, YARDSTICK, SIMULATION, DUPLICATES):
    if name in CATALOG.current:
        raise SegueError(f"rename the journey {name!r}: Segue has a deployment of that name")
FLOWS: dict[str, Flow[Any, Any]] = {
    **{name: journey_flow(version, CATALOG) for name, version in CATALOG.current.items()},
    CONTROLS: controls_flow(CATALOG),
    APPROVALS: approvals_flow(),
    YARDSTICK: yardstick_flow,
    SIMULATION: simulation_flow(CATALOG),
    DUPLICATES: duplicates_flow,
}
globals().update({attribute(name): found for name, found in FLOWS.items()})
