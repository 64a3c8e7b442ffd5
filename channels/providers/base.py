"""The interface of a provider module: its PROVIDER and the base class of its settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic_settings import BaseSettings, SettingsConfigDict

from channels.providers.sending import Sender
from channels.providers.webhook import Webhook
from config.channels import ChannelName
from config.policy import Policy
from config.required import Need
from config.settings import Settings, Url


class ProviderSettings(BaseSettings):
    """The settings of a provider, read from the environment.

    A subclass sets `env_prefix`, for example "SEGUE_POSTMARK_", and the default of `url`.
    """

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    url: Url

    def sandbox_account(self, _secret: bytes) -> Mapping[str, Any]:
        """The values that replace those of a real account in sandbox mode, except `url`.

        Parameters
        ----------
        secret: 32 bytes shared by this installation and its sandbox, different for each provider.
        """
        return {}


Own = TypeVar("Own", bound=ProviderSettings)


def _none(_own: Any, _settings: Settings, _policy: Policy) -> list[Webhook]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(Generic[Own]):
    """A provider: its channel, settings, sender and webhooks.

    name: the name in SEGUE_<CHANNEL>_PROVIDER, equal to the module's name.
    settings: its settings model.
    connect: creates the sender for an account. Raises SegueError for invalid settings.
    webhooks: creates its webhooks. Raises SegueError for an invalid key.
    needs: the settings that are required to send real messages.
    default: whether it is used if no setting chooses a provider; at most one for each channel.
    """

    name: str
    channel: ChannelName
    settings: type[Own]
    connect: Callable[[Own, Settings], Sender]
    webhooks: Callable[[Own, Settings, Policy], list[Webhook]] = _none
    needs: Sequence[Need] = ()
    default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedProvider:
    """A provider that is ready to send.

    rate: messages a second (each device of a push counts); None: no limit.
    """

    name: str
    channel: ChannelName
    sender: Sender
    rate: int | None = None
