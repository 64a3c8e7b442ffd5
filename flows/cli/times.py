"""The option --now of commands."""

from typing import Annotated

import typer

from config.clock.times import parse_instant
from config.errors import SegueError
from config.settings import Settings

Now = Annotated[
    str | None,
    typer.Option("--now", help="Use this time as now (ISO 8601); sandbox only."),
]


def at_time(settings: Settings, now: str | None) -> Settings:
    """The settings with the time of the option. Raises SegueError if it is not a time."""
    if now is None:
        return settings
    try:
        return settings.model_copy(update={"now": parse_instant(now)})
    except ValueError as error:
        raise SegueError(f"--now: {error}") from error
