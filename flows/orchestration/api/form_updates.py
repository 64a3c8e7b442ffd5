"""Keep the deployments in Prefect up to date: the segments in their forms, and pauses.

Prefect can't feed a form's choices from data, so one worker replaces the schema of the form when a
segment or its size changes. It uses the API without Prefect's client, whose import takes seconds.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import httpx

from config.database.buckets import Leased
from config.database.failures import reason_of
from flows.app import Segue
from flows.orchestration.api.prefect_api import async_client
from flows.orchestration.forms import described, with_segments
from flows.orchestration.names import SIMULATION
from flows.worker.waiting import first_of
from journeys.definition.catalog import load_catalog
from journeys.definition.segment import Segment
from journeys.engine.entry import audience_size
from journeys.operations.control import held
from profiles.bulk import in_slices

log = logging.getLogger(__name__)

# The most deployments that Prefect returns at once.
_PAGE = 200


class FormUpdates:
    """Updates of a worker; without PREFECT_API_URL there are none."""

    def __init__(self, segue: Segue) -> None:
        self._segue = segue
        self._segments: Mapping[str, Segment] = segue.catalog.segments
        self._sizes: dict[str, int] = {}
        self._counted_at: float | None = None
        self._failing = False

    async def run(self, leased: Leased, stop: asyncio.Event) -> None:
        """Update until `stop` is set; of all workers the one that leases bucket 0 does it."""
        settings, timing = self._segue.settings, self._segue.db.timing
        if not settings.prefect_api_url:
            return
        async with async_client(settings, timing.report_within) as http:
            while not stop.is_set():
                if 0 in leased():
                    await self._try_update(http)
                await first_of(stop, within=timing.describe_every)

    async def _try_update(self, http: httpx.AsyncClient) -> None:
        try:
            await self.update(http)
        except Exception as error:
            if not self._failing:
                log.warning(
                    "updating the forms in Prefect failed and will be retried: %s", reason_of(error)
                )
            self._failing = True
        else:
            self._failing = False

    async def update(self, http: httpx.AsyncClient) -> None:
        """Change the deployments that differ from what they should say."""
        holding = await asyncio.to_thread(self._read)
        journeys = self._segue.catalog.current
        for names in in_slices([*journeys, SIMULATION], _PAGE):
            wanted = {"deployments": {"name": {"any_": list(names)}}, "limit": _PAGE}
            answer = await http.post("/deployments/filter", json=wanted)
            for deployment in answer.raise_for_status().json():
                name = deployment["name"]
                state = holding.get(name) if name in journeys else None
                if change := self._change(deployment, state):
                    path = f"/deployments/{deployment['id']}"
                    (await http.patch(path, json=change)).raise_for_status()

    def _change(self, deployment: Mapping[str, Any], state: str | None) -> dict[str, Any]:
        schema = deployment["parameter_openapi_schema"]
        wanted = described(deployment, state)
        if "audience" in schema.get("properties", {}):
            wanted["parameter_openapi_schema"] = with_segments(
                schema, self._segments.values(), self._sizes
            )
        return {what: value for what, value in wanted.items() if value != deployment[what]}

    def _read(self) -> dict[str, str]:
        """Read the segments and their sizes when it is time. Returns which journeys are held."""
        every = self._segue.db.timing.count_segments_every
        if self._counted_at is None or time.monotonic() - self._counted_at > every:
            # The library may have changed since this process started.
            settings = self._segue.settings
            found = load_catalog(self._segue.policy, settings.library, settings.definitions)
            self._segments = found.segments
            for segment in self._segments.values():
                with self._segue.db.transaction(write=False) as tx:
                    self._sizes[segment.name] = audience_size(tx, segment.condition)
            self._counted_at = time.monotonic()
        with self._segue.db.transaction(write=False) as tx:
            return dict(held(tx))
