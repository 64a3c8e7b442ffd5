"""A worker keeps the deployments in Prefect up to date."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
import respx

from flows.orchestration.api.form_updates import FormUpdates
from journeys.definition.catalog import Catalog
from journeys.dsl import Email, Journey, OnLaunch, Segment, Send, attribute
from journeys.operations.control import pause, resume
from tests.support.failures import until
from tests.support.shop import House

API = "http://prefect.example/api"
LETTERS = Journey(
    "letters", entry=OnLaunch(), topic="promotions", steps=[Send("hello", Email("hello"))]
)
VIPS = Segment("vips", "Spent a lot", attribute("spent") > 100)


class Server:
    """Prefect's deployments: answers with them, and applies changes."""

    def __init__(self) -> None:
        audience = {"enum": ["nobody", "gone"], "description": "Who.\nSegments: gone: Old."}
        self.letters: dict[str, Any] = {
            "id": "1",
            "name": "letters",
            "description": "Letters",
            "tags": ["segue"],
            "parameter_openapi_schema": {"properties": {"audience": audience}},
        }
        self.asked, self.is_well = 0, True
        self.changes: list[dict[str, Any]] = []

    @property
    def audience(self) -> dict[str, Any]:
        found: dict[str, Any] = self.letters["parameter_openapi_schema"]["properties"]["audience"]
        return found

    def list(self, _request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.is_well:
            return httpx.Response(500)
        return httpx.Response(200, json=[self.letters])

    def change(self, request: httpx.Request) -> httpx.Response:
        self.changes.append(orjson.loads(request.content))
        self.letters |= self.changes[-1]
        return httpx.Response(204)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with respx.mock(base_url=API, assert_all_called=False) as router:
        router.post("/deployments/filter").mock(side_effect=server.list)
        router.patch("/deployments/1").mock(side_effect=server.change)
        yield server


@pytest.fixture
def updates(house: House, monkeypatch: pytest.MonkeyPatch) -> FormUpdates:
    house.open(LETTERS, segments={"vips": VIPS}, prefect_api_url=API)
    house.customer("ann", attributes={"spent": 500})
    house.customer("bob")
    catalog = house.segue.catalog
    monkeypatch.setattr(
        "flows.orchestration.api.form_updates.load_catalog",
        lambda *_: Catalog(catalog.current, catalog.segments),
    )
    return FormUpdates(house.segue)


def update(updates: FormUpdates) -> None:
    async def once() -> None:
        async with httpx.AsyncClient(base_url=API) as http:
            await updates.update(http)

    asyncio.run(once())


def test_the_form_offers_the_segments_with_their_sizes(
    house: House, server: Server, updates: FormUpdates
) -> None:
    update(updates)
    assert server.audience["enum"] == ["nobody", "everyone", "vips"]
    assert server.audience["description"] == (
        "Who.\nSegments: everyone (2 people): Every customer. vips (1 person): Spent a lot."
    )
    [change] = server.changes
    assert set(change) == {"parameter_openapi_schema"}
    update(updates)
    assert len(server.changes) == 1, "nothing changed"

    # A new segment of the library, and a customer more, without a restart.
    house.segue.catalog.segments["lapsed"] = Segment(
        "lapsed", "Ordered long ago", attribute("spent") > 400
    )
    house.customer("eve", attributes={"spent": 200})
    update(updates)
    assert len(server.changes) == 1, "it is not counted again yet"
    house.shorten(count_segments_every=-1)
    update(updates)
    assert server.audience["enum"] == ["nobody", "everyone", "vips", "lapsed"]
    assert "vips (2 people)" in server.audience["description"]


def test_the_deployment_says_that_the_journey_is_paused(
    house: House, server: Server, updates: FormUpdates
) -> None:
    update(updates)
    pause(house.db, "letters")
    update(updates)
    assert server.letters["description"].startswith("> **Paused**: nothing moves")
    assert server.letters["tags"] == ["segue", "paused"]
    resume(house.db, "letters")
    update(updates)
    assert server.letters["description"] == "Letters"
    assert server.letters["tags"] == ["segue"]


def test_one_worker_updates_and_goes_on_after_a_failure(
    house: House, server: Server, updates: FormUpdates, caplog: pytest.LogCaptureFixture
) -> None:
    house.shorten(describe_every=0.01)
    leased: set[int] = set()

    async def scenario() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(updates.run(lambda: leased, stop))
        await asyncio.sleep(0.05)
        assert server.asked == 0, "another worker leases bucket 0"
        server.is_well = False
        leased.add(0)
        await until(lambda: server.asked >= 3)
        server.is_well = True
        await until(lambda: bool(server.changes))
        stop.set()
        await running

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert caplog.text.count("updating the forms in Prefect failed") == 1, "not at each try"
