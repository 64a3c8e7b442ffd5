"""A breaker for each provider: while it is in trouble nothing is sent by it.

Other providers go on. The messages of the stopped one stay planned; windows and caps are checked
again before they go.
"""

import logging

from channels.providers.base import ConnectedProvider
from channels.providers.sending import SendOutcome
from config.clock.times import Instant, Seconds
from config.timing import Timing

log = logging.getLogger(__name__)

# Failed requests in a row that stop a provider; and of these, requests with unknown outcome. Each
# of the latter may hold a whole batch that is never sent again.
TRIPS_AT = 20
UNKNOWN_TRIPS_AT = 3


class Breaker:
    """Open: nothing is handed over. After the pause, one message at a time may go, until a request
    succeeds: then it is closed.
    """

    def __init__(self, provider: ConnectedProvider, timing: Timing) -> None:
        self._provider = provider
        self._timing = timing
        # Since the last successful request.
        self._failures = 0
        self._unknown = 0
        self._pauses = 0
        self._open_until: Instant = 0

    def is_open(self, now: Instant) -> bool:
        """Whether the provider is stopped at this moment."""
        return now < self._open_until

    @property
    def on_trial(self) -> bool:
        """Whether no request has succeeded since the last pause."""
        return self._pauses > 0

    def note(self, outcomes: list[SendOutcome], claimed: Instant, answered: Instant) -> None:
        """Learn from one request's outcomes.

        Outcomes of claims from before the stop are ignored: if a hundred requests under way fail
        together, the first ones stop the provider, once. A pause counts from the answer, which may
        have taken longer than the pause.
        """
        if self.is_open(claimed):
            return
        results = {outcome.result for outcome in outcomes}
        if "stopped" in results:
            why = f"it refuses our account ({outcomes[0].reason})"
            self._stop(answered, self._timing.refused_pause, why)
        elif results & {"sent", "failed"}:
            self._failures = self._unknown = self._pauses = 0
        else:
            self._failures += 1
            self._unknown += "unknown" in results
            too_many = self._failures >= TRIPS_AT or self._unknown >= UNKNOWN_TRIPS_AT
            if too_many or self.on_trial:
                pause = min(self._timing.first_pause * 2**self._pauses, self._timing.last_pause)
                why = f"{self._failures} requests in a row went wrong ({outcomes[0].reason})"
                self._stop(answered, pause, why)

    def _stop(self, now: Instant, pause: Seconds, why: str) -> None:
        log.error(
            "%s is stopped for %d s, its messages stay planned: %s",
            self._provider.name,
            pause,
            why,
            extra={"provider": self._provider.name, "channel": self._provider.channel},
        )
        self._pauses += 1
        self._open_until = now + pause
