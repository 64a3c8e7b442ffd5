"""Delay the responses to wrong keys, to limit how many keys a client can try.

Correct keys are never delayed, even from an address that also sends wrong ones.
"""

import asyncio
from collections import Counter

from flows.http.errors import Refusal
from flows.http.limits.clients import client_of


class Guesses:
    """The requests with a wrong key that wait for their response.

    Parameters
    ----------
    wait: the delay of each response, in seconds.
    at_once: the most requests that can wait at the same time; others get 429 immediately.
    share: the most of these from one client.
    """

    def __init__(self, wait: float = 1.0, at_once: int = 100, share: int = 5) -> None:
        self._wait = wait
        self._at_once = at_once
        self._share = share
        self._waiting: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """The number of requests that wait now."""
        return self._waiting.total()

    async def wrong(self, host: str) -> None:
        """Delay the response to a wrong key. Raises Refusal (429) if too many of them wait."""
        client = client_of(host)
        if self._waiting[client] >= self._share or self.waiting >= self._at_once:
            raise Refusal(
                429,
                "too_many",
                "too many requests with a wrong key; set SEGUE_WRITE_KEY or a live key",
                headers={"Retry-After": "1"},
            )
        self._waiting[client] += 1
        try:
            await asyncio.sleep(self._wait)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]
