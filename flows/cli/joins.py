"""The command that undoes a join of two profiles."""

from typing import Annotated

import typer

from flows.cli.output import AsJson, opened, print_json, say
from journeys.operations.unmerge import UndoneJoin, preview_undo, unmerge

commands = typer.Typer()


@commands.command(name="unmerge")
def unmerge_command(
    context: typer.Context,
    join: Annotated[int, typer.Argument(help="The number of the join; `segue explain` shows it.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go to whom.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Undo a join of two profiles; what came since goes to whom it was said of.

    A no stays with both, and the two are not joined again by a call.
    """
    segue = opened(context)
    with segue.db.transaction(write=not dry_run) as tx:
        done = preview_undo(tx, join) if dry_run else unmerge(tx, join, segue.rules, "command line")
    if as_json:
        print_json({"applied": not dry_run, **done.as_json()})
        return
    for line in undo_lines(done):
        say(line)
    say("nothing was changed; without --dry-run it is" if dry_run else f"join {join} is undone")


def undo_lines(done: UndoneJoin) -> list[str]:
    """What an undo gives to whom, in sentences."""
    lines = [f"join {done.join}: {done.why}, by {done.source}"]
    for number, keys in done.identifiers.items():
        named = ", ".join(f"{kind} {value}" for kind, value in keys) or "no identifier"
        what = "keeps" if number == done.holder else "gets back"
        lines.append(f"customer {number} {what} {named}")
    rows = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in done.rows.items())
    lines.append(f"to customer {done.leaves} go {rows}")
    return lines
