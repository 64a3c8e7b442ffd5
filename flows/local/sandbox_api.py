"""A client for the sandbox's control paths: behaviour, clock, accepted messages."""

from collections.abc import Mapping
from typing import Any

import httpx

from config.access.login import basic, own_login
from config.clock.times import Instant, format_instant, parse_instant
from config.errors import SegueError
from config.settings import Settings


class SandboxAPI:
    """The sandbox on this machine.

    Raises httpx.TransportError if it does not run, and SegueError if it refuses.
    """

    def __init__(self, settings: Settings) -> None:
        # A request that moves the clock waits until all webhooks due by then are posted.
        self._http = httpx.Client(
            base_url=settings.sandbox_url,
            timeout=60,
            trust_env=False,
            auth=basic(own_login(settings)),
        )

    def close(self) -> None:
        self._http.close()

    def stats(self) -> dict[str, Any]:
        """Requests and distinct message ids by channel."""
        return self._request("GET", "/stats")

    def behave(self, behaviour: Mapping[str, Any]) -> None:
        """Set the customers' behaviour; {} is that of an average shop."""
        self._request("POST", "/behaviour", behaviour)

    def callbacks(self) -> dict[str, Any]:
        """Counts of webhooks: waiting, posted, given up."""
        return self._request("GET", "/behaviour")

    def move_clock(self, to: Instant) -> None:
        """Move its simulated clock; returns when all webhooks due by then were sent."""
        self._request("POST", "/clock", {"now": format_instant(to)})

    def next_answer(self) -> Instant | None:
        """The time of the next webhook by its simulated clock; None if there is none."""
        due = self._request("GET", "/clock")["next"]
        return None if due is None else parse_instant(due)

    def arrived(self, message_id: int) -> float:
        """When a message arrived, by this machine's monotonic clock, in seconds."""
        return float(self._request("GET", f"/message/{message_id}")["accepted"][0]["arrived"])

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        response = self._http.request(method, path, json=body)
        if not response.is_success:
            raise SegueError(f"the sandbox responds {response.status_code}: {response.text[:500]}")
        found: dict[str, Any] = response.json() if response.content else {}
        return found
