"""The commands about launches that wait for an approval."""

import getpass
from typing import Annotated

import typer

from config.errors import SegueError
from flows.approval import approve_launch, reject_launch
from flows.cli.output import AsJson, opened, print_json, say, say_counts, say_done, show_table
from flows.launch import launch
from journeys.launches.approvals import APPROVED, all_approvals

commands = typer.Typer()

DecidedBy = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Who decides; default: the user of the system."),
]


@commands.command()
def approvals(context: typer.Context, as_json: AsJson = False) -> None:
    """List the launches that asked for an approval, with their outcome."""
    segue = opened(context)
    with segue.db.transaction(write=False) as tx:
        found = [row.as_json(tx.now) for row in all_approvals(tx)]
    if as_json:
        print_json({"approvals": found})
        return
    if not found:
        say("no launch has asked for an approval")
        return
    show_table(
        ("launch", "journey", "audience", "state", "why", "until", "decided by", "note"),
        [
            (
                one["launch"],
                one["journey"],
                f"{one['audience']} ({one['people']:,})",
                one["state"],
                one["why"],
                one["lapses_at"],
                one["decided_by"] or "",
                one["note"] or "",
            )
            for one in found
        ],
    )
    for one in found:
        if one["state"] == "waiting":
            say(f"{one['launch']} would be:")
            say_counts(one["summary"])


@commands.command(name="approve")
def approve_command(
    context: typer.Context,
    launch_id: Annotated[str, typer.Argument(metavar="LAUNCH")],
    by: DecidedBy = None,
    as_json: AsJson = False,
) -> None:
    """Approve a launch that waits, and start it."""
    segue = opened(context)
    verdict = approve_launch(segue, launch_id, by or getpass.getuser())
    row = verdict.row
    if row.state != APPROVED:
        raise SegueError(verdict.text)
    result = (
        launch(segue, row.journey, row.audience, people=row.people, launch_id=launch_id)
        if verdict.changed
        else {}
    )
    if as_json:
        print_json(
            {"launch": launch_id, "approved_by": row.decided_by, "changed": verdict.changed}
            | result
        )
        return
    say(verdict.text)
    say_counts(result)


@commands.command(name="reject")
def reject_command(
    context: typer.Context,
    launch_id: Annotated[str, typer.Argument(metavar="LAUNCH")],
    reason: Annotated[str, typer.Option(help="Why it must not start.")],
    by: DecidedBy = None,
    as_json: AsJson = False,
) -> None:
    """Reject a launch that waits: it never starts."""
    segue = opened(context)
    verdict = reject_launch(segue, launch_id, by or getpass.getuser(), reason)
    if not verdict.changed:
        raise SegueError(verdict.text)
    by_whom = verdict.row.decided_by
    say_done(verdict.text, as_json=as_json, launch=launch_id, rejected_by=by_whom)
