"""Find the providers, their settings and their routes.

Each module in channels/providers/ with a PROVIDER is a provider; there is no other list.
"""

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

import channels.providers
from channels.providers.base import ConnectedProvider, Own, Provider
from channels.providers.webhook import Webhook
from channels.rules.recipient import Kind
from config.access.sandbox_keys import sandbox_secret
from config.channels import ChannelName, channel_of
from config.errors import SegueError
from config.policy import CHANNELS, Policy
from config.required import unmet, unmet_general
from config.settings import Settings, read_environment, variable
from config.text.suggestions import meant


class ChannelSettings(BaseSettings):
    """Read with the prefix SEGUE_<CHANNEL>_."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    provider: str = Field(
        default="", description="The provider that sends the channel. Empty: its default provider."
    )
    provider_by_kind: dict[Kind, str] = Field(
        default={},
        description="Another provider for `marketing` or `transactional` messages, as a JSON "
        "object.",
    )
    provider_by_topic: dict[str, str] = Field(
        default={},
        description="Another provider for some topics, as a JSON object; it counts before the "
        "kind.",
    )


# The default, and the providers by kind and by topic.
RouteKey = tuple[str, tuple[tuple[Kind, str], ...], tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Route:
    """Selects the provider of a channel's messages: by topic, else by kind, else the default."""

    default: str
    by_kind: Mapping[Kind, str] = field(default_factory=dict)
    by_topic: Mapping[str, str] = field(default_factory=dict)

    def provider(self, kind: Kind, topic: str) -> str:
        """The name of the provider that sends messages of this kind and topic."""
        return self.by_topic.get(topic) or self.by_kind.get(kind) or self.default

    @property
    def key(self) -> RouteKey:
        """The same as a value that can be a key."""
        return self.default, tuple(self.by_kind.items()), tuple(self.by_topic.items())

    @property
    def providers(self) -> list[str]:
        """The names of all providers of the route, the default first."""
        return list(dict.fromkeys((self.default, *self.by_kind.values(), *self.by_topic.values())))


@dataclass(frozen=True, slots=True)
class ConnectedProviders:
    """The providers in use, by name, and the routes by channel."""

    by_name: Mapping[str, ConnectedProvider]
    routes: Mapping[ChannelName, Route]


def known_providers() -> dict[str, Provider[Any]]:
    """All provider modules, by name. Raises SegueError for an invalid module."""
    found = {}
    for module in pkgutil.iter_modules(channels.providers.__path__):
        path = f"{channels.providers.__name__}.{module.name}"
        try:
            provider = getattr(import_module(path), "PROVIDER", None)
        except Exception as error:
            raise SegueError(
                f"the provider {path} can't be imported: {type(error).__name__}: {error}"
            ) from error
        if provider is None:
            continue
        if not isinstance(provider, Provider) or provider.name != module.name:
            raise SegueError(
                f"PROVIDER in {path} is not a channels.providers.base.Provider named "
                f"{module.name!r} (docs/operate/providers.md)"
            )
        if provider.channel not in CHANNELS:
            raise SegueError(
                f"the provider {path} sends {provider.channel!r}; the channels are "
                f"{', '.join(CHANNELS)}"
            )
        found[provider.name] = provider
    return found


def routes(known: Mapping[str, Provider[Any]], settings: Settings) -> dict[ChannelName, Route]:
    """The routes from the environment, by channel; channels without a provider are left out.

    In live mode an optional channel needs SEGUE_<CHANNEL>_PROVIDER.

    Raises SegueError for a name that is no provider of the channel.
    """
    found = {}
    for channel in CHANNELS:
        there = [one for one in known.values() if one.channel == channel]
        used = settings.providers == "sandbox" or not channel_of(channel).optional
        if there and (used or _chosen(channel).provider):
            found[channel] = _route(channel, there)
    return found


def _prefix(channel: ChannelName) -> str:
    return f"SEGUE_{channel.upper()}_"


def _chosen(channel: ChannelName) -> ChannelSettings:
    return read_environment(ChannelSettings, _prefix(channel))


