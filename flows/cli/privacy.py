"""What customers may ask for: erase what is stored about one of them."""

import sys
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import typer

from config.access.staff_acts import COMMAND_LINE
from config.errors import SegueError
from flows.cli.output import AsJson, opened, print_json, say, show_table
from journeys.privacy.people import person_named

commands = typer.Typer()

PersonArgument = Annotated[
    str,
    typer.Argument(
        metavar="PERSON",
        help="A user id, e-mail address or phone number, or kind:value, such as anonymous_id:4711.",
    ),
]
AskedBy = Annotated[str, typer.Option("--by", help="Who asks for it, for the record.")]
WithoutAsking = Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")]


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
        confirm(f"Erase customer {found.profile_id} for good?", yes=yes or as_json)
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


def show_counts(counts: Mapping[str, int]) -> None:
    """Print rows by table."""
    show_table(("table", "rows"), [(name, f"{number:,}") for name, number in counts.items()])


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal. Raises SegueError if the answer is no."""
    if not yes and sys.stdin.isatty() and not typer.confirm(question):
        raise SegueError("nothing was changed")
