"""The commands that list what the library has."""

from typing import Any

import typer

from flows.cli.output import AsJson, opened, print_json, show_table
from journeys.engine.entry import audience_size
from journeys.operations.control import held
from journeys.operations.counts import summarise

commands = typer.Typer()


@commands.command(name="journeys")
def journeys_command(context: typer.Context, as_json: AsJson = False) -> None:
    """List the journeys with their state and the people in them."""
    segue = opened(context)
    with segue.db.transaction(write=False) as tx:
        states = held(tx)
        rows = [
            {
                "journey": name,
                "state": states.get(name, "running"),
                "entry": version.journey.entry.described,
                "active": summarise(tx, name).active,
                "description": version.journey.description,
            }
            for name, version in sorted(segue.catalog.current.items())
        ]
    _show("journeys", rows, as_json=as_json)


@commands.command(name="segments")
def segments_command(context: typer.Context, as_json: AsJson = False) -> None:
    """List the segments with the number of people in each."""
    segue = opened(context)
    with segue.db.transaction(write=False) as tx:
        rows = [
            {
                "segment": one.name,
                "people": audience_size(tx, one.condition),
                "description": one.description,
            }
            for one in segue.catalog.segments.values()
        ]
    _show("segments", rows, as_json=as_json)


def _show(name: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({name: rows})
    elif rows:
        show_table(list(rows[0]), [[str(one) for one in row.values()] for row in rows])
