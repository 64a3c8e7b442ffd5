"""Wrong keys are answered late, so that nobody tries many of them.

Right keys never wait, also beside wrong ones from the same address.
"""

import asyncio
from collections import Counter

from flows.http.errors import Refusal
from flows.http.limits.clients import client_of


class Guesses:
    """Who waits for the answer to a wrong key.

    Parameters
    ----------
    wait: how long each waits, in seconds.
    at_once: how many may wait at the same time; more are refused at once, with 429.
    share: how many of them may come from one client.
    """

    def __init__(self, wait: float = 1.0, at_once: int = 100, share: int = 5) -> None:
        self._wait = wait
        self._at_once = at_once
        self._share = share
        self._waiting: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return self._waiting.total()

    async def wrong(self, host: str) -> None:
        """Wait, for a wrong key that came from this host. Raises Refusal (429)."""
        client = client_of(host)
        if self._waiting[client] >= self._share or self.waiting >= self._at_once:
            raise Refusal(
                429,
                "too_many",
                "too many requests with a wrong write key; set the right one (SEGUE_WRITE_KEY)",
                headers={"Retry-After": "1"},
            )
        self._waiting[client] += 1
        try:
            await asyncio.sleep(self._wait)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]