def _route(channel: ChannelName, there: list[Provider[Any]]) -> Route:
    prefix = _prefix(channel)
    chosen = _chosen(channel)
    names = sorted(one.name for one in there)
    default = chosen.provider
    if not default:
        candidates = names if len(names) == 1 else [one.name for one in there if one.default]
        if len(candidates) != 1:
            raise SegueError(f"set {prefix}PROVIDER to one of {', '.join(names)}")
        [default] = candidates
    route = Route(default, chosen.provider_by_kind, chosen.provider_by_topic)
    for what, named in (
        ("PROVIDER", [chosen.provider] if chosen.provider else []),
        ("PROVIDER_BY_KIND", chosen.provider_by_kind.values()),
        ("PROVIDER_BY_TOPIC", chosen.provider_by_topic.values()),
    ):
        for name in named:
            if name not in names:
                raise SegueError(
                    f"{prefix}{what} names {name!r}, which is no provider of {channel}; "
                    f"{meant(name, names)}use {', '.join(names)}"
                )
    return route


def own_settings(provider: Provider[Own], settings: Settings) -> Own:
    """The provider's settings from the environment; in sandbox mode, those for the sandbox.

    Raises SegueError for an invalid value.
    """
    if settings.providers == "sandbox":
        return sandbox_settings(provider, settings)
    return read_environment(provider.settings)


def sandbox_settings(provider: Provider[Own], settings: Settings) -> Own:
    """The provider's settings with the sandbox's URL and credentials.

    Raises SegueError for an invalid value.
    """
    own = read_environment(provider.settings)
    account = own.sandbox_account(sandbox_secret(settings, provider.name))
    return own.model_copy(update={**account, "url": settings.sandbox_url})


def routes_in_use(settings: Settings) -> dict[ChannelName, Route]:
    """The routes, after a look at everything that sending needs of the settings.

    Raises SegueError that names all missing settings, or a name that is no provider or channel.
    """
    refuse_unmet_needs(settings)
    found = routes(known_providers(), settings)
    names = (*CHANNELS, *_in_use(found))
    for name in settings.rates:
        if name not in names:
            raise SegueError(
                f"SEGUE_RATES names {name!r}, which is no channel and no provider in use; "
                f"{meant(name, names)}use {', '.join(names)}"
            )
    return found


def connect_providers(settings: Settings) -> ConnectedProviders:
    """The providers in use. Raises SegueError as `routes_in_use` does."""
    found = routes_in_use(settings)
    known = known_providers()
    connected = {}
    for name in _in_use(found):
        provider = known[name]
        sender = provider.connect(own_settings(provider, settings), settings)
        rate = settings.rates.get(name, settings.rates.get(provider.channel))
        connected[name] = ConnectedProvider(
            name=name, channel=provider.channel, sender=sender, rate=rate
        )
    return ConnectedProviders(connected, found)


def known_variables() -> set[str]:
    """The environment variables that are settings of Segue or of a provider, in upper case."""
    found = {variable(Settings, field) for field in Settings.model_fields}
    for provider in known_providers().values():
        found |= {variable(provider.settings, field) for field in provider.settings.model_fields}
    for channel in CHANNELS:
        found |= {f"SEGUE_{channel}_{field}".upper() for field in ChannelSettings.model_fields}
    return found


def webhooks(settings: Settings, policy: Policy) -> list[Webhook]:
    """The webhooks of all providers. Raises SegueError for an invalid key.

    Includes providers without a route, which may still report on earlier messages. Without a key
    all their requests are refused.
    """
    return [
        hook
        for provider in known_providers().values()
        for hook in provider.webhooks(own_settings(provider, settings), settings, policy)
    ]


def unmet_needs(settings: Settings) -> list[str]:
    """The settings that the providers in use need and lack; empty in sandbox mode."""
    if settings.providers != "live":
        return []
    known = known_providers()
    found = list(unmet_general(settings))
    for name in _in_use(routes(known, settings)):
        found += unmet(known[name].needs, own_settings(known[name], settings))
    return found


def refuse_unmet_needs(settings: Settings) -> None:
    """Raises SegueError that names all missing settings, each with the consequence."""
    if missing := unmet_needs(settings):
        raise SegueError(
            f"SEGUE_PROVIDERS is live, but {'; '.join(missing)}. "
            "Set these, or SEGUE_PROVIDERS=sandbox"
        )


def _in_use(found: Mapping[ChannelName, Route]) -> Iterator[str]:
    for route in found.values():
        yield from route.providers
