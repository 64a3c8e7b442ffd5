"""`segue staff`: the site for people of the company, and its users."""

from typing import Annotated

import typer

from config.access.passwords import random_password
from config.access.staff_acts import COMMAND_LINE, record_act
from config.access.staff_sessions import end_sessions
from config.access.staff_users import (
    add_user,
    list_users,
    remove_user,
    set_password,
    set_role,
    set_timezone,
)
from config.clock.times import format_instant
from config.settings import load_settings
from flows.cli.output import AsJson, opened, print_json, say_done, show_table

commands = typer.Typer(help="The staff site and its users.", no_args_is_help=True)

Ask = Annotated[
    bool, typer.Option("--ask", help="Ask for the password; without it, print a one-time one.")
]


@commands.command()
def serve(context: typer.Context) -> None:
    """Serve the staff site on SEGUE_STAFF_PORT, until stopped."""
    import sys

    import uvloop

    from config.logs.setup import log_to
    from flows.http.staff.serving import serve as run

    log_to(sys.stderr, load_settings().log_level)
    uvloop.run(run(opened(context)))


@commands.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The user's name or e-mail address.")],
    role: Annotated[str, typer.Option(help="viewer, editor or admin: docs/marketer/staff.md")],
    ask: Ask = False,
    as_json: AsJson = False,
) -> None:
    """Add a user, and print a password that they replace when they sign in."""
    password = _password(ask=ask)
    with opened(context).db.transaction() as tx:
        user = add_user(tx, name, role, password, one_time=not ask)
        record_act(tx, COMMAND_LINE, "added a user", about=f"{user.name}, {role}")
    _say_password(name, password, ask=ask, as_json=as_json)


@commands.command()
def password(context: typer.Context, name: str, ask: Ask = False, as_json: AsJson = False) -> None:
    """Give a user a new password, and end their sessions."""
    new = _password(ask=ask)
    with opened(context).db.transaction() as tx:
        set_password(tx, name, new, one_time=not ask)
        end_sessions(tx, name)
        record_act(tx, COMMAND_LINE, "set a password", about=name.lower())
    _say_password(name, new, ask=ask, as_json=as_json)


@commands.command(name="role")
def role_command(
    context: typer.Context,
    name: str,
    role: Annotated[str, typer.Argument(help="viewer, editor or admin: docs/marketer/staff.md")],
    as_json: AsJson = False,
) -> None:
    """Give a user another role, from their next request on."""
    with opened(context).db.transaction() as tx:
        set_role(tx, name, role)
        record_act(tx, COMMAND_LINE, "changed a role", about=f"{name.lower()}, {role}")
    say_done(f"{name} is {role} now", as_json=as_json, name=name, role=role)


@commands.command()
def timezone(
    context: typer.Context,
    name: str,
    zone: Annotated[
        str, typer.Argument(help="Such as Europe/Berlin; `policy`: that of the policy.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show a user the times of the site in their own time zone."""
    with opened(context).db.transaction() as tx:
        set_timezone(tx, name, None if zone == "policy" else zone)
        record_act(tx, COMMAND_LINE, "set a time zone", about=f"{name.lower()}, {zone}")
    of_policy = zone == "policy"
    shown = "the time zone of the policy" if of_policy else zone
    zone_or_none = None if of_policy else zone
    said = f"{name} sees times in {shown}"
    say_done(said, as_json=as_json, name=name, timezone=zone_or_none)


@commands.command()
def remove(context: typer.Context, name: str, as_json: AsJson = False) -> None:
    """Remove a user, and end their sessions. Their name stays in the log."""
    with opened(context).db.transaction() as tx:
        remove_user(tx, name)
        end_sessions(tx, name)
        record_act(tx, COMMAND_LINE, "removed a user", about=name.lower())
    say_done(f"{name} is removed", as_json=as_json, name=name)


@commands.command(name="list")
def list_command(context: typer.Context, as_json: AsJson = False) -> None:
    """List the users with their roles."""
    with opened(context).db.transaction(write=False) as tx:
        users = list_users(tx)
    if as_json:
        rows = [
            {
                "name": one.name,
                "role": one.role,
                "added_at": format_instant(one.made_at),
                "timezone": one.timezone,
            }
            for one in users
        ]
        print_json({"users": rows})
        return
    show_table(
        ("name", "role", "added", "time zone"),
        [
            (one.name, one.role, format_instant(one.made_at), one.timezone or "of the policy")
            for one in users
        ],
    )


def _password(*, ask: bool) -> str:
    if not ask:
        return random_password()
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def _say_password(name: str, password: str, *, ask: bool, as_json: bool) -> None:
    if ask:
        say_done("the password is set", as_json=as_json, name=name)
    else:
        said = f"one-time password: {password}"
        say_done(said, as_json=as_json, name=name, password=password)
