"""The command line: `segue ...`. Errors go to standard error and give a non-zero exit status.

Prefect, the receiver and the importer are imported only by the commands that need them: they take
longer to load than all else.
"""

import asyncio
import io
import logging
import os
import signal
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated

import typer
from sqlalchemy.exc import DBAPIError

from channels.explain import history_of, profile_named
from channels.rules.cases import answer_case
from channels.rules.planner import Planner
from config.access.private_files import UMASK
from config.channels import by_channel
from config.clock.times import format_instant, parse_instant
from config.clock.zones import format_local
from config.database.failures import of_the_database, reason_of
from config.errors import SegueError
from config.logs.setup import log_to
from config.policy import load_policy
from config.settings import load_settings
from flows.app import Segue
from flows.cli.analytics import commands as analytics_commands
from flows.cli.approvals import commands as approval_commands
from flows.cli.cases import Cases, answer_cases
from flows.cli.check import commands as check_commands
from flows.cli.data_audit import commands as data_audit_commands
from flows.cli.duplicates import commands as duplicate_commands
from flows.cli.imports import commands as import_commands
from flows.cli.joins import commands as join_commands
from flows.cli.keys import commands as key_commands
from flows.cli.library import commands as library_commands
from flows.cli.match import commands as match_commands
from flows.cli.new_shop import commands as new_shop_commands
from flows.cli.operations import commands
from flows.cli.output import AsJson, opened, print_json, say, say_counts, say_if_held
from flows.cli.privacy import commands as privacy_commands
from flows.cli.privacy import sample_commands
from flows.cli.render import commands as render_commands
from flows.cli.report import commands as report_commands
from flows.cli.simulation import commands as simulation_commands
from flows.cli.staff import commands as staff_commands
from flows.cli.times import Now, at_time
from flows.launch import MOST_PEOPLE, launch, launch_dry_run
from journeys.explain.standing import standings_of
from journeys.explain.timeline import joins_of
from journeys.launches.undo import undo_launch

log = logging.getLogger(__name__)

app = typer.Typer(
    name="segue",
    help="Cross-channel customer journeys on Prefect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(commands)
app.add_typer(import_commands)
app.add_typer(match_commands)
app.add_typer(approval_commands)
app.add_typer(analytics_commands)
app.add_typer(simulation_commands)
app.add_typer(report_commands)
app.add_typer(render_commands)
app.add_typer(library_commands)
app.add_typer(new_shop_commands)
app.add_typer(check_commands)
app.add_typer(data_audit_commands)
app.add_typer(privacy_commands)
app.add_typer(join_commands)
app.add_typer(key_commands, name="keys")
app.add_typer(duplicate_commands, name="duplicates")
app.add_typer(staff_commands, name="staff")
app.add_typer(sample_commands, name="sample")


def main() -> None:
    """Run the command line. A SegueError or a database error becomes one line of text and exit
    status 1. New files are readable by their owner only.
    """
    os.umask(UMASK)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Escape characters that the terminal's encoding lacks, instead of raising an error.
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="segue")
    except (SegueError, DBAPIError) as error:
        if not isinstance(error, SegueError) and not of_the_database(error):
            raise
        what = error if isinstance(error, SegueError) else f"database error: {reason_of(error)}"
        say(f"segue: {what}", error=True, style="red")
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"segue {version('segue')}")
        raise typer.Exit


