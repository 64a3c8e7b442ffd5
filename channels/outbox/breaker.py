"""The breaker: pauses a provider after repeated failures.

Other providers continue. The messages of the paused provider stay planned; windows and caps are
checked again before they are sent.
"""

import logging

from channels.providers.base import ConnectedProvider
from channels.providers.sending import SendOutcome
from config.clock.times import Instant, Seconds
from config.timing import Timing

log = logging.getLogger(__name__)

# Consecutive failed requests that pause a provider, and consecutive requests with unknown outcome.
# The second limit is lower because each such request may hold a batch that is never sent again.
TRIPS_AT = 20
UNKNOWN_TRIPS_AT = 3


class Breaker:
    """Open: nothing is handed over. After the pause it is on trial: one message at a time is sent.
    The first successful request closes it.
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
        """Whether the provider is paused at `now`."""
        return now < self._open_until

    @property
    def on_trial(self) -> bool:
        """Whether no request has succeeded since the last pause."""
        return self._pauses > 0

    def note(self, outcomes: list[SendOutcome], claimed: Instant, answered: Instant) -> None:
        """Count the outcomes of one request.

        Outcomes of claims from before a pause are ignored: of many concurrent requests that fail,
        only the first ones cause a pause. A pause starts at the answer, which may have taken longer
        than the pause lasts.
        """
        if self.is_open(claimed):
            return
        results = {outcome.result for outcome in outcomes}
        if "stopped" in results:
            why = f"the provider refuses our account ({outcomes[0].reason})"
            self._pause(answered, self._timing.refused_pause, why)
        elif results & {"sent", "failed"}:
            self._failures = self._unknown = self._pauses = 0
        else:
            self._failures += 1
            self._unknown += "unknown" in results
            too_many = self._failures >= TRIPS_AT or self._unknown >= UNKNOWN_TRIPS_AT
            if too_many or self.on_trial:
                pause = min(self._timing.first_pause * 2**self._pauses, self._timing.last_pause)
                why = f"{self._failures} consecutive requests failed ({outcomes[0].reason})"
                self._pause(answered, pause, why)

    def _pause(self, now: Instant, pause: Seconds, why: str) -> None:
        log.error(
            "%s is paused for %d s, its messages stay planned: %s",
            self._provider.name,
            pause,
            why,
            extra={"provider": self._provider.name, "channel": self._provider.channel},
        )
        self._pauses += 1
        self._open_until = now + pause
