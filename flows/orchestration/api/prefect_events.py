"""Report live counts to Prefect: at most one event per journey and second, after the work.

Nothing waits for Prefect. While its server does not respond, the counts add up and are reported in
one event later. All workers add to the same counts, and any of them reports
(journeys/operations/live_counts.py).
"""

import asyncio
import logging
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import httpx

from channels.outbox.outcomes import Tally
from config.clock.times import DAY, Instant, format_instant
from config.database.engine import Database
from config.database.failures import reason_of
from config.settings import Settings
from flows.orchestration.api.prefect_api import async_client
from flows.orchestration.names import deployment_name, deployment_page
from flows.worker.waiting import first_of
from journeys.engine.events import Reaction
from journeys.operations.counts import bounces
from journeys.operations.live_counts import LiveCounts, share, take_due

log = logging.getLogger(__name__)

EVENT = "segue.journey.live"
# An automation can match the value of a label, but cannot compare numbers. So the label names the
# highest of these percentages that the share of bounces exceeds.
BOUNCED_OVER = (1, 2, 5, 10, 20, 50)
_ENOUGH = 50  # the fewest e-mails for which a share of bounces is reported

# In seconds.
_LONGEST_WAIT = 15.0
_LAST_REPORT_WITHIN = 1.0


class Reporter:
    """Collect and report what a worker does; without PREFECT_API_URL it does nothing."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._news: defaultdict[str, LiveCounts] = defaultdict(Counter)
        self._arrived = asyncio.Event()
        # by journey: its deployment's id, None if it has none, and when that was looked up
        self._deployments: dict[str, tuple[str | None, float]] = {}
        self._counted_at: dict[str, float] = {}
        self._failing = False

    def note(self, reaction: Reaction, moved: Mapping[str, int], sent: Tally) -> None:
        """Add the counts of one turn of the worker."""
        if not self._settings.prefect_api_url:
            return
        for what, counts in (
            ("entered", reaction.entered),
            ("left", reaction.exited),
            ("converted", reaction.converted),
            ("moved", moved),
        ):
            for journey, number in counts.items():
                self._news[journey][what,] += number
        for (journey, channel, outcome), number in sent.items():
            self._news[journey]["messages", channel, outcome] += number
        for (journey, name), number in reaction.about_messages.items():
            self._news[journey]["heard", name] += number
        if self._news:
            self._arrived.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Report until `stop` is set, then report the rest if Prefect responds within a second."""
        if not self._settings.prefect_api_url:
            return
        timing = self._db.timing
        async with async_client(self._settings, timing.report_within) as http:
            wait = timing.report_every
            while not stop.is_set():
                # Wake up even without counts of our own, to report those of stopped workers.
                await first_of(stop, self._arrived, within=timing.report_again)
                self._arrived.clear()
                accepted = await self._report(http, timing.report_within)
                wait = timing.report_every if accepted else min(2 * wait, _LONGEST_WAIT)
                await first_of(stop, within=wait)
            await self._report(http, _LAST_REPORT_WITHIN)

    async def keep(self) -> None:
        """Store unreported counts, so that another worker reports them."""
        news, self._news = self._news, defaultdict(Counter)
        if news:
            await self._store(news)
        if self._news:
            log.warning("unreported counts are lost: neither Prefect nor the database responds")

    async def _store(self, news: Mapping[str, LiveCounts]) -> None:
        """Add counts to the shared row; keep them in memory if the database fails."""
        try:
            await asyncio.to_thread(self._share, news)
        except Exception:
            for journey, counts in news.items():
                self._news[journey] += counts

    async def _report(self, http: httpx.AsyncClient, within: float) -> bool:
        """Post the due counts. Returns whether Prefect accepted them; if not, they are kept."""
        ours: Mapping[str, LiveCounts] = self._news
        self._news = defaultdict(Counter)
        try:
            now, ours, others_wait = await asyncio.to_thread(self._due, ours)
            async with asyncio.timeout(within):
                found = [await self._event(http, *one, now) for one in ours.items()]
                events = [one for one in found if one is not None]
                if events:
                    (await http.post("/events", json=events)).raise_for_status()
        except Exception as error:
            await self._store(ours)
            self._arrived.set()
            self._counted_at.clear()
            if not self._failing:
                log.warning("reporting to Prefect failed and will be retried: %s", reason_of(error))
            self._failing = True
            return False
        if others_wait:
            self._arrived.set()
        if self._failing and events:
            log.info("reporting to Prefect works again")
            self._failing = False
        return True

    async def _event(
        self, http: httpx.AsyncClient, journey: str, news: LiveCounts, now: Instant
    ) -> dict[str, Any] | None:
        """The event for Prefect's API; None if the journey has no deployment."""
        deployment = await self._deployment(http, journey)
        if deployment is None:
            return None
        share = await self._bounced(journey) if news["heard", "email_bounced"] else None
        resource = {
            "prefect.resource.id": f"prefect.deployment.{deployment}",
            "prefect.resource.name": journey,
        }
        over = [one for one in BOUNCED_OVER if share is not None and share > one]
        if over:
            resource["segue.bounced"] = f"over {over[-1]} %"
        return {
            "id": str(uuid.uuid4()),
            "occurred": format_instant(now),
            "event": EVENT,
            "resource": resource,
            "payload": {
                "journey": journey,
                **_nested(news),
                "bounced_percent": share,
                "see": deployment_page(self._settings.prefect_api_url, deployment),
                "ask": f"segue report {journey}",
            },
        }

    async def _deployment(self, http: httpx.AsyncClient, journey: str) -> str | None:
        again = self._db.timing.report_again
        known, looked_up = self._deployments.get(journey, (None, -again))
        if time.monotonic() - looked_up < again:
            return known
        answer = await http.get(f"/deployments/name/{deployment_name(journey)}")
        found = None
        if answer.status_code != httpx.codes.NOT_FOUND:
            found = str(answer.raise_for_status().json()["id"])
        self._deployments[journey] = found, time.monotonic()
        return found

    async def _bounced(self, journey: str) -> float | None:
        """The percentage of the journey's e-mails of the last day that bounced, once a minute."""
        now = time.monotonic()
        again = self._db.timing.report_again
        if now - self._counted_at.get(journey, -again) < again:
            return None
        self._counted_at[journey] = now
        bounced, handed_over = await asyncio.to_thread(self._count_bounces, journey)
        return round(100 * bounced / handed_over, 1) if handed_over >= _ENOUGH else None

    def _due(
        self, ours: Mapping[str, LiveCounts]
    ) -> tuple[Instant, Mapping[str, LiveCounts], bool]:
        """Add our counts to the shared row. Returns now, the due counts, and whether more wait."""
        with self._db.transaction() as tx:
            share(tx, ours)
            return tx.now, *take_due(tx)

    def _share(self, ours: Mapping[str, LiveCounts]) -> None:
        with self._db.transaction() as tx:
            share(tx, ours)

    def _count_bounces(self, journey: str) -> tuple[int, int]:
        with self._db.transaction(write=False) as tx:
            return bounces(tx, journey, tx.now - DAY)


def _nested(news: LiveCounts) -> dict[str, Any]:
    """The counts for the payload; keys that an automation may use are always present."""
    payload: dict[str, Any] = {
        **dict.fromkeys(("entered", "moved", "left", "converted"), 0),
        "messages": {},
        "heard": {},
    }
    for place, number in news.items():
        inside = payload
        for part in place[:-1]:
            inside = inside.setdefault(part, {})
        inside[place[-1]] = number
    return payload
