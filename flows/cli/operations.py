"""The operator's commands: hold a journey, move people between versions, see what is wrong."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from channels.outbox.claim import settle_lost
from channels.outbox.unknown import Verdict, close_unsettled, resolve, unknown_messages
from channels.providers.registry import unmet_needs
from config.errors import SegueError
from config.times import format_duration, format_instant
from flows.cli.output import AsJson, opened, print_json, say, show_table
from flows.orchestration.journey_controls import hold
from journeys.operations.doctor import examine
from journeys.operations.migration import Passenger, migrate_people, plan_migration

commands = typer.Typer()

Apply = Annotated[bool, typer.Option("--apply", help="Do it; without, only show it.")]


@commands.command(name="pause")
def pause_command(context: typer.Context, journey: str) -> None:
    """Hold a journey: nothing of it is moved or sent until it is resumed."""
    say(hold(opened(context), journey, "pause"))


@commands.command(name="resume")
def resume_command(context: typer.Context, journey: str) -> None:
    """Let a paused or stopped journey run again; what is planned is looked at again first."""
    say(hold(opened(context), journey, "resume"))


@commands.command(name="stop")
def stop_command(context: typer.Context, journey: str) -> None:
    """End everybody's way through a journey, cancel what is planned, let nobody in."""
    say(hold(opened(context), journey, "stop"))


@commands.command()
def migrate(
    context: typer.Context,
    journey: str,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Only show it, which is also what happens without.")
    ] = False,
    apply: Apply = False,
    as_json: AsJson = False,
) -> None:
    """Show, step by step, who would move to the journey's current version; --apply moves them."""
    if plan_only and apply:
        raise SegueError("--plan only shows and --apply does it: give one of them")
    segue = opened(context)
    act: Callable[..., list[Passenger]] = migrate_people if apply else plan_migration
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
    mend: Annotated[bool, typer.Option("--mend", help="Mend what can be mended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong: settings that are missing, people past due, messages left behind."""
    segue = opened(context)
    unmet = unmet_needs(segue.settings)
    with segue.db.transaction(write=mend) as tx:
        if mend:
            settle_lost(tx)
            close_unsettled(tx)
        complaints = examine(tx)
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
    verdict: Annotated[Verdict, typer.Argument(help="What became of them.")],
    message: Annotated[
        int | None, typer.Option(help="One message; all of them if left out.")
    ] = None,
    apply: Apply = False,
) -> None:
    """Settle messages of unknown fate that no provider's call-back settled."""
    segue = opened(context)
    with segue.db.transaction(write=apply) as tx:
        found = unknown_messages(tx, message)
        if apply:
            resolve(tx, [message_id for message_id, _, _ in found], verdict)
    for message_id, channel, send_at in found:
        say(f"message {message_id}: {channel}, handed over {format_instant(send_at)}")
    done = f"settled as {verdict}" if apply else f"would be {verdict}; do it with --apply"
    say(f"{len(found)} messages {done}")
