"""`segue check`: what is wrong, or looks wrong, in the settings, the policy and the library."""

import os
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from channels.providers.registry import known_variables, routes_in_use
from config.channels import ChannelName
from config.database.engine import Database
from config.errors import SegueError
from config.policy import CHANNELS, load_policy
from config.settings import Settings, load_settings
from config.text.suggestions import alike
from flows.app import unsent_channels
from flows.cli.output import AsJson, print_json, say
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


class _Found(NamedTuple):
    errors: list[str]
    warnings: list[str]
    journeys: int = 0
    segments: int = 0


@commands.command()
def check(as_json: AsJson = False) -> None:
    """Check the settings, the policy and every journey with its templates."""
    found = _examine(load_settings())
    if as_json:
        print_json(found._asdict())
    else:
        for warning in found.warnings:
            say(f"warning: {warning}", error=True, style="yellow")
        for fault in found.errors:
            say(f"segue: {fault}", error=True, style="red")
        if not found.errors:
            say(f"{found.journeys} journeys, {found.segments} segments: no errors")
    if found.errors:
        raise typer.Exit(1)


def _examine(settings: Settings) -> _Found:
    """Everything that is wrong or looks wrong. Without a valid policy no journey can be read."""
    errors: list[str] = []
    warnings = [*unknown_variables()]
    sent: Collection[ChannelName] = CHANNELS
    try:
        sent = routes_in_use(settings)
    except SegueError as error:
        errors.append(str(error))
    try:
        policy = load_policy(settings.policy_file)
    except SegueError as error:
        return _Found([*errors, str(error)], warnings)
    warnings += [f"{settings.policy_file}: {warning}" for warning in policy.warnings()]
    if not settings.library.is_dir():
        errors.append(f"the folder {settings.library} does not exist; set SEGUE_LIBRARY")
        return _Found(errors, warnings)
    catalog, faults = read_library(policy, settings.library, settings.definitions)
    errors += [*map(str, faults), *unsent_channels(catalog, sent)]
    warnings += unread_files(settings.library, catalog)
    warnings += unknown_names(catalog, policy, _seen(settings), _OWN_EVENTS)
    if not faults:
        journeys = {name: version.journey for name, version in catalog.current.items()}
        warnings += collision_warnings(journeys, policy)
    return _Found(
        errors=errors,
        warnings=warnings,
        journeys=len(catalog.current),
        segments=len(catalog.segments),
    )


def unknown_variables() -> Iterator[str]:
    """A warning for each variable SEGUE_... of the environment that is no setting."""
    known = known_variables()
    for name in sorted(os.environ):
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            # Without the prefix, which makes all of them alike.
            near = alike(name[len(_PREFIX) :], [one.removeprefix(_PREFIX) for one in sorted(known)])
            yield f"{name} is no setting" + (f"; did you mean {_PREFIX}{near}?" if near else "")


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
