"""Posting to the providers over httpx. No retries here: the outbox decides what happens next."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from types import TracebackType
from typing import Self

import httpx

from channels.provider import ChannelDown, Outcome, Outgoing, Provider, outcomes
from config.policy import Channel
from config.settings import Settings
from config.trouble import told

log = logging.getLogger(__name__)

# Together well within the minute that a claim lasts.
TIMEOUT = httpx.Timeout(connect=5, write=10, read=30, pool=5)
# One connection a client: httpx looks through all connections of a client at every event, so that
# a hundred of them in one client are several times slower than a hundred clients of one.
# An idle connection is dropped before servers drop it (the earliest after 5 s), for a request that
# meets a closing connection may or may not have arrived.
LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=4)
# SendGrid asks for an Accept-Encoding.
_HEADERS = {"User-Agent": "segue", "Accept": "application/json", "Accept-Encoding": "gzip"}
# Raised before the first byte of a request has left.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# Our own setting is wrong.
_NO_ADDRESS = (httpx.InvalidURL, httpx.UnsupportedProtocol)

# httpx tells of every request at INFO: at a launch that would be a line a message.
logging.getLogger("httpx").setLevel(logging.WARNING)

_url = lru_cache(maxsize=16)(httpx.URL)


class Transport:
    """Connections to the providers; an async context manager, for one event loop.

    As many connections are opened as posts are under way at once, which is for the caller to bound.
    """

    def __init__(self, settings: Settings) -> None:
        # The sandbox is on this machine, whatever proxy the environment names.
        self._trust_env = settings.providers == "live"
        # Shared, for it takes 20 ms to load the certificates.
        self._tls = httpx.create_ssl_context(trust_env=self._trust_env)
        self._idle: dict[Channel, list[httpx.AsyncClient]] = defaultdict(list)
        self._clients: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients:
            await client.aclose()

    async def post(self, provider: Provider, batch: Sequence[Outgoing]) -> list[Outcome]:
        """Hand a batch of at most `provider.batch_size` messages over; one outcome for each.

        Raises nothing: whatever goes wrong is an outcome.
        """
        try:
            request = provider.prepare(batch)
        except Exception as error:
            # They do not fit into one request, or it can't be made for one of them.
            if len(batch) > 1:
                half = len(batch) // 2
                first = await self.post(provider, batch[:half])
                return first + await self.post(provider, batch[half:])
            log.error("no request for message %d: %s", batch[0].message_id, told(error))
            return outcomes(batch, "failed", f"no request: {type(error).__name__}")
        # The client used last has the freshest connection.
        idle = self._idle[provider.channel]
        client = idle.pop() if idle else self._client()
        try:
            response = await client.send(
                httpx.Request(
                    request.method,
                    _url(request.url),
                    headers={**_HEADERS, **request.headers},
                    content=request.content,
                    extensions={"timeout": TIMEOUT.as_dict()},
                ),
                auth=provider.auth,
            )
        except (ChannelDown, *_NO_ADDRESS) as error:
            return outcomes(batch, "stopped", _told(error))
        except _NOT_SENT as error:
            return outcomes(batch, "retry", _told(error))
        except httpx.RequestError as error:
            # No answer, or a broken one, and the request may have arrived.
            return outcomes(batch, "unknown", _told(error))
        except Exception as error:
            log.error("posting to %s fails: %s", provider.channel, told(error))
            return outcomes(batch, "unknown", type(error).__name__)
        finally:
            idle.append(client)
        try:
            return provider.read(response.status_code, response.headers, response.content, batch)
        except Exception as error:
            log.error("an answer about %s can't be read: %s", provider.channel, told(error))
            return outcomes(batch, "unknown", f"unreadable answer: {type(error).__name__}")

    def _client(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            limits=LIMITS, timeout=TIMEOUT, verify=self._tls, trust_env=self._trust_env
        )
        self._clients.append(client)
        return client


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:300]
