"""The commands about profiles that are probably one person."""

import getpass
from typing import Annotated

import typer

from flows.cli.approvals import DecidedBy
from flows.cli.output import AsJson, opened, print_json, say, say_done, show_table
from flows.duplicates import accept, find_duplicates, refuse
from profiles.duplicates import suggestions

commands = typer.Typer(invoke_without_command=True)

SuggestionId = Annotated[
    str, typer.Argument(metavar="ID", help="As `segue duplicates` lists it: 12-57.")
]


@commands.callback()
def list_command(context: typer.Context, as_json: AsJson = False) -> None:
    """List the pairs of profiles that are probably one person, and decide about them."""
    if context.invoked_subcommand is not None:
        return
    segue = opened(context)
    with segue.db.transaction(write=False) as tx:
        found = suggestions(tx)
    if as_json:
        print_json({"duplicates": [one.as_json() for one in found]})
        return
    if not found:
        say("no suggestion waits; `segue duplicates find` looks for duplicates now")
        return
    show_table(
        ("id", "probability", "why"),
        [
            (
                one.id,
                f"{one.probability:.2%}",
                ", ".join(
                    f"{column.replace('_', ' ')} {level} {weight:+.1f}"
                    for column, level, weight in one.bars[1:]
                ),
            )
            for one in found
        ],
    )


@commands.command(name="find")
def find_command(context: typer.Context, as_json: AsJson = False) -> None:
    """Look for duplicates now, as the Prefect flow find-duplicates does."""
    found = find_duplicates(opened(context))
    if as_json:
        print_json(
            {
                "profiles": found.profiles,
                "suggested": len(found.suggested),
                "joined": found.joined,
            }
        )
        return
    say(
        f"{found.profiles} profiles: {len(found.suggested)} pairs are suggested, "
        f"{found.joined} were joined by the policy"
    )


@commands.command(name="accept")
def accept_command(
    context: typer.Context,
    suggestion: SuggestionId,
    by: DecidedBy = None,
    as_json: AsJson = False,
) -> None:
    """Join the two profiles: the newer becomes part of the older."""
    found = accept(opened(context), suggestion, by or getpass.getuser())
    said = f"profile {found.right_id} is now part of profile {found.left_id}"
    say_done(said, as_json=as_json, joined=found.right_id, into=found.left_id)


@commands.command(name="refuse")
def refuse_command(
    context: typer.Context,
    suggestion: SuggestionId,
    by: DecidedBy = None,
    as_json: AsJson = False,
) -> None:
    """The two are not one person: never suggest them again."""
    found = refuse(opened(context), suggestion, by or getpass.getuser())
    said = f"profiles {found.left_id} and {found.right_id} are not suggested again"
    say_done(said, as_json=as_json, refused=[found.left_id, found.right_id])
