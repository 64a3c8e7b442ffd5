"""What a file in channels/providers/ exports as PROVIDER, and the base of its settings."""

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
    """A provider's own settings, read from the environment.

    A subclass sets `env_prefix`, for example "SEGUE_POSTMARK_", and a default of `url`.
    """

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    url: Url

    def sandbox_account(self, _secret: bytes) -> Mapping[str, Any]:
        """The values that replace those of a real account when the sandbox takes the messages.

        `url` is replaced anyway.

        Parameters
        ----------
        secret: 32 bytes that only this installation and its sandbox know, different for each
            provider.
        """
        return {}


Own = TypeVar("Own", bound=ProviderSettings)


def _none(_own: Any, _settings: Settings, _policy: Policy) -> list[Webhook]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(Generic[Own]):
    """A provider: what it sends, what it must be told, and how to talk with it.

    name: as SEGUE_<CHANNEL>_PROVIDER names it; the name of the file.
    settings: its settings model.
    connect: the sender for an account. Raises SegueError for settings that cannot work.
    webhooks: what it posts back. Raises SegueError for a key that is no key.
    needs: what real messages by it need.
    default: whether it sends its channel if no setting chooses; of several providers one has it.
    """

    name: str
    channel: ChannelName
    settings: type[Own]
    connect: Callable[[Own, Settings], Sender]
    webhooks: Callable[[Own, Settings, Policy], list[Webhook]] = _none
    needs: Sequence[Need] = ()
    default: bool = False


@dataclass(frozen=True, slots=True)
class ConnectedProvider:
    """A provider that is ready to send.

    rate: messages a second that may go by it, of a push each device; None: as fast as it answers.
    """

    name: str
    channel: ChannelName
    sender: Sender
    rate: int | None = None
