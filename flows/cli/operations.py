"""The operator's commands: control a journey, migrate enrollments, find and resolve problems."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from channels.outbox.unknown import Verdict, close_unsettled, resolve, settle_lost, unknown_messages
from channels.providers.registry import unmet_needs
from config.clock.times import format_duration, format_instant
from config.errors import SegueError
from flows.cli.output import AsJson, opened, print_json, say, say_done, show_table
from flows.orchestration.journey_controls import Action, control_journey
from journeys.operations.control import held, held_note
from journeys.operations.doctor import diagnose
from journeys.operations.migration import MigrationCandidate, migrate_people, plan_migration
from journeys.operations.retention import Removed, Retention

commands = typer.Typer()

Apply = Annotated[bool, typer.Option("--apply", help="Apply the change; without it, only show it.")]


@commands.command(name="pause")
def pause_command(context: typer.Context, journey: str, as_json: AsJson = False) -> None:
    """Pause a journey: nothing moves and nothing is sent until it is resumed."""
    _control(context, journey, "pause", as_json)


@commands.command(name="resume")
def resume_command(context: typer.Context, journey: str, as_json: AsJson = False) -> None:
    """Resume a paused or stopped journey; planned messages are checked again first."""
    _control(context, journey, "resume", as_json)


@commands.command(name="stop")
def stop_command(context: typer.Context, journey: str, as_json: AsJson = False) -> None:
    """Stop a journey: end its enrollments, cancel planned messages, refuse entries."""
    _control(context, journey, "stop", as_json)


def _control(context: typer.Context, journey: str, action: Action, as_json: bool) -> None:
    said = control_journey(opened(context), journey, action)
    say_done(said, as_json=as_json, journey=journey, action=action)


@commands.command()
def upgrade(context: typer.Context, as_json: AsJson = False) -> None:
    """Upgrade the database to this release, as every process does at its start."""
    shown = opened(context).db.shown
    say_done(f"the database {shown} is up to date", as_json=as_json, database=shown)


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
        raise SegueError("--plan and --apply exclude each other: give one of them")
    segue = opened(context)
    act: Callable[..., list[MigrationCandidate]] = migrate_people if apply else plan_migration
    with segue.db.transaction(write=apply) as tx:
        plan = act(tx, segue.catalog, journey)
    if as_json:
        print_json({"applied": apply, "steps": [asdict(candidate) for candidate in plan]})
        return
    if not plan:
        say(f"all enrollments of {journey} are on the current version")
        return
    show_table(
        ("version", "step", "enrollments", "new step", "reason"),
        [(one.version, one.step, str(one.people), one.to_step or "stays", one.why) for one in plan],
    )
    say("moved" if apply else "nothing was moved; to move them, add --apply")


@commands.command()
def doctor(
    context: typer.Context,
    mend: Annotated[bool, typer.Option("--mend", help="Fix what can be fixed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Report problems: missing settings, overdue enrollments, overdue or unknown messages."""
    segue = opened(context)
    unmet = unmet_needs(segue.settings)
    with segue.db.transaction(write=mend) as tx:
        if mend:
            settle_lost(tx)
            close_unsettled(tx)
        findings, holding = diagnose(tx), held(tx)
    if as_json:
        complaints = [asdict(finding) for finding in findings]
        print_json({"settings": unmet, "complaints": complaints, "held": holding})
    for journey, state in () if as_json else holding.items():
        say(held_note(journey, state))
    for line in () if as_json else unmet:
        say(line)
    for finding in () if as_json else findings:
        say(
            f"{finding.what}: {finding.number} ({finding.where}), the oldest for "
            f"{format_duration(finding.for_seconds)}; {finding.mend}"
        )
    if unmet or findings:
        raise typer.Exit(1)
    if not as_json:
        say("no problems found")


@commands.command()
def tidy(context: typer.Context, as_json: AsJson = False) -> None:
    """Apply the retention of messages, passages and events now, as workers do bit by bit."""
    segue = opened(context)
    retention = Retention(segue.engine, segue.settings, chunks=sys.maxsize)
    # A worker may have begun a walk: the first call ends it, the second one is from the beginning.
    both = retention.apply(), retention.apply()
    removed = Removed(*map(sum, zip(*both, strict=True)))
    say_done(
        f"removed {removed.messages} messages, {removed.passages} passages, the properties of "
        f"{removed.events} events and {removed.acts} acts of the staff's log",
        as_json=as_json,
        **removed._asdict(),
    )


@commands.command(name="resolve")
def resolve_command(
    context: typer.Context,
    verdict: Annotated[Verdict, typer.Argument(help="The outcome to record.")],
    message: Annotated[
        int | None, typer.Option(help="One message; default: all unknown ones.")
    ] = None,
    apply: Apply = False,
    as_json: AsJson = False,
) -> None:
    """Resolve unknown messages that no webhook has resolved."""
    segue = opened(context)
    with segue.db.transaction(write=apply) as tx:
        found = unknown_messages(tx, message)
        if apply:
            resolve(tx, [message_id for message_id, _, _ in found], verdict)
    for message_id, channel, send_at in () if as_json else found:
        say(f"message {message_id}: {channel}, handed over {format_instant(send_at)}")
    done = f"marked as {verdict}" if apply else f"would be {verdict}; to mark them, add --apply"
    say_done(
        f"{len(found)} messages {done}",
        as_json=as_json,
        applied=apply,
        verdict=verdict,
        messages=[
            {"message": message_id, "channel": channel, "handed_over": format_instant(send_at)}
            for message_id, channel, send_at in found
        ],
    )
