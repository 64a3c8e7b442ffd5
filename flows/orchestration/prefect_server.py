"""Prefect's server as `segue up` starts it.

Whoever reaches its API can run code on this machine, so pages of other sites are kept from it.
`PREFECT_SERVER_CORS_ALLOWED_ORIGINS` and the login are set in its environment by
flows/local/stack.py.
"""

from typing import Any

from prefect.server.api import deployments, server
from prefect.utilities.schema_tools.validation import validate
from starlette.types import ASGIApp

from config.access.same_origin import OwnPagesOnly
from config.settings import load_settings


def create_app() -> ASGIApp:
    """For `uvicorn --factory`."""
    # Prefect stores only some members of a deployment's schema, and additionalProperties is not
    # one of them. So it is added where parameters are checked against the schema.
    vars(deployments)["validate"] = _validate_known
    return OwnPagesOnly(server.create_app(), load_settings().host, json_only=True)


def _validate_known(parameters: dict[str, Any], schema: dict[str, Any], **options: Any) -> object:
    """Prefect's check of parameters, which also refuses those that the schema does not name."""
    return validate(parameters, {**schema, "additionalProperties": False}, **options)
