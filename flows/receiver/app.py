"""The receiver: one HTTP application, part of every worker.

Each module beside this one gives a `router(receiver)`; nothing but their paths is answered.
"""

from collections.abc import Callable

from fastapi import FastAPI

from flows.app import Segue
from flows.receiver import answers, health, metrics, pages, providers, segment, starting
from flows.receiver.context import Receiver
from flows.receiver.keys import refuse_defaults


def create_app(segue: Segue, arrived: Callable[[], object]) -> FastAPI:
    """The application with all its routes. Raises SegueError for settings that would be unsafe."""
    refuse_defaults(segue.settings)
    app = FastAPI(
        title="Segue",
        description="Events in, answers back.",
        version="1",
        redirect_slashes=False,  # to wherever the Host header says
    )
    answers.install(app)
    receiver = Receiver(segue, arrived)
    for module in (health, metrics, segment, starting, providers, pages):
        app.include_router(module.router(receiver))
    return app
