"""Every journey of the library as a Prefect flow: `flows.library.cart_recovery` is an entrypoint.

Importing this loads the policy and the journeys, and touches no database.
"""

from typing import Any

from prefect import Flow

from config.policy import load_policy
from config.settings import load_settings
from flows.journey import journey_flow
from flows.names import attribute
from journeys.catalog import load_catalog

# Upper case, so that no journey's name can be the same.
CATALOG = load_catalog(load_policy(load_settings().policy_file))
FLOWS: dict[str, Flow[Any, Any]] = {
    name: journey_flow(version, CATALOG) for name, version in CATALOG.current.items()
}
globals().update({attribute(name): found for name, found in FLOWS.items()})
