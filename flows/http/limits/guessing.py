"""Delay the answers to wrong keys, which limits how many a client can try.

Correct keys are never delayed, even from an address that also sends wrong ones.
"""

import asyncio
from collections import Counter

from flows.http.errors import Refusal
from flows.http.limits.clients import client_of


class Guesses:
    """The requests that wait for the answer to a wrong key.

    Parameters
    ----------
    wait: delay of each answer, in seconds.
    at_once: how many requests can wait at the same time; further ones get 429 immediately.
    share: how many of these can come from one client.
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
        """Delay the answer to a wrong key from this host. Raises Refusal (429) if too many wait."""
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
