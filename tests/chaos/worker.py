"""What a worker process of the harness runs: `segue work`, with waits made short.

Nothing else is different, unless CHAOS_BREAK is set: then the claim is not committed before the
post, which the harness must notice.
"""

import os
import threading
from collections.abc import Sequence
from copy import copy
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import httpx
from sqlalchemy import update

from channels.claiming import Claimed
from channels.dispatch import Dispatcher
from channels.recording import Done
from channels.tables import messages
from config.database import Database
from config.times import Seconds
from flows.cli import app
from journeys.catalog import load_catalog

HERE = Path(__file__).parent
POLICY, LIBRARY = HERE / "policy.toml", HERE / "library"
# As long as the real ones are to each other: a post ends within its claim, and what is lost is lost
# some time after that.
ANSWER_WITHIN: Seconds = 3
CLAIM_LASTS: Seconds = 5
LOST_AFTER: Seconds = 3
BREAK = "CHAOS_BREAK"
_SHORTER = {
    "channels.claiming.CLAIM_LASTS": CLAIM_LASTS,
    "channels.claiming.LOST_AFTER": LOST_AFTER,
    "channels.transport._TIMEOUT": httpx.Timeout(ANSWER_WITHIN, connect=1).as_dict(),
    "channels.recording.FIRST_RETRY": 1,
    "channels.breaker.FIRST_PAUSE": 2,
    "channels.breaker.LAST_PAUSE": 4,
    "journeys.sending._LOOK_AGAIN": 2,
    "flows.worker._HOUSEKEEPING": 1.0,
    "flows.worker._AFTER_TROUBLE": 0.5,
    "flows.app.load_catalog": partial(load_catalog, library=LIBRARY),
}


def work(port: int, log: str) -> None:
    """`segue work`, which never returns."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    threading.Thread(target=_end_with_the_harness, daemon=True).start()
    os.environ["SEGUE_RECEIVER_PORT"] = str(port)
    for place, value in _SHORTER.items():
        patch(place, value).start()
    if os.environ.get(BREAK):
        break_the_claim()
    app(["work"])


def _end_with_the_harness() -> None:
    harness = parent_process()
    assert harness is not None
    harness.join()
    os._exit(1)


def break_the_claim() -> None:
    """The claim and the record of what came of it are one transaction, after the post.

    It is how one would write it who does not think of what happens in between.
    """
    claim_among, write = Dispatcher._claim_among, Dispatcher._write

    def claim_for_now(self: Dispatcher, *given: Any) -> Claimed:
        forgetful = copy(self)
        forgetful._db = cast(Database, _Forgetful(self._db))
        return claim_among(forgetful, *given)

    def write_all(self: Dispatcher, done: Sequence[Done]) -> None:
        ids = [one.claim.message_id for one in done]
        with self._db.transaction() as tx:
            tx.conn.execute(update(messages).where(messages.c.id.in_(ids)).values(state="sending"))
        write(self, done)

    patch.multiple(Dispatcher, _claim_among=claim_for_now, _write=write_all).start()


class _Forgetful:
    """A database that keeps nothing."""

    def __init__(self, real: Database) -> None:
        self.real = real
        self.now = real.now

    def transaction(self) -> Any:
        return self.real.transaction(keep=False)
