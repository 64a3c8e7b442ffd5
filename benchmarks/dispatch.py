"""Dispatch: claim, render and record due text messages, and post them to a stub.

The reference is the fastest plain httpx loop: it posts the same requests, prepared beforehand, to
the same stub with `client.post` only, in the best of several layouts of clients and connections.
"""

import asyncio
from collections.abc import Iterator, Sequence

import httpx
import uvloop

from benchmarks.launch import enter_and_plan
from benchmarks.support.databases import Fresh, on_sqlite
from benchmarks.support.material import AFTERNOON, TEXT, catalog_of, fill, policy
from benchmarks.support.runner import Benchmark, Cost, Figures, a_second, against, cost_of
from benchmarks.support.stub import accepted, running_stub
from channels.outbox.dispatch import Dispatcher
from channels.providers.base import ConnectedProvider
from channels.providers.registry import ConnectedProviders, Route, connect_providers
from channels.providers.sending import Outgoing, ProviderRequest, Sender
from channels.providers.transport import Transport
from channels.rules.planner import Planner
from config.database.engine import Database
from config.settings import Settings
from journeys.engine.hand_over import CatalogJourneys
from journeys.engine.move import Mover

# number of clients, and connections per client
_LAYOUTS = ((1, 100), (10, 10), (20, 1), (100, 1))


class _Kept:
    """A sender that keeps the requests that it prepares, for the reference loop."""

    def __init__(self, sender: Sender) -> None:
        self.batch_size, self.auth, self.read = sender.batch_size, sender.auth, sender.read
        self._prepare = sender.prepare
        self.requests: list[ProviderRequest] = []

    def prepare(self, batch: Sequence[Outgoing]) -> ProviderRequest:
        """Prepare a request with the sender, and keep it."""
        self.requests.append(self._prepare(batch))
        return self.requests[-1]


def _run(quick: bool) -> Figures:
    texts, rounds = (200, 1) if quick else (10_000, 2)

    def write(db: Database) -> None:
        fill(db, texts, AFTERNOON)
        enter_and_plan(db, catalog_of(TEXT))

    with running_stub() as port, on_sqlite(write, AFTERNOON) as fresh:
        settings = Settings(providers="sandbox", sandbox_port=port)
        sms = _Kept(connect_providers(settings).by_name["twilio"].sender)
        costs = []
        layout = None
        for _ in range(rounds):
            sms.requests.clear()
            ours = _dispatch(fresh, settings, sms, texts)
            layout = layout or _best_layout(sms.requests[:2000])
            costs.append((ours, _post_all(sms.requests, *layout)))
        assert layout is not None
        assert accepted(port) == 2 * rounds * texts + len(_LAYOUTS) * min(texts, 2000)
    return {
        "messages": texts,
        **a_second(texts, [ours for ours, _ in costs]),
        **against("best_httpx_loop", costs),
        "httpx_clients": layout[0],
        "httpx_connections_each": layout[1],
    }


def _dispatch(fresh: Fresh, settings: Settings, sms: Sender, texts: int) -> Cost:
    db = fresh()

    async def dispatch() -> None:
        async with Transport(settings) as transport:
            journeys = CatalogJourneys(Mover(catalog_of(TEXT), Planner(policy())))
            planner = Planner(policy())
            twilio = ConnectedProvider(name="twilio", channel="sms", sender=sms)
            connected = ConnectedProviders({"twilio": twilio}, {"sms": Route("twilio")})
            dispatcher = Dispatcher(
                db=db,
                planner=planner,
                journeys=journeys,
                providers=connected,
                transport=transport,
                settings=settings,
                name="benchmark",
            )
            tally = await dispatcher.run(journey="offer")
            assert tally["offer", "sms", "sent"] == texts, tally

    cost = cost_of(lambda: uvloop.run(dispatch()))
    db.close()
    return cost


def _best_layout(requests: Sequence[ProviderRequest]) -> tuple[int, int]:
    return min(_LAYOUTS, key=lambda layout: _post_all(requests, *layout).cpu)


def _post_all(requests: Sequence[ProviderRequest], clients: int, connections: int) -> Cost:
    tls = httpx.create_ssl_context()  # shared, because creating one takes 20 ms
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)

    async def post_some(client: httpx.AsyncClient, left: Iterator[ProviderRequest]) -> None:
        for request in left:
            answer = await client.post(
                request.url, headers=request.headers, content=request.content
            )
            assert answer.status_code == 201

    async def post_all() -> None:
        opened = [
            httpx.AsyncClient(limits=limits, verify=tls, trust_env=False) for _ in range(clients)
        ]
        left = iter(requests)
        await asyncio.gather(
            *(post_some(client, left) for client in opened for _ in range(connections))
        )
        for client in opened:
            await client.aclose()

    return cost_of(lambda: uvloop.run(post_all()))


DISPATCH = Benchmark(
    "dispatch: claim, render, post and record text messages",
    _run,
    {"ratio_to_best_httpx_loop": "at least 0.9"},
)
