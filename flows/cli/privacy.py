"""What customers may ask for: export or erase what is stored about them. And erase the sample."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from config.access.staff_acts import COMMAND_LINE, record_act
from config.errors import SegueError
from flows.cli.output import AsJson, opened, print_json, say, show_table
from journeys.privacy.people import person_named
from profiles.sample.customers import sample_customers

commands = typer.Typer()
sample_commands = typer.Typer(help="The sample shop.", no_args_is_help=True)

PersonArgument = Annotated[
    str,
    typer.Argument(
        metavar="PERSON",
        help="A user id, e-mail address or phone number, or kind:value, such as anonymous_id:4711.",
    ),
]
AskedBy = Annotated[str, typer.Option("--by", help="Who asks for it, for the record.")]
WithoutAsking = Annotated[
    bool, typer.Option("--yes", help="Do not ask; needed without a terminal.")
]


@commands.command(name="erase")
def erase_command(
    context: typer.Context,
    person: PersonArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the rows by table; change nothing.")
    ] = False,
    yes: WithoutAsking = False,
    by: AskedBy = COMMAND_LINE,
    as_json: AsJson = False,
) -> None:
    """Erase everything about one person; journeys' counts stay. Nothing takes it back."""
    from journeys.privacy.erase import Erased, count_rows, erase  # loads numpy

    segue = opened(context)
    find = partial(person_named, text=person, meaningless=segue.rules.meaningless)
    with segue.db.transaction(write=False) as tx:
        found = find(tx)
        result = Erased(found.profile_id, count_rows(tx, found))
    if not dry_run:
        confirm(f"Erase customer {found.profile_id} for good?", yes=yes)
        with segue.db.transaction() as tx:
            result = erase(
                tx,
                find,
                catalog=segue.catalog,
                settings=segue.settings,
                erased=segue.rules.erased,
                asked_by=by,
            )
    if as_json:
        print_json({**result.as_json(), "erased": not dry_run})
        return
    show_counts(result.counts)
    if dry_run:
        say("nothing was changed; to erase the person, leave out --dry-run")
    else:
        say(
            "erased. Rows that reports count stay and name nobody. Backups still have the person: "
            "see docs/operate/privacy.md"
        )


@commands.command(name="export")
def export_command(
    context: typer.Context,
    person: PersonArgument,
    to: Annotated[
        Path | None,
        typer.Option(help="Write export.json and export.html into this folder."),
    ] = None,
    by: AskedBy = COMMAND_LINE,
    as_json: AsJson = False,
) -> None:
    """Export everything about one person, as JSON and as a readable page; else print the JSON."""
    from flows.privacy_page import write_export
    from journeys.privacy.export import export_person

    segue = opened(context)
    with segue.db.transaction() as tx:
        found = person_named(tx, person, segue.rules.meaningless)
        exported = export_person(tx, found, segue.rules.erased, asked_by=by)
        record_act(tx, by, "exported a customer", profile_id=found.profile_id)
    if to is None:
        print_json(exported)
        return
    files = [str(file) for file in write_export(exported, to, segue.settings.brand)]
    if as_json:
        print_json({"files": files})
    for file in () if as_json else files:
        say(f"wrote {file}")


@sample_commands.command(name="remove")
def remove_sample(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many people it is; change nothing.")
    ] = False,
    yes: WithoutAsking = False,
    as_json: AsJson = False,
) -> None:
    """Erase the customers of the sample shop, each as `segue erase` does."""
    from journeys.privacy.erase import erase
    from journeys.privacy.people import person_of

    segue = opened(context)
    with segue.db.transaction(write=False) as tx:
        people = sample_customers(tx)
    if not dry_run and people:
        confirm(f"Erase the {len(people):,} customers of the sample shop?", yes=yes)
    for profile_id in () if dry_run else people:
        with segue.db.transaction() as tx:
            erase(
                tx,
                partial(person_of, profile_id=profile_id),
                catalog=segue.catalog,
                settings=segue.settings,
                erased=segue.rules.erased,
                asked_by=COMMAND_LINE,
            )
    if as_json:
        print_json({"customers": len(people), "erased": not dry_run})
    elif dry_run:
        say(f"{len(people):,} sample customers; nothing was changed. To erase them: --yes")
    else:
        say(f"erased {len(people):,} sample customers")


def show_counts(counts: Mapping[str, int]) -> None:
    """Print rows by table."""
    show_table(("table", "rows"), [(name, f"{number:,}") for name, number in counts.items()])


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal. Raises SegueError if the answer is no, or if there is none to ask on."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise SegueError("nothing was changed: without a terminal to ask on, add --yes")
    if not typer.confirm(question):
        raise SegueError("nothing was changed")
