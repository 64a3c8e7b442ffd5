"""`segue keys`: make, list and revoke the keys of those who send events."""

from typing import Annotated, Any

import typer

from config.access.api_keys import ListedKey, list_keys, make_key, revoke_key
from config.clock.times import format_instant
from flows.cli.output import AsJson, opened, print_json, say, say_done, show_table

commands = typer.Typer(help="The keys of those who send events.", no_args_is_help=True)


@commands.command()
def make(
    context: typer.Context,
    label: Annotated[str, typer.Argument(help="The key's name in logs, such as web.")],
    public: Annotated[
        bool, typer.Option("--public", help="For web pages and apps: it may do little.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="An origin whose pages may use the public key; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. Only its hash is stored, so it can't be printed again."""
    with opened(context).db.transaction() as tx:
        key = make_key(tx, label, public=public, origins=origin or ())
    if as_json:
        print_json({"key": key})
    else:
        say(key)


@commands.command(name="list")
def list_command(context: typer.Context, as_json: AsJson = False) -> None:
    """List the keys by label, without the keys themselves."""
    with opened(context).db.transaction(write=False) as tx:
        rows = [_described(one) for one in list_keys(tx)]
    if as_json:
        print_json({"keys": rows})
        return
    show_table(
        ("label", "kind", "origins", "made", "revoked"),
        [
            (
                row["label"],
                row["kind"],
                " ".join(row["origins"]),
                row["made_at"],
                row["revoked_at"] or "-",
            )
            for row in rows
        ],
    )


def _described(key: ListedKey) -> dict[str, Any]:
    revoked_at = key.revoked_at
    return {
        "label": key.label,
        "kind": "public" if key.is_public else "server",
        "origins": list(key.origins),
        "made_at": format_instant(key.made_at),
        "revoked_at": None if revoked_at is None else format_instant(revoked_at),
    }


@commands.command()
def revoke(context: typer.Context, label: str, as_json: AsJson = False) -> None:
    """Revoke a key. Every process refuses it within a second."""
    with opened(context).db.transaction() as tx:
        revoke_key(tx, label)
    say_done(f"the key {label} is revoked", as_json=as_json, label=label)
