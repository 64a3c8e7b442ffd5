"""A worker process of the chaos test: `segue work` or `segue launch`, with short waits.

It also records each hand-over, and its clock may be wrong. With CHAOS_BREAK it does not commit the
claim before the request, which the chaos test must detect.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from copy import copy
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import orjson
from sqlalchemy import Pool, event, update

from channels.messages import messages
from channels.messages.device_transitions import DeviceClaim
from channels.outbox.claims import Claimed
from channels.outbox.devices import take
from channels.outbox.dispatch import Dispatcher
from channels.outbox.outcomes import Done, Outcomes
from channels.providers.base import ConnectedProvider
from channels.providers.sending import Outgoing, SendOutcome
from channels.providers.transport import MayLeave, Transport
from config.clock.times import Seconds
from config.database.engine import Database
from config.timing import Timing
from flows.cli.main import app
from journeys.definition.catalog import load_catalog

HERE = Path(__file__).parent
POLICY, LIBRARY = HERE / "policy.toml", HERE / "library"
# As long as the real ones are to each other: a post ends within its claim, and what is lost is lost
# some time after that.
ANSWER_WITHIN: Seconds = 3
CLAIM_LASTS: Seconds = 5
LOST_AFTER: Seconds = 3
BREAK = "CHAOS_BREAK"
# While this file is there the disk is full, as far as SQLite knows.
FULL = "full"
SHORT = Timing(
    claim_lasts=CLAIM_LASTS,
    lost_after=LOST_AFTER,
    connect_within=1,
    write_within=ANSWER_WITHIN,
    read_within=ANSWER_WITHIN,
    post_within=ANSWER_WITHIN + 1,
    first_retry=1,
    first_pause=2,
    last_pause=4,
    transaction_idle=4,
    send_again=2,
    housekeeping=1.0,
    renew_every=0.3,
    lease_lasts=2,
    after_trouble=0.5,
)
_OURS = {
    "flows.app.Database": partial(Database, timing=SHORT),
    "flows.app.load_catalog": lambda policy, *_: load_catalog(policy, LIBRARY),
}


class Posted(NamedTuple):
    """A hand-over that began: the message's claim, and when it was."""

    message_id: int
    claimed_at: int
    at: float


def work(name: str, directory: Path, port: int, clock: float = 0, *, suffers: bool = True) -> None:
    """`segue work`, which never returns.

    Parameters
    ----------
    clock: the machine's is wrong by so many seconds. suffers: from what the harness does to SQLite.
    """
    _prepare(name, directory, suffers=suffers)
    os.environ["SEGUE_RECEIVER_PORT"] = str(port)
    right = time.time
    patch("time.time", lambda: right() + clock).start()
    app(["work"])


def launch(name: str, directory: Path, journey: str) -> None:
    """`segue launch`, always the same one."""
    _prepare(name, directory, suffers=True)
    app(["launch", journey, "--audience", "everyone", "--id", "chaos"])


def _prepare(name: str, directory: Path, *, suffers: bool) -> None:
    output = os.open(directory / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    threading.Thread(target=_end_with_the_harness, daemon=True).start()
    for place, value in _OURS.items():
        patch(place, value).start()
    _write_down_posts(directory / f"{name}.posts")
    if suffers:
        _let_sqlite_suffer(directory / FULL)
    if os.environ.get(BREAK):
        break_the_claim()


def _end_with_the_harness() -> None:
    harness = parent_process()
    assert harness is not None
    harness.join()
    os._exit(1)


def _write_down_posts(file: Path) -> None:
    post, clock = Transport.post, time.time
    memory = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def noted(
        self: Transport, provider: ConnectedProvider, batch: Sequence[Outgoing], may_leave: MayLeave
    ) -> list[SendOutcome]:
        lines = [orjson.dumps([one.message_id, one.now, clock()]) + b"\n" for one in batch]
        os.write(memory, b"".join(lines))
        return await post(self, provider, batch, may_leave)

    patch.object(Transport, "post", noted).start()


def posted(directory: Path) -> list[Posted]:
    """Every hand-over that was begun."""
    lines = [line for file in directory.glob("*.posts") for line in file.read_bytes().splitlines()]
    return [Posted(*orjson.loads(line)) for line in lines]


def _let_sqlite_suffer(full: Path) -> None:
    """It waits less long for a lock than the harness holds it, and its disk may be full."""

    @event.listens_for(Pool, "checkout")
    def suffer(connection: object, *_: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA busy_timeout = 1000")
            # a limit below what there is means: no more
            connection.execute(f"PRAGMA max_page_count = {1 if full.exists() else 2**30}")


def break_the_claim() -> None:
    """The claim and the record of what came of it are one transaction, after the post.

    It is how one would write it who does not think of what happens in between.
    """
    claim_among, write = Dispatcher._claim_among, Dispatcher._write

    def claim_for_now(self: Dispatcher, *given: Any) -> Claimed:
        forgetful = copy(self)
        forgetful._db = cast(Database, _Forgetful(self._db))
        return claim_among(forgetful, *given)

    def write_all(self: Dispatcher, done: Sequence[Done], *, move: bool) -> Outcomes:
        ids = [one.claim.message_id for one in done]
        pushes = [
            DeviceClaim(
                message_id=one.claim.message_id,
                token=one.device,
                profile_id=one.claim.profile_id,
                attempts=one.claim.attempts,
                not_after=one.claim.not_after,
            )
            for one in done
            if one.device is not None
        ]
        with self._db.transaction() as tx:
            tx.conn.execute(update(messages).where(messages.c.id.in_(ids)).values(state="sending"))
            if pushes:
                take(tx, pushes)
        return write(self, done, move=move)

    patch.multiple(Dispatcher, _claim_among=claim_for_now, _write=write_all).start()


class _Forgetful:
    """A database that keeps nothing."""

    def __init__(self, real: Database) -> None:
        self.real = real
        self.now = real.now

    def transaction(self) -> Any:
        return self.real.transaction(keep=False)
