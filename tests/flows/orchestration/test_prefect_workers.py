"""Prefect workers, their runs and our workers are killed at critical moments, on one PostgreSQL.

The moments do not depend on timing: the test locks what the run needs next, waits until the run
waits for the lock, and kills the process.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from sqlalchemy import Executable, func, insert, select, text

from channels.messages import messages
from channels.outbox.unknown import settle_lost
from config.access.login import basic, own_login
from config.clock.times import MINUTE
from config.settings import Settings
from flows.app import Segue, open_segue
from flows.local.stack import Stack, environment, on_free_ports
from flows.orchestration.api.prefect_api import PatientClient
from flows.orchestration.deployments import deploy
from journeys.engine.entry import audience_after
from journeys.enrollments import enrollments
from profiles.sample.shop import load_sample_shop
from sandbox.store import Store
from tests.support.patience import PATIENCE
from tests.support.prefect_server import client_of, give_database
from tests.support.proof import cases
from tests.support.shop import MONDAY

POOL = "journeys"
JOURNEY = "win-back"


class Processes:
    """Workers of Prefect and ours; at the end they are killed, if they have not been by then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: list[subprocess.Popen[bytes]] = []

    def of_prefect(self) -> None:
        self._start("prefect", "worker", "start", "--pool", POOL)

    def of_ours(self) -> None:
        self._start("flows.cli.main", "work")

    def _start(self, *command: str) -> None:
        with (self._settings.data_dir / "logs" / f"{command[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.local.child", *command],
                env=environment(self._settings),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(process)

    def kill_runs(self) -> None:
        """The processes of Prefect's runs. A run that was retried early may have two."""
        workers = {process.pid for process in self._running}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            # A process that ends meanwhile has no file any more, or no line in it.
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[1]) in workers:  # the parent
                    os.kill(int(stat.parent.name), signal.SIGKILL)

    def kill(self) -> None:
        """All of them, and Prefect's runs, which would outlive their worker."""
        self.kill_runs()
        while self._running:
            process = self._running.pop()
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


