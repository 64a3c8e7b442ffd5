"""`segue simulate`: what journeys would do in the coming days."""

from datetime import datetime
from typing import Annotated, Any

import typer

from config.errors import SegueError
from config.settings import load_settings
from flows.cli.output import AsJson, print_json, say, show_table
from flows.cli.times import Now, at_time
from flows.launch import MOST_PEOPLE
from flows.simulate import MOST_DAYS, MOST_SEEDS, answer
from flows.simulation_tables import notes, runs_of, tables

commands = typer.Typer()


@commands.command(name="simulate")
def simulate_command(
    journey: Annotated[str | None, typer.Argument(help="A journey; or --all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All journeys together.")] = False,
    audience: Annotated[
        str | None,
        typer.Option(help="Launch the journey for this segment now; default: its own entry."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=MOST_DAYS)] = 30,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MOST_PEOPLE, help="The launch enters at most so many.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=MOST_SEEDS, help="Runs with different draws.")
    ] = 1,
    opens: Annotated[
        float | None, typer.Option(min=0, max=1, help="The share of messages that are opened.")
    ] = None,
    clicks: Annotated[
        float | None, typer.Option(min=0, max=1, help="The share of messages that are clicked.")
    ] = None,
    buys: Annotated[
        float | None, typer.Option(min=0, max=1, help="The share of enrollments that buy.")
    ] = None,
    unsubscribes: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The share of messages that are unsubscribed from."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Another policy file (.toml), or another version of the journey."),
    ] = None,
    replay: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Repeat what happened from this past day on, instead of looking ahead.",
        ),
    ] = None,
    now: Now = None,
    as_json_: AsJson = False,
) -> None:
    """Show what journeys would do, on a copy of the shop; nothing is sent or stored."""
    if (journey is None) != everything:
        raise SegueError("name one journey, or simulate all of them with --all")
    found = answer(
        at_time(load_settings(), now),
        journey=journey,
        audience=audience,
        days=days,
        people=limit,
        seeds=seeds,
        shares={
            "opened": opens,
            "clicked": clicks,
            "bought": buys,
            "unsubscribed": unsubscribes,
        },
        compare=compare,
        replay=None if replay is None else replay.date(),
    )
    if as_json_:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    runs = runs_of(found)
    say(f"{', '.join(found['journeys'])}: {found['from']} to {found['to']}")
    totals, *others = tables(runs)
    show_table(totals.headings, totals.rows)
    for note in notes(runs):
        say(note, style="yellow" if "warning: " in note else "")
    for one in others:
        show_table(one.headings, one.rows)
