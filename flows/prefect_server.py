"""Prefect's server as `segue up` starts it: whoever reaches its API can run code on this machine.

So pages of other sites are kept from it. `PREFECT_SERVER_CORS_ALLOWED_ORIGINS` and the login are
set in its environment (flows/stack.py).
"""

from prefect.server.api import server
from starlette.types import ASGIApp

from config.browsers import OwnPagesOnly
from config.settings import load_settings


def create_app() -> ASGIApp:
    """For `uvicorn --factory`."""
    return OwnPagesOnly(server.create_app(), load_settings().host, json_only=True)
