"""What every command shares: opening Segue, the --json option and how it prints."""

import sys
from typing import Annotated, Any

import orjson
import typer

from config.settings import Settings
from flows.app import Segue, open_segue

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def opened(context: typer.Context, settings: Settings | None = None) -> Segue:
    """Segue for the command that runs now; its database is closed when the command ends."""
    segue = open_segue(settings)
    context.call_on_close(segue.db.close)
    return segue


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
