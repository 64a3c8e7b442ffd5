"""The application: settings, database, policy, journeys and engine, opened once per process."""

import os
import socket
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from channels.outbox.dispatch import Dispatcher
from channels.providers.registry import connect_providers
from channels.providers.transport import Transport
from channels.rules.planner import Planner
from config.access.private_files import tighten_folder
from config.channels import ChannelName
from config.database.engine import Database, unusable
from config.database.schema import migrate
from config.errors import SegueError
from config.garbage import collect_less_often
from config.policy import Policy, load_policy
from config.settings import Settings, load_settings
from journeys.definition.catalog import Catalog, load_catalog
from journeys.engine.advance import Engine
from journeys.engine.hand_over import CatalogJourneys
from profiles.identity.erased import erased_addresses_of
from profiles.identity.holdout import holdout_of
from profiles.identity.placeholders import Meaningless
from profiles.rules import InputRules, ProfileLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Segue:
    """The objects that a process needs to move enrollments and send messages."""

    settings: Settings
    db: Database
    policy: Policy
    catalog: Catalog
    engine: Engine
    rules: InputRules

    @property
    def process(self) -> str:
        """The name of this process in heartbeats and claims: host and process id."""
        return f"{socket.gethostname()}:{os.getpid()}"

    @asynccontextmanager
    async def dispatcher(self) -> AsyncIterator[Dispatcher]:
        """A dispatcher with open connections to the providers; closes them at the end.

        Raises SegueError for a setting that is missing or wrong.
        """
        connected = connect_providers(self.settings)
        for fault in unsent_channels(self.catalog, connected.routes):
            raise SegueError(fault)
        async with Transport(self.settings, self.db.timing) as transport:
            yield Dispatcher(
                db=self.db,
                planner=self.engine.planner,
                journeys=CatalogJourneys(self.engine.mover),
                providers=connected,
                transport=transport,
                settings=self.settings,
                name=self.process,
            )


def unsent_channels(catalog: Catalog, sent: Collection[ChannelName]) -> Iterator[str]:
    """An error for each channel of a journey's step that no provider sends."""
    for name, version in catalog.current.items():
        for step in version.journey.sends():
            for message in step.messages:
                if message.channel not in sent:
                    yield (
                        f"{name}, step {step.name!r}: no provider sends {message.channel}; set "
                        f"SEGUE_{message.channel.upper()}_PROVIDER (docs/operate/providers.md)"
                    )


def input_rules(settings: Settings, policy: Policy) -> InputRules:
    """The rules for reading API calls, imports and forms."""
    limits = ProfileLimits(settings.profile_attributes_limit, settings.profile_identifiers_limit)
    return InputRules(
        lenient_dots=settings.lenient_email_dots,
        meaningless=Meaningless(policy.meaningless),
        consent_traits=policy.consent_traits,
        limits=limits,
        double_opt_in=policy.double_opt_in,
        join_on=policy.join_on,
        joins=policy.joins,
        holdout=holdout_of(settings, policy),
        erased=erased_addresses_of(settings),
    )


def open_segue(settings: Settings | None = None) -> Segue:
    """Load the policy and the journeys, migrate the database, register the journey versions.

    Removes the access of other users to files that earlier versions created in the data folder.
    Raises SegueError on the first error.
    """
    collect_less_often()
    settings = settings or load_settings()
    if settings.now is not None and settings.providers != "sandbox":
        raise SegueError(
            "a simulated clock works with the sandbox only; unset SEGUE_NOW (--now), "
            "or set SEGUE_PROVIDERS=sandbox"
        )
    policy = load_policy(settings.policy_file)
    catalog = load_catalog(policy, settings.library, settings.definitions)
    if settings.data_dir.exists():
        tighten_folder(settings.data_dir)
    db = Database(settings.database, now=settings.now, distributed=settings.distributed)
    migrate(db)
    try:
        with db.transaction() as tx:
            catalog.register(tx)
    except DBAPIError as error:
        raise unusable(db.url, error) from error
    engine = Engine(db, catalog, Planner(policy))
    return Segue(
        settings=settings,
        db=db,
        policy=policy,
        catalog=catalog,
        engine=engine,
        rules=input_rules(settings, policy),
    )
