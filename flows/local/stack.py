"""The processes of Segue on one machine: start, watch and stop them together.

Each has its own process group, so that Ctrl-C in the terminal reaches only this process, which
stops them in order: first the clients of Prefect's server, then the server. Without the server, a
stopping runner hangs for a minute.
"""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from pydantic import SecretStr

from config.access.login import prefect_login
from config.access.private_files import UMASK, make_private_folder, open_private
from config.clock.times import format_instant
from config.errors import SegueError
from config.settings import Settings
from flows.orchestration.api.prefect_api import PrefectAPI
from flows.orchestration.names import CONTROLS

# Seconds from the stop until Prefect's clients are killed, and until all processes are.
_CLIENTS_STOP = 2.0
_ALL_STOP = 3.8
# Seconds for a worker that is stopped alone.
_WORKER_STOPS = 30.0
# Signs the user tokens of the sample shop, unless there is a secret of your own.
_SANDBOX_USER_TOKENS = SecretStr("user-tokens-for-the-sandbox-only")
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTHING = 0  # signal 0 only checks whether the process exists
_TAIL = 15  # lines of a log that are shown


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def signal(self, wanted: int) -> bool:
        """Signal the process group. Returns whether it still exists."""
        self.process.poll()
        try:
            os.killpg(self.process.pid, wanted)
        except ProcessLookupError:
            return False
        return True

    def stop(self, deadline: float) -> None:
        """Wait for the process group to end, and kill it at the deadline."""
        while self.signal(_NOTHING) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


class Stack:
    """A context manager: at its end everything is stopped, within five seconds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.prefect = PrefectAPI(settings)
        self._http = httpx.Client(trust_env=False)
        self._logs = settings.data_dir / "logs"
        self._clients: list[_Child] = []
        self._servers: list[_Child] = []

    def __enter__(self) -> Self:
        make_private_folder(self._logs)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A second Ctrl-C must not leave processes behind.
        before = {one: signal.signal(one, signal.SIG_IGN) for one in _STOP_SIGNALS}
        started = time.monotonic()
        _stop(self._clients, started + _CLIENTS_STOP)
        _stop(self._servers, started + _ALL_STOP)
        self.prefect.close()
        self._http.close()
        for one, handler in before.items():
            signal.signal(one, handler)

    # Starting -----------------------------------------------------------------------------------

    def start_servers(self) -> None:
        """Start Prefect's server with its UI, and the sandbox with its inbox."""
        prefect = self._start(
            "the Prefect server",
            "uvicorn",
            "--factory",
            "flows.orchestration.prefect_server:create_app",
            f"--host={self.settings.host}",
            f"--port={self.settings.prefect_port}",
            "--log-level=warning",
            "--timeout-graceful-shutdown=1",
        )
        self._servers = [prefect, self._start("the sandbox", "sandbox")]

    def wait_for_sandbox(self) -> None:
        """Return when it responds."""
        self._wait_for_answer(f"{self.settings.sandbox_url}/inbox.css", "starting the sandbox")

    def wait_for_servers(self) -> None:
        """Return when both respond."""
        self.wait_for_sandbox()
        self.wait_until(self.prefect.is_well, "starting Prefect")
        # The processes of these runs are gone, because we hold the data directory.
        self.prefect.end_lost_runs()

    def start_worker(self) -> None:
        """Start the worker; returns when its receiver responds."""
        self._clients.append(self._start("the worker", "flows.cli.main", "work"))
        # It may respond 503, if something became overdue while no worker ran.
        health = f"http://{self.settings.host}:{self.settings.receiver_port}/healthz"
        self._wait_for_answer(health, "starting the worker")

    def stop_worker(self) -> None:
        """Stop only the worker; it finishes its current work."""
        workers = [client for client in self._clients if client.name == "the worker"]
        self._clients = [client for client in self._clients if client not in workers]
        _stop(workers, time.monotonic() + _WORKER_STOPS)

    def start_staff_site(self) -> None:
        """Start the staff site; returns when it responds."""
        self._clients.append(self._start("the staff site", "flows.cli.main", "staff", "serve"))
        page = f"http://{self.settings.host}:{self.settings.staff_port}/sign-in"
        self._wait_for_answer(page, "starting the staff site")

    def start_runner(self, journeys: Iterable[str]) -> None:
        """Start the runner of Prefect's flow runs; returns when all flows are deployed."""
        self._clients.append(self._start("the runner", "flows.orchestration.deployments"))
        for name in (*journeys, CONTROLS):
            self.wait_until(partial(self.prefect.is_served, name), f"deploying {name}")

    def _start(self, name: str, module: str, *arguments: str) -> _Child:
        log = self._logs / f"{name.removeprefix('the ').replace(' ', '-').lower()}.log"
        with open(log, "wb", opener=open_private) as out:
            process = subprocess.Popen(  # noqa: S603  our own module, no shell
                [sys.executable, "-m", "flows.local.child", module, *arguments],
                env=environment(self.settings),
                stdin=subprocess.PIPE,  # see flows/local/child.py
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=UMASK,
            )
        return _Child(name, process, log)

    # Watching -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise SegueError if a process has ended, with the end of its log."""
        for child in self._clients + self._servers:
            status = child.process.poll()
            if status is not None:
                how = f"signal {-status}" if status < 0 else f"exit status {status}"
                raise SegueError(f"{child.name} has stopped ({how}).\n{_tail(child.log)}")

    def _wait_for_answer(self, url: str, what: str) -> None:
        self.wait_until(lambda: self._http.get(url) is not None, what)

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float = 600) -> None:
        """Wait for a condition while all processes run. Raises SegueError after `seconds`.

        A busy machine may need minutes for what takes seconds otherwise.
        """
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                if ready():
                    return
            self.check()
            if time.monotonic() > deadline:
                raise SegueError(f"{what} took more than {seconds:.0f} s; see {self._logs}")
            time.sleep(0.2)


