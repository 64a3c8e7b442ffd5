"""Prefect's server as `segue up` starts it.

A client of its API can run code on this machine, so it refuses requests from pages of other sites.
flows/local/stack.py sets `PREFECT_SERVER_CORS_ALLOWED_ORIGINS` and the login in its environment.
"""

from typing import Any

from prefect.server.api import deployments, server
from prefect.utilities.schema_tools.validation import validate
from starlette.types import ASGIApp

from config.access.same_origin import OwnPagesOnly
from config.settings import load_settings


def create_app() -> ASGIApp:
    """For `uvicorn --factory`."""
    # Prefect does not store `additionalProperties` of a deployment's schema, so it is added where
    # parameters are validated.
    vars(deployments)["validate"] = _validate_known
    return OwnPagesOnly(server.create_app(), load_settings().host, json_only=True)


def _validate_known(parameters: dict[str, Any], schema: dict[str, Any], **options: Any) -> object:
    """Prefect's check of parameters, which also refuses those that the schema does not name."""
    return validate(parameters, {**schema, "additionalProperties": False}, **options)
