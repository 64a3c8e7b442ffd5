"""`segue simulate`: what journeys would do in the coming days."""

from typing import Annotated, Any

import typer

from config.clock.times import format_duration
from config.errors import SegueError
from config.settings import load_settings
from flows.cli.output import AsJson, print_json, say, show_table
from flows.cli.times import Now, at_time
from flows.launch import MOST_PEOPLE
from flows.orchestration.pages.simulation_page import total
from flows.simulate import MOST_DAYS, MOST_SEEDS, answer

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
    )
    if as_json_:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    columns = [found, *([found["compared"]] if "compared" in found else [])]
    names = ["", "now", str(found.get("compare", ""))][: len(columns) + 1]
    say(f"{', '.join(found['journeys'])}: {found['from']} to {found['to']}")
    rows = [
        [name.replace("_", " "), *(total(one, name) for one in columns)]
        for name in ("people", "entered", "sent", "not_sent", "converted", "unsubscribes")
    ]
    for part in ("sent", "not_sent"):
        kinds = sorted({kind for one in columns for kind in one[part]})
        rows += [
            [
                f"{part.replace('_', ' ')}: {kind}",
                *(f"{one[part].get(kind, 0):,}" for one in columns),
            ]
            for kind in kinds
        ]
    rows += [
        [f"messages a person, {part}", *(str(one["messages_a_person"][part]) for one in columns)]
        for part in ("p50", "p95", "p100")
    ]
    show_table(names, rows)
    for warning in found["warnings"]:
        say(f"warning: {warning}", style="yellow")
    for name, reasons in found["why_not"].items():
        for reason, number in reasons.items():
            say(f"{name}: {reason}" + (f" ({number:,})" if number > 1 else ""))
    show_table(
        ("day", "sent", "not sent"),
        [(day, str(n["sent"]), str(n["not_sent"])) for day, n in found["by_day"].items()],
    )
    show_table(
        ("hour", "sent", "not sent"),
        [(hour, str(n["sent"]), str(n["not_sent"])) for hour, n in found["by_hour"].items()],
    )
    show_table(
        ("journey", "step", "channel", "sent", "not sent"),
        [
            (
                one["journey"],
                one["step"],
                one["channel"],
                str(one["sent"]),
                _listed(one["not_sent"]),
            )
            for one in found["by_step"]
        ],
    )
    show_table(
        ("held back at", "channel", "by", "messages", "median", "95 %", "longest"),
        [
            (
                f"{one['journey']} / {one['step']}",
                *(one["channel"], one["by"], str(one["messages"])),
                *(format_duration(one[name]) for name in ("median", "p95", "longest")),
            )
            for one in found["held_back"]
        ],
    )
    show_table(
        ("not sent", "because of", "how", "messages"),
        [
            (
                f"{one['journey']} / {one['step']}",
                f"{one['by_journey']} / {one['by_step']}",
                *(one["what"], str(one["messages"])),
            )
            for one in found["collisions"]
        ],
    )
    show_table(
        ("provider", "messages", "rate a second", "busiest hour", "in it", "waits"),
        [
            (
                *(one["provider"], str(one["messages"]), str(one["rate"] or "no limit")),
                *(one["busiest"], str(one["most_in_an_hour"]), format_duration(one["waits"])),
            )
            for one in found["providers"]
        ],
    )
    show_table(
        ("journey", "channel", "answer", "rate", "counted on", "of"),
        [
            (
                *(one["journey"], one["channel"], one["answer"], f"{one['value']:.3f}"),
                *(one["source"], f"{one['of']:,}"),
            )
            for one in found["rates"]
        ],
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