def environment(settings: Settings) -> dict[str, str]:
    """The environment of the processes: our settings, and our own Prefect."""
    host, data_dir = settings.host, settings.data_dir.resolve()
    login = prefect_login(settings)
    given = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ours = {
        "SEGUE_DATA_DIR": str(data_dir),
        "SEGUE_DATABASE_URL": settings.database_url,
        "SEGUE_PROVIDERS": settings.providers,
        "SEGUE_HOST": host,
        "SEGUE_PUBLIC_URL": settings.public_url,
        "SEGUE_PREFECT_PORT": str(settings.prefect_port),
        "SEGUE_PREFECT_LOGIN": str(settings.prefect_login),
        "SEGUE_SANDBOX_PORT": str(settings.sandbox_port),
        "SEGUE_RECEIVER_PORT": str(settings.receiver_port),
        "SEGUE_STAFF_PORT": str(settings.staff_port),
        "SEGUE_STAFF_URL": settings.staff_url,
        "SEGUE_USER_TOKEN_SECRET": user_token_secret(settings).get_secret_value(),
        "PREFECT_HOME": str(data_dir / "prefect"),
        "PREFECT_API_URL": f"{settings.prefect_url}/api",
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(settings.prefect_port),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
            f"sqlite+aiosqlite:///{data_dir / 'prefect' / 'prefect.db'}"
        ),
        # The UI calls the server that served it, under any host name; no other page may.
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": settings.prefect_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # Delete old events and runs; Prefect's default is after 90 days.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "DO_NOT_TRACK": "1",
        # Everything is on this machine, so no proxy is used.
        "NO_PROXY": ",".join(filter(None, [host, given.get("NO_PROXY")])),
        "no_proxy": ",".join(filter(None, [host, given.get("no_proxy")])),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.now is not None:
        ours["SEGUE_NOW"] = format_instant(settings.now)
    if login is not None:
        ours |= {"PREFECT_SERVER_API_AUTH_STRING": login, "PREFECT_API_AUTH_STRING": login}
    return given | ours


def user_token_secret(settings: Settings) -> SecretStr:
    """The secret that signs the user tokens of the sample shop."""
    return settings.user_token_secret if settings.user_token_secret else _SANDBOX_USER_TOKENS


def check_ports(settings: Settings) -> None:
    """Raise SegueError for the first port that is in use."""
    _check_port(settings, "prefect_port", "Prefect")
    _check_port(settings, "sandbox_port", "the sandbox")
    _check_port(settings, "receiver_port", "the receiver")
    _check_port(settings, "staff_port", "the staff site")


def _check_port(settings: Settings, field: str, what: str) -> None:
    port = getattr(settings, field)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, port))
        except OSError as error:
            variable = f"SEGUE_{field.upper()}"
            raise SegueError(
                f"{what} can't use port {port} ({error.strerror}): perhaps another `segue up` or "
                f"another Prefect server uses it. Stop that, or choose another port: "
                f"{variable}={port + 1}"
            ) from error


# Linux gives ports from 32768 on, other systems from 49152 on, to connections and to port 0.
_NEVER_GIVEN = range(20_000, 32_768)


def free_ports(number: int) -> list[int]:
    """This many ports that are free now.

    The system gives none of them to another program before the caller listens.
    """
    candidates = random.sample(_NEVER_GIVEN, len(_NEVER_GIVEN))
    return list(itertools.islice(filter(_is_free, candidates), number))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def on_free_ports(settings: Settings) -> Settings:
    """The same settings on free ports, with a URL on this machine."""
    prefect, sandbox, receiver, staff = free_ports(4)
    ports = {"prefect_port": prefect, "sandbox_port": sandbox}
    ports |= {"receiver_port": receiver, "staff_port": staff}
    here = f"http://{settings.host}"
    urls = {"public_url": f"{here}:{receiver}", "staff_url": f"{here}:{staff}"}
    return settings.model_copy(update={**ports, **urls})


def _stop(children: list[_Child], deadline: float) -> None:
    for child in children:
        child.signal(signal.SIGTERM)
    for child in children:
        child.stop(deadline)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in lines[-_TAIL:])])