class Prefect:
    """What a person does in its UI."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._http = PatientClient(
            base_url=f"{stack.settings.prefect_url}/api", trust_env=False, timeout=PATIENCE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def deploy(self) -> None:
        self._post("/work_pools/", {"name": POOL, "type": "process"})
        with client_of(self._stack.settings):
            deploy(POOL)

    def retry(self, run_id: str) -> None:
        state = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        self._post(f"/flow_runs/{run_id}/set_state", state)

    def retried(self, run_id: str) -> bool:
        """Whether a run is under way again. Its worker reports a crash twice: a retry between the
        two is undone by the second.
        """
        over = self._stack.prefect.ended(run_id) is not None
        if over:
            self.retry(run_id)
        return not over

    def ended(self, run_id: str) -> str:
        """How a run ended; waits for that."""
        prefect = self._stack.prefect
        self._stack.wait_until(lambda: prefect.ended(run_id) is not None, f"the run {run_id}")
        return str((prefect.ended(run_id) or {})["type"])

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._http.post(path, json=body).raise_for_status()


@pytest.fixture
def segue(tmp_path: Path, postgresql_url: str) -> Iterator[Segue]:
    ours = {"data_dir": tmp_path, "database_url": postgresql_url, "now": MONDAY}
    found = open_segue(on_free_ports(Settings().model_copy(update=ours)))
    load_sample_shop(found.db, MONDAY, customers=5000)
    with closing(found.db):
        yield found


@pytest.fixture
def stack(segue: Segue, prefect_database: Path) -> Iterator[Stack]:
    give_database(segue.settings, prefect_database)
    with Stack(segue.settings) as stack:
        stack.start_servers()
        stack.wait_for_servers()
        yield stack


@pytest.fixture
def workers(stack: Stack) -> Iterator[Processes]:
    found = Processes(stack.settings)
    yield found
    found.kill()


@pytest.fixture
def prefect(stack: Stack) -> Iterator[Prefect]:
    with Prefect(stack) as prefect:
        prefect.deploy()
        yield prefect


@pytest.fixture
def sandbox(stack: Stack) -> Iterator[httpx.Client]:
    url, auth = stack.settings.sandbox_url, basic(own_login(stack.settings))
    with httpx.Client(base_url=url, auth=auth, trust_env=False) as client:
        yield client


@pytest.mark.long
@pytest.mark.proof
@pytest.mark.xdist_group("prefect")
def test_no_killed_process_loses_or_repeats_anything(
    segue: Segue, stack: Stack, workers: Processes, prefect: Prefect, sandbox: httpx.Client
) -> None:
    lapsed = _lapsed(segue)

    def entered_all() -> bool:
        return len(_entered(segue)) == len(lapsed)

    # In the middle of moving those who enter, who have not entered then. Prefect's worker notices,
    # and says so.
    workers.of_prefect()
    with _held(segue, text("LOCK TABLE message IN SHARE MODE")):
        run_id = stack.prefect.start(JOURNEY, {"audience": "lapsed"})
        stack.wait_until(lambda: _somebody_waits(segue), "moving people")
        workers.kill_runs()
        assert prefect.ended(run_id) == "CRASHED"
    assert not entered_all()

    # Earlier in the same transaction, in the middle of entering people.
    if cases(test=0, prove=1):
        with _held(segue, insert(enrollments).values(_place_of(segue, lapsed[-1]))):
            stack.wait_until(
                lambda: prefect.retried(run_id) and _somebody_waits(segue), "entering people"
            )
            workers.kill_runs()
            assert prefect.ended(run_id) == "CRASHED"
        assert not entered_all()

    # In the middle of posting: the provider takes mails, and nobody is left who hears of it. With
    # its worker gone, Prefect believes that the run goes on. No run comes to its end before that.
    slow = {"provider": "sendgrid", "answer": "slow", "seconds": PATIENCE, "share": 0.5}
    sandbox.post("/faults", json=slow).raise_for_status()
    workers.of_ours()
    claimers: set[str] = set()

    def both_have_claimed() -> bool:
        # Not at the same time: on a loaded machine the first one's claims may end before.
        claimers.update(_claimers(segue))
        return prefect.retried(run_id) and len(claimers) > 1

    stack.wait_until(both_have_claimed, "both to claim")
    stack.wait_until(lambda: bool(_messages(segue, "sent")), "posting")
    workers.kill()
    sandbox.delete("/faults").raise_for_status()
    unknown = _messages(segue, "sending")
    # Prefect's worker may report the crash before a second time, after the retry began.
    state = stack.prefect.ended(run_id)
    assert state is None or state["type"] == "CRASHED"

    stack.prefect.end_lost_runs()
    assert prefect.ended(run_id) == "CRASHED"
    workers.of_prefect()
    prefect.retry(run_id)
    assert prefect.ended(run_id) == "COMPLETED"
    workers.kill()

    # Everybody is in the journey once; each mail was sent once, or stays unknown.
    assert _entered(segue) == dict.fromkeys(lapsed, 1)
    assert _messages(segue, "sending") == unknown
    next_due = segue.engine.next_due()
    assert next_due is not None
    assert next_due > MONDAY, "all that was due has been done"
    segue.db.now = MONDAY + 5 * MINUTE
    with segue.db.transaction() as tx:
        settle_lost(tx)
    assert _messages(segue, "unknown") == unknown
    sent = _messages(segue, "sent")
    assert sent
    stats = sandbox.get("/stats").raise_for_status().json()
    assert stats["duplicates"] == stats["without_id"] == 0
    assert len(sent) <= stats["accepted"]["email"] <= len(sent | unknown)
    with closing(Store(segue.settings.data_dir / "sandbox.db")) as store:
        ids = [str(one) for one in sent]
        assert {one.message_id for one in store.with_ids(ids)} == set(ids)


def _lapsed(segue: Segue) -> list[int]:
    condition = segue.catalog.segment("lapsed").condition
    with segue.db.transaction(write=False) as tx:
        return list(audience_after(tx, condition, 0, 10_000))


def _place_of(segue: Segue, person: int) -> dict[str, Any]:
    """The row that would be theirs."""
    version = segue.catalog.journey(JOURNEY)
    return {
        "profile_id": person,
        "journey": JOURNEY,
        "version": version.digest,
        "entry_key": "",
        "context": {},
        "step": version.journey.first_step,
        "phase": 0,
        "attempts": 0,
        **dict.fromkeys(("entered_at", "since", "arrived_at", "due_at"), MONDAY),
    }


@contextmanager
def _held(segue: Segue, statement: Executable) -> Iterator[None]:
    """Hold the locks of the statement, and roll back at the end; others wait for them."""
    with segue.db.transaction(keep=False) as tx:
        # However long the others take, the server must not end this transaction.
        tx.conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        tx.conn.execute(statement)
        yield


def _somebody_waits(segue: Segue) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with segue.db.transaction(write=False) as tx:
        return bool(tx.conn.execute(text(waiting)).scalar_one())


def _entered(segue: Segue) -> dict[int, int]:
    """How many times each person entered."""
    counted = select(enrollments.c.profile_id, func.count()).group_by(enrollments.c.profile_id)
    with segue.db.transaction(write=False) as tx:
        return dict(tx.conn.execute(counted).tuples().all())


def _messages(segue: Segue, state: str) -> set[int]:
    with segue.db.transaction(write=False) as tx:
        found = select(messages.c.id).where(messages.c.state == state)
        return set(tx.conn.execute(found).scalars())


def _claimers(segue: Segue) -> set[str]:
    """The processes that hold claims."""
    with segue.db.transaction(write=False) as tx:
        found = select(messages.c.claimed_by).where(messages.c.state == "sending").distinct()
        return set(tx.conn.execute(found).scalars())
