"""The receiver: one HTTP application, part of every worker.

Each module beside this one gives a `router(receiver)`; nothing but their paths is answered.
"""

import logging
from collections.abc import Callable

from fastapi import FastAPI

from channels.providers.registry import refuse_unmet_needs
from flows.app import Segue
from flows.http import errors, health, metrics, reference
from flows.http.context import Receiver
from flows.http.hooks import journey_start, providers
from flows.http.ingest import consent, segment
from flows.http.limits.guessing import Guesses
from flows.http.pages import pages

_MODULES = (health, metrics, reference, segment, consent, journey_start, providers, pages)


def create_app(
    segue: Segue, arrived: Callable[[], object], guesses: Guesses | None = None
) -> FastAPI:
    """The application with all its routes. Raises SegueError for settings that would be unsafe."""
    refuse_unmet_needs(segue.settings)
    app = FastAPI(
        title="Segue",
        description="Events in, answers back.",
        version="1",
        redirect_slashes=False,  # to wherever the Host header says
        openapi_url=None,  # reference.py makes the description and a page of it, both once
        docs_url=None,
        redoc_url=None,
    )
    # The server would write down each address, and in some stands a customer's token. That it was
    # told not to is forgotten when somebody configures logging later; a filter stays.
    logging.getLogger("uvicorn.access").addFilter(_never)
    errors.install(app)
    receiver = Receiver(segue, arrived, guesses or Guesses())
    for module in _MODULES:
        app.include_router(module.router(receiver))
    return app


def _never(_record: logging.LogRecord) -> bool:
    return False
