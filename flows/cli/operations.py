"""The operator's commands: pause a journey, move enrollments between versions, find problems."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from channels.outbox.claim import settle_lost
from channels.outbox.unknown import Verdict, close_unsettled, resolve, unknown_messages
from channels.providers.registry import unmet_needs
from config.clock.times import format_duration, format_instant
from config.errors import SegueError
from flows.cli.output import AsJson, opened, print_json, say, show_table
from flows.orchestration.journey_controls import hold
from journeys.operations.doctor import diagnose
from journeys.operations.migration import MigrationCandidate, migrate_people, plan_migration

commands = typer.Typer()

Apply = Annotated[bool, typer.Option("--apply", help="Apply the change; without it, only show it.")]


@commands.command(name="pause")
def pause_command(context: typer.Context, journey: str) -> None:
    """Pause a journey: nothing moves and nothing is sent until it is resumed."""
    say(hold(opened(context), journey, "pause"))


@commands.command(name="resume")
def resume_command(context: typer.Context, journey: str) -> None:
    """Resume a paused or stopped journey; planned messages are decided again first."""
    say(hold(opened(context), journey, "resume"))


@commands.command(name="stop")
def stop_command(context: typer.Context, journey: str) -> None:
    """Stop a journey: end its enrollments, cancel planned messages, let nobody enter."""
    say(hold(opened(context), journey, "stop"))


@commands.command()
def upgrade(context: typer.Context) -> None:
    """Upgrade the database to this release, as every process does at its start."""
    say(f"the database {opened(context).db.shown} is up to date")


@commands.command()
def migrate(
    context: typer.Context,
    journey: str,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Only show the plan (the default).")
    ] = False,
    apply: Apply = False,
    as_json: AsJson = False,
) -> None:
    """Show which enrollments would move to the journey's current version; --apply moves them."""
    if plan_only and apply:
        raise SegueError("--plan only shows and --apply does it: give one of them")
    segue = opened(context)
    act: Callable[..., list[MigrationCandidate]] = migrate_people if apply else plan_migration
    with segue.db.transaction(write=apply) as tx:
        plan = act(tx, segue.catalog, journey)
    if as_json:
        print_json({"applied": apply, "steps": [asdict(passenger) for passenger in plan]})
        return
    if not plan:
        say(f"everybody in {journey} is on the current version")
        return
    show_table(
        ("version", "step", "people", "goes to", "why"),
        [(one.version, one.step, str(one.people), one.to_step or "stays", one.why) for one in plan],
    )
    say("moved" if apply else "nothing is moved yet; do it with --apply")


@commands.command()
def doctor(
    context: typer.Context,
    mend: Annotated[bool, typer.Option("--mend", help="Fix what can be fixed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Report problems: missing settings, enrollments past due, messages left behind."""
    segue = opened(context)
    unmet = unmet_needs(segue.settings)
    with segue.db.transaction(write=mend) as tx:
        if mend:
            settle_lost(tx)
            close_unsettled(tx)
        complaints = diagnose(tx)
    if as_json:
        print_json(
            {"settings": unmet, "complaints": [asdict(complaint) for complaint in complaints]}
        )
    for line in () if as_json else unmet:
        say(line)
    for complaint in () if as_json else complaints:
        say(
            f"{complaint.what}: {complaint.number} ({complaint.where}), the oldest for "
            f"{format_duration(complaint.for_seconds)}; {complaint.mend}"
        )
    if unmet or complaints:
        raise typer.Exit(1)
    if not as_json:
        say("all is well")


@commands.command(name="resolve")
def resolve_command(
    context: typer.Context,
    verdict: Annotated[Verdict, typer.Argument(help="Their outcome.")],
    message: Annotated[
        int | None, typer.Option(help="One message; default: all unknown ones.")
    ] = None,
    apply: Apply = False,
) -> None:
    """Resolve unknown messages that no webhook has resolved."""
    segue = opened(context)
    with segue.db.transaction(write=apply) as tx:
        found = unknown_messages(tx, message)
        if apply:
            resolve(tx, [message_id for message_id, _, _ in found], verdict)
    for message_id, channel, send_at in found:
        say(f"message {message_id}: {channel}, handed over {format_instant(send_at)}")
    done = f"settled as {verdict}" if apply else f"would be {verdict}; do it with --apply"
    say(f"{len(found)} messages {done}")
