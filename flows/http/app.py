"""The receiver: the HTTP application that every worker serves.

Each module of this package defines `router(receiver)`. Only the paths of these routers exist. POST
to those in `_PLAIN`, and GET of profiles, do not go through FastAPI (flows/http/ingest/plain.py).
"""

import logging
from collections.abc import Callable, Collection

from fastapi import FastAPI

from channels.providers.registry import refuse_unmet_needs
from flows.app import Segue
from flows.http import errors, health, metrics, profile_api, reference
from flows.http.context import Receiver
from flows.http.hooks import journey_start, providers
from flows.http.ingest import client_settings, consent, segment
from flows.http.ingest.cors import Cors
from flows.http.ingest.key_cache import KeyCache
from flows.http.ingest.keys import Authentication
from flows.http.ingest.plain import PlainPaths, endpoints_of
from flows.http.limits.guessing import Guesses
from flows.http.pages import pages

_PLAIN = (segment, consent)
_OTHERS = (health, metrics, reference, journey_start, providers, pages)


def create_app(
    segue: Segue, arrived: Callable[[Collection[int]], object], guesses: Guesses | None = None
) -> FastAPI:
    """Build the application with all its routes. Raises SegueError for unsafe settings."""
    refuse_unmet_needs(segue.settings)
    app = FastAPI(
        title="Segue",
        description="Receives events, statements of consent and provider webhooks; shows profiles.",
        version="1",
        redirect_slashes=False,  # a redirect would go to the host that the Host header names
        openapi_url=None,  # reference.py serves the description and its page
        docs_url=None,
        redoc_url=None,
    )
    # uvicorn's access log contains full paths, and some have a customer's token. Configuring
    # logging later would undo `access_log=False`, but it keeps a filter.
    logging.getLogger("uvicorn.access").addFilter(_never)
    keys = KeyCache(segue.db)
    receiver = Receiver(segue, arrived=arrived, guesses=guesses or Guesses(), keys=keys)
    auth = Authentication(receiver)
    plain = [module.router(receiver, auth) for module in _PLAIN]
    profiles = profile_api.router(receiver, auth)
    app.add_middleware(PlainPaths, posts=endpoints_of(plain), gets=endpoints_of([profiles]))
    errors.install(app)
    app.add_middleware(Cors, keys=keys)
    others = [module.router(receiver) for module in _OTHERS]
    for router in [*plain, profiles, client_settings.router(receiver, auth), *others]:
        app.router.routes.extend(router.routes)  # include_router would build each route again
    return app


def _never(_record: logging.LogRecord) -> bool:
    return False
