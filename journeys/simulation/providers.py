"""The providers of a simulation: they accept every message at once, and no request is built."""

from collections.abc import Callable, Mapping, Sequence

from channels.providers.base import ConnectedProvider
from channels.providers.registry import ConnectedProviders, known_providers, routes
from channels.providers.sending import (
    Authorize,
    Outgoing,
    ProviderRequest,
    SendOutcome,
)
from channels.providers.transport import MayLeave
from config.settings import Settings

_BATCH = 1000

# Is told the accepted messages.
TellAccepted = Callable[[Sequence[Outgoing]], object]


class _NoSender:
    """A sender that can't send."""

    batch_size = _BATCH
    auth: Authorize | None = None

    def prepare(self, _batch: Sequence[Outgoing]) -> ProviderRequest:
        raise AssertionError("a simulation builds no requests")

    def read(
        self, _status: int, _headers: Mapping[str, str], _body: bytes, _batch: Sequence[Outgoing]
    ) -> list[SendOutcome]:
        raise AssertionError("a simulation reads no answers")


class AcceptingProviders:
    """The provider side of a dispatcher (channels.outbox.dispatch.Poster)."""

    def __init__(self, accepted: TellAccepted) -> None:
        self._accepted = accepted

    async def post(
        self,
        provider: ConnectedProvider,  # noqa: ARG002  each accepts
        batch: Sequence[Outgoing],
        may_leave: MayLeave,  # noqa: ARG002  nothing happens meanwhile
    ) -> list[SendOutcome]:
        """Accept the batch."""
        self._accepted(batch)
        return [
            SendOutcome(
                message_id=one.message_id, result="sent", provider_id=f"simulated {one.message_id}"
            )
            for one in batch
        ]


def simulated_providers(settings: Settings) -> ConnectedProviders:
    """The routes and rates of this installation, without credentials. Raises SegueError."""
    known = known_providers()
    found = routes(known, settings)
    connected = {
        name: ConnectedProvider(
            name=name,
            channel=channel,
            sender=_NoSender(),
            rate=settings.rates.get(name, settings.rates.get(channel)),
        )
        for channel, route in found.items()
        for name in route.providers
    }
    return ConnectedProviders(connected, found)