@app.callback()
def root(
    _show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Cross-channel customer journeys on Prefect."""


@app.command()
def up() -> None:
    """Run everything on this machine: Prefect, the sandbox providers, the worker, a sample shop."""
    from flows.local.up import up as run

    sys.exit(run(load_settings()))


@app.command()
def demo() -> None:
    """Start everything, run one journey to its end on a simulated clock, print a summary."""
    from flows.local.demo import demo as run

    sys.exit(run())


@app.command(name="work")
def work_command(
    context: typer.Context,
) -> None:
    """Receive events, move due enrollments and send due messages, until stopped."""
    import uvloop

    from flows.worker.worker import Worker

    log_to(sys.stderr, load_settings().log_level)

    async def run(segue: Segue) -> None:
        stop = asyncio.Event()
        for wanted in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(wanted, stop.set)
        await Worker(segue).run(stop)

    segue = opened(context)
    try:
        uvloop.run(run(segue))
    except SegueError:
        raise
    except Exception as error:
        # The error's message may contain customer data.
        log.critical("the worker stops: %s", reason_of(error))
        raise typer.Exit(1) from None


@app.command()
def deploy(
    work_pool: Annotated[str, typer.Option(help="The Prefect work pool that runs journeys.")],
    as_json: AsJson = False,
) -> None:
    """Create a Prefect deployment of every journey, for the workers of a work pool."""
    from flows.orchestration.deployments import deploy as run

    names = run(work_pool)
    if as_json:
        print_json({"work_pool": work_pool, "deployed": names})
    for name in () if as_json else names:
        say(f"deployed {name}")


@app.command(name="launch")
def launch_command(
    context: typer.Context,
    journey: Annotated[str | None, typer.Argument()] = None,
    audience: Annotated[str | None, typer.Option(help="A segment's name.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MOST_PEOPLE, help="Enter at most this many profiles.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show what would happen; change nothing.")] = False,
    now: Now = None,
    launch_id: Annotated[
        str | None, typer.Option("--id", help="A repeated id enters nobody twice.")
    ] = None,
    undo: Annotated[
        str | None,
        typer.Option(metavar="LAUNCH", help="Show what an undo of this launch would change."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="With --undo: undo the launch.")] = False,
    as_json: AsJson = False,
) -> None:
    """Enter an audience into a journey and send what is due, or wait for an approval.

    With --undo LAUNCH: take back what a launch has not sent yet.
    """
    if undo is not None:
        if journey or audience or limit or dry_run or launch_id:
            raise SegueError("--undo takes the id of a launch, and only --apply, --now and --json")
        _undo(opened(context, at_time(load_settings(), now)), undo, apply=apply, as_json=as_json)
        return
    if apply:
        raise SegueError("--apply goes with --undo")
    if journey is None or audience is None:
        raise typer.BadParameter("give a journey and --audience, or --undo with a launch's id")
    segue = opened(context, at_time(load_settings(), now))
    if dry_run:
        result = launch_dry_run(segue, journey, audience, people=limit)
    else:
        result = launch(segue, journey, audience, people=limit, launch_id=launch_id)
    say_if_held(segue, journey)
    if as_json:
        print_json(result)
    else:
        say_counts(result)


def _undo(segue: Segue, launch_id: str, *, apply: bool, as_json: bool) -> None:
    undone = undo_launch(segue.db, launch_id, apply=apply)
    if as_json:
        print_json(undone.as_json())
        return
    say(f"{undone.journey} for {undone.audience}, launch {undone.launch}: {undone.people} people")
    will = "" if apply else "would be "
    say(f"messages {will}cancelled: {_by_channel(undone.cancelled)}")
    say(f"people whose journey {'ended' if apply else 'would end'}: {undone.ended}")
    say(f"people {will}treated as if they had never entered: {undone.never_entered}")
    say(f"gone, which nothing takes back: {_by_channel(undone.gone)}")
    if not apply:
        say("Nothing was changed. To undo the launch, add --apply")


def _by_channel(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {channel}" for channel, number in by_channel(counts).items())


@app.command()
def decide(cases: Cases) -> None:
    """Decide test cases, one JSON object a line. See docs/reference/decide.md."""
    planner = Planner(load_policy(load_settings().policy_file))
    answer_cases(cases, lambda case: answer_case(case, planner))


@app.command()
def explain(
    context: typer.Context,
    person: Annotated[str, typer.Argument(help="A user id, e-mail, phone number or message id.")],
    as_json: AsJson = False,
) -> None:
    """Show where one profile stands in each journey, and every message to it, with the reasons."""
    segue = opened(context)
    with segue.db.transaction(write=False) as tx:
        profile_id = profile_named(tx, person, segue.rules.meaningless)
        history = history_of(tx, person, segue.rules.meaningless)
        standings = standings_of(tx, segue.catalog, segue.policy, profile_id)
        joins = joins_of(tx, profile_id)
    if as_json:
        told = [
            {"at": format_instant(one.at), "join": one.what, "why": one.why, **dict(one.details)}
            for one in joins
        ]
        print_json([*history, *standings.as_json(), *told])
        return
    say(standings.about_zone)
    for standing in standings.journeys:
        say(f"{standing.journey}: {standing.why}")
    for message in history:
        at = format_local(parse_instant(message["at"]), standings.zone)
        what = f"{at}  {message['channel']:5}  {message['journey']} / {message['step']}"
        say(f"{what}: {message['why']}")
        for one in message.get("devices", ()):
            say(f"    {one['device']}: {one['why']}")
    if not history:
        say("No message to the customer was planned.")
    for one in joins:
        details = ", ".join(f"{label} {value}" for label, value in one.details)
        say(f"{format_local(one.at, standings.zone)}  {one.what} ({details}): {one.why}")


if __name__ == "__main__":
    main()
