"""The receiver: one HTTP application, part of every worker.

Each module beside this one gives a `router(receiver)`; nothing but their paths is answered.
"""

from collections.abc import Callable

from fastapi import FastAPI

from flows.app import Segue
from flows.receiver import health, providers
from flows.receiver.context import Receiver


def create_app(segue: Segue, arrived: Callable[[], object]) -> FastAPI:
    """The application with all its routes."""
    app = FastAPI(title="Segue", description="Events in, answers back.", version="1")
    receiver = Receiver(segue, arrived)
    for module in (health, providers):
        app.include_router(module.router(receiver))
    return app
