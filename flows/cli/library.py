"""The commands that list what the library has."""

from typing import Annotated, Any

import typer

from config.channels import masked_number
from config.clock.zones import zone
from config.text.invisible_characters import visible
from flows.app import Segue
from flows.cli.output import AsJson, opened, print_json, say, say_counts, show_table
from flows.http.staff.words import masked, masked_name
from journeys.definition.segment import Segment
from journeys.engine.entry import audience_after, audience_size
from journeys.operations.control import held
from journeys.operations.counts import summarise
from journeys.operations.nightly import Nightly
from journeys.operations.personas import assign_personas, moves, persona_views
from journeys.operations.segment_counts import latest_counts
from profiles.conditions.language import Test
from profiles.conditions.words import in_words
from profiles.identity.search import summaries

commands = typer.Typer()

# What `segue segments NAME` shows: people, and days of the daily count.
_PREVIEWED = 10
_DAYS = 30


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
def segments_command(
    context: typer.Context,
    segment: Annotated[
        str | None, typer.Argument(help="Show one segment: its size, people and days.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the segments with the number of people in each, or show one of them."""
    segue = opened(context)
    if segment is not None:
        _show_segment(segue, segue.catalog.segment(segment), as_json=as_json)
        return
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


def _show_segment(segue: Segue, segment: Segment, *, as_json: bool) -> None:
    with segue.db.transaction(write=False) as tx:
        size = audience_size(tx, segment.condition)
        people = summaries(tx, audience_after(tx, segment.condition, 0, _PREVIEWED))
        days = latest_counts(tx, segment.name, _DAYS)
    some = [
        {
            "id": str(one.id),
            "name": masked_name(one.name),
            "email": visible(masked(one.email, "email")),
            "phone": str(masked_number(one.phone)).removeprefix("to ") if one.phone else "",
            "country": one.country,
        }
        for one in people
    ]
    by_day = [one._asdict() for one in days]
    about = {
        "segment": segment.name,
        "description": segment.description,
        "condition": in_words(segment.condition),
        "people": size,
    }
    if as_json:
        print_json({**about, "some": some, "days": by_day})
        return
    say_counts(about)
    _show("some", some, as_json=False)
    _show("days", by_day, as_json=False)


@commands.command(name="traits")
def traits_command(
    context: typer.Context,
    now: Annotated[
        bool, typer.Option("--now", help="First compute them for everybody, as each night.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the computed traits with the number of people who have a value."""
    segue = opened(context)
    if now:
        Nightly(segue.engine).compute_traits(again=True)
    with segue.db.transaction(write=False) as tx:
        rows = [
            {
                "trait": one.name,
                "people": audience_size(tx, Test(of="computed", name=one.name, op="exists")),
                "description": one.description,
            }
            for one in segue.catalog.traits.all.values()
        ]
    if not rows and not as_json:
        say(f"no traits; {segue.settings.definitions / 'traits.toml'} defines them")
    _show("traits", rows, as_json=as_json)


@commands.command(name="personas")
def personas_command(
    context: typer.Context,
    now: Annotated[
        bool, typer.Option("--now", help="First find everybody's persona, as each night.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the personas with their people, the journeys that send to them, and who moved."""
    segue = opened(context)
    if now:
        assign_personas(segue.db, segue.catalog.personas, zone(segue.policy.timezone))
    with segue.db.transaction(write=False) as tx:
        views = persona_views(tx, segue.catalog.personas)
        moved = [one._asdict() for one in moves(tx)]
    rows: list[dict[str, Any]] = [
        {
            "persona": one.persona.name,
            "people": one.people,
            "journeys": dict(one.journeys)
            if as_json
            else ", ".join(f"{journey} ({people})" for journey, people in one.journeys),
            "description": one.persona.description,
        }
        for one in views
    ]
    if as_json:
        print_json({"personas": rows, "moves": moved})
        return
    if not rows:
        say(f"no personas; {segue.settings.definitions / 'personas.toml'} defines them")
    _show("personas", rows, as_json=False)
    _show("moves", moved, as_json=False)


def _show(name: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({name: rows})
    elif rows:
        show_table(list(rows[0]), [[str(one) for one in row.values()] for row in rows])
