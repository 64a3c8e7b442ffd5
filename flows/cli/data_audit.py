"""`segue audit-data`: what is collected, and what reads it."""

from typing import Annotated

import typer

from config.clock.times import format_instant
from flows.cli.output import AsJson, opened, print_json, say, show_table
from journeys.operations.data_audit import audit_data

commands = typer.Typer()


@commands.command(name="audit-data")
def audit_data_command(
    context: typer.Context,
    unread: Annotated[bool, typer.Option("--unread", help="Only what nothing reads.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every attribute, event and property with how many have it, and what reads it."""
    segue = opened(context)
    with segue.db.transaction(write=False) as tx:
        found = [one for one in audit_data(tx, segue.catalog) if not (unread and one.read_by)]
    if as_json:
        rows = [
            {
                "kind": one.datum.kind,
                "name": one.datum.name,
                "number": one.number,
                "newest": format_instant(one.newest),
                "read_by": one.read_by,
            }
            for one in found
        ]
        print_json({"data": rows})
        return
    show_table(
        ["kind", "name", "number", "newest", "read by"],
        [
            [
                one.datum.kind,
                one.datum.name,
                f"{one.number:,}",
                format_instant(one.newest),
                ", ".join(one.read_by) or "nothing",
            ]
            for one in found
        ],
    )
    if not found:
        say("everything that is collected is read" if unread else "nothing is collected yet")
