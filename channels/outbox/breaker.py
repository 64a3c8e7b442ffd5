"""A breaker for each channel: when its provider is in trouble, stop for a while, then try again.

The other channels go on; the messages of the stopped one stay planned, and are looked at again
against windows and caps before they go.
"""

import logging

from channels.providers.base import Outcome
from config.policy import Channel
from config.times import MINUTE, Instant, Seconds

log = logging.getLogger(__name__)

# So many requests in a row that went wrong; and so many after which nobody knows what became of the
# messages: each may have held a whole batch, none of which is ever sent again.
TRIPS_AT = 20
UNKNOWN_TRIPS_AT = 3
# The first pause; each further one is twice as long, up to the last.
FIRST_PAUSE: Seconds = 15
LAST_PAUSE: Seconds = 5 * MINUTE
# Refused credentials do not mend themselves quickly.
REFUSED_PAUSE: Seconds = 5 * MINUTE


class Breaker:
    """Open: nothing is handed over. When its pause is over one message at a time may go, until one
    is answered well: then it is closed.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        # Since a request was last answered well.
        self._failures = 0
        self._unknown = 0
        self._pauses = 0
        self._open_until: Instant = 0

    def is_open(self, now: Instant) -> bool:
        """Whether the channel is stopped at this moment."""
        return now < self._open_until

    @property
    def on_trial(self) -> bool:
        """Whether nothing was answered well since the last pause."""
        return self._pauses > 0

    def note(self, outcomes: list[Outcome], claimed: Instant, answered: Instant) -> None:
        """Learn from one request's outcomes.

        What was claimed before the channel was stopped teaches nothing new: of a hundred requests
        under way that fail together, the first ones stop it, once. A pause counts from the answer,
        which may have taken longer than the pause.
        """
        if self.is_open(claimed):
            return
        results = {outcome.result for outcome in outcomes}
        if "stopped" in results:
            why = f"it refuses our credentials ({outcomes[0].reason})"
            self._stop(answered, REFUSED_PAUSE, why)
        elif results & {"sent", "failed"}:
            self._failures = self._unknown = self._pauses = 0
        else:
            self._failures += 1
            self._unknown += "unknown" in results
            too_many = self._failures >= TRIPS_AT or self._unknown >= UNKNOWN_TRIPS_AT
            if too_many or self.on_trial:
                pause = min(FIRST_PAUSE * 2**self._pauses, LAST_PAUSE)
                why = f"{self._failures} requests in a row went wrong ({outcomes[0].reason})"
                self._stop(answered, pause, why)

    def _stop(self, now: Instant, pause: Seconds, why: str) -> None:
        log.error(
            "%s is stopped for %d s, its messages stay planned: %s",
            self._channel,
            pause,
            why,
            extra={"channel": self._channel},
        )
        self._pauses += 1
        self._open_until = now + pause
