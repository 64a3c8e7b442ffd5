"""`segue check`: what is wrong, or looks wrong, in the settings, the policy and the library."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from channels.providers.registry import known_variables
from config.database.engine import Database
from config.errors import SegueError
from config.policy import Policy, load_policy
from config.settings import Settings, load_settings
from config.text.suggestions import alike
from flows.cli.output import say
from journeys.definition.catalog import read_library
from journeys.definition.collisions import collision_warnings
from journeys.definition.library_files import unread_files
from journeys.definition.unknown_names import unknown_names
from journeys.operations.counts import FEEDBACK_EVENTS
from profiles.consent.double_opt_in import CONFIRMATION_REQUESTED
from profiles.events import PROFILE_CHANGED
from profiles.seen_names import SeenNames, seen_names

commands = typer.Typer()

_PREFIX = "SEGUE_"
_OWN_EVENTS = {*FEEDBACK_EVENTS, CONFIRMATION_REQUESTED, PROFILE_CHANGED}
_NOTHING_SEEN = SeenNames(frozenset(), frozenset())


@commands.command()
def check() -> None:
    """Check the settings, the policy and every journey with its templates."""
    settings = load_settings()
    policy = load_policy(settings.policy_file)
    catalog, faults = read_library(policy, settings.library, settings.definitions)
    warnings = [*_of_settings(settings, policy), *unread_files(settings.library, catalog)]
    if not faults:
        warnings += unknown_names(catalog, policy, _seen(settings), _OWN_EVENTS)
        journeys = {name: version.journey for name, version in catalog.current.items()}
        warnings += collision_warnings(journeys, policy)
    for warning in warnings:
        say(f"warning: {warning}", error=True, style="yellow")
    for fault in faults:
        say(f"segue: {fault}", error=True, style="red")
    if faults:
        raise typer.Exit(1)
    say(f"{len(catalog.current)} journeys, {len(catalog.segments)} segments: no errors")


def unknown_variables() -> Iterator[str]:
    """A warning for each variable SEGUE_... of the environment that is no setting."""
    known = known_variables()
    for name in sorted(os.environ):
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            # Without the prefix, which makes all of them alike.
            near = alike(name[len(_PREFIX) :], [one.removeprefix(_PREFIX) for one in sorted(known)])
            yield f"{name} is no setting" + (f"; did you mean {_PREFIX}{near}?" if near else "")


def _of_settings(settings: Settings, policy: Policy) -> Iterator[str]:
    yield from unknown_variables()
    for warning in policy.warnings():
        yield f"{settings.policy_file}: {warning}"


def _seen(settings: Settings) -> SeenNames:
    """The names in the database, which need not exist where journeys are checked."""
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return _NOTHING_SEEN
    try:
        with closing(Database(settings.database)) as db, db.transaction(write=False) as tx:
            return seen_names(tx)
    except (DBAPIError, SegueError):
        return _NOTHING_SEEN
