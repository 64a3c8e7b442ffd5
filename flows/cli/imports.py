"""The command that imports customers or events, and shows how it understood the file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flows.cli.output import AsJson, opened, print_json, say, shown
from journeys.operations.nightly import Nightly

if TYPE_CHECKING:
    from profiles.imports.importer import ImportReport

commands = typer.Typer()


@commands.command(name="import")
def import_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet.")],
    map_file: Annotated[
        Path | None, typer.Option("--map", help="The column map (TOML); see docs/start/import.md.")
    ] = None,
    as_events: Annotated[
        str | None, typer.Option(help="The rows are events of this name, not customers.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every row, show the first ones, write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Import customers, or events with --as-events."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from profiles.imports.importer import import_file

    segue = opened(context)
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=as_json or not console.is_terminal,
    )
    with bar:
        task = bar.add_task(shown(file.name), total=None)
        report = import_file(
            segue.db,
            file,
            map_file=map_file,
            as_event=as_events,
            rules=segue.rules,
            dry_run=dry_run,
            progress=lambda done, rows: bar.update(task, completed=done, total=rows),
        )
    if as_events and not dry_run:
        # Journeys do not react to imported events, and traits count them.
        Nightly(segue.engine).compute_traits(again=True)
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report)


def _print(report: "ImportReport") -> None:
    say(f"Read as: {report.dialect}")
    for column, style in report.styles.items():
        say(f"  {column}: {style}")
    for where, stated in report.first_rows:
        say(f"{where}: " + ", ".join(f"{name} = {value}" for name, value in stated.items()))
    if report.dry_run:
        say(
            f"{report.read} rows: {report.read - report.refused} can be imported, "
            f"{report.refused} would be refused"
        )
    else:
        say(
            f"{report.read} rows: {report.created} new, {report.updated} changed, "
            f"{report.unchanged} unchanged, {report.refused} refused"
        )
    for example in report.refused_examples:
        say(f"  {example}")
    if report.taken_in_part:
        verb = "would be" if report.dry_run else "were"
        say(f"{report.taken_in_part} rows {verb} accepted without unreadable values:")
    for column, left_out in report.unreadable.items():
        say(f"  {column} ({left_out.rows} rows): {'; '.join(left_out.examples)}")
    if report.refused_file:
        say(f"Refused rows, with the reasons: {report.refused_file}")
    if report.refused_noes:
        say(f"{report.refused_noes} refused rows stated an opt-out, which was recorded")
    if report.consent_overruled:
        say(f"{report.consent_overruled} statements of consent were overruled by others")
    for reason, number in report.left_out.most_common():
        say(f"Left out: {reason} ({number} rows)")
    for spelling, number in report.unknown_countries.most_common():
        say(
            f"Unknown country: {spelling!r} ({number} rows); the phone number or the brand decides "
            "the time zone"
        )
    for spelling, number in report.invalid_zones.most_common():
        say(f"Unknown time zone: {spelling!r} ({number} rows)")
    if report.dry_run:
        say("Nothing was written. Without --dry-run the file is imported")


def _as_json(report: "ImportReport") -> dict[str, Any]:
    return {
        "dry_run": report.dry_run,
        "read": report.read,
        "created": report.created,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "refused": report.refused,
        "refused_examples": report.refused_examples,
        "taken_in_part": report.taken_in_part,
        "refused_file": str(report.refused_file) if report.refused_file else None,
        "refused_noes": report.refused_noes,
        "read_as": report.dialect,
        "styles": report.styles,
        "first_rows": [{"place": where, **stated} for where, stated in report.first_rows],
        "unreadable": {
            column: {"rows": one.rows, "examples": one.examples}
            for column, one in report.unreadable.items()
        },
        "unknown_countries": dict(report.unknown_countries),
        "invalid_zones": dict(report.invalid_zones),
        "consent_overruled": report.consent_overruled,
        "left_out": dict(report.left_out),
    }
