"""`/metrics` for Prometheus: the counters of this process and the current lengths of the queues."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import CollectorRegistry

from flows.http.context import Receiver
from flows.http.limits.work import Shared
from journeys.operations.queues import Queues, queues


def router(receiver: Receiver) -> APIRouter:
    """`/metrics`. It needs no key, so the proxy must not publish it."""
    routes = APIRouter()

    def depths() -> Queues:
        with receiver.segue.db.transaction(write=False) as tx:
            return queues(tx)

    shared = Shared(depths)

    @routes.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """The metrics in the text format of Prometheus."""
        registry = CollectorRegistry()
        registry.register(_Gauges(await shared.get()))
        body = generate_latest(REGISTRY) + generate_latest(registry)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    return routes


class _Gauges:
    """A Prometheus collector of the queue lengths."""

    def __init__(self, now: Queues) -> None:
        self._now = now

    def collect(self) -> list[GaugeMetricFamily]:
        """The gauges. Prometheus calls it once per scrape."""
        planned = GaugeMetricFamily(
            "segue_messages_due", "Planned messages that are due.", labels=["channel"]
        )
        for channel, number in self._now.due_messages.items():
            planned.add_metric([channel], number)
        return [
            planned,
            GaugeMetricFamily(
                "segue_events_waiting",
                "Events that are not processed yet.",
                self._now.waiting_events,
            ),
            GaugeMetricFamily(
                "segue_people_due", "Enrollments that are due.", self._now.due_people
            ),
            GaugeMetricFamily(
                "segue_oldest_due_seconds",
                "Time for which the oldest due enrollment or message has been due.",
                self._now.oldest_due,
            ),
            GaugeMetricFamily(
                "segue_oldest_event_seconds",
                "Time since the oldest unprocessed event was received.",
                self._now.oldest_event,
            ),
        ]
