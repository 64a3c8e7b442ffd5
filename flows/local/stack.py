"""The processes of Segue on one machine: started, watched and stopped together.

Each has a process group of its own, so that Ctrl-C in the terminal reaches only us and we stop them
in order: first what talks to Prefect's server, then the server, for without it a runner that stops
hangs for a minute.
"""

import contextlib
import os
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

from config.access.login import prefect_login
from config.access.private_files import UMASK, make_private_folder, open_private
from config.errors import SegueError
from config.settings import Settings
from config.times import format_instant
from flows.orchestration.names import HOLDING
from flows.orchestration.prefect_api import PrefectAPI

# From the word "stop" on, in seconds: what talks to the server has this long, and everything this.
_CLIENTS_STOP = 2.0
_ALL_STOP = 3.8
# A worker that is stopped alone may take its time.
_WORKER_STOPS = 30.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTHING = 0  # the signal that only asks whether somebody is there
_TAIL = 15  # lines of a log that are shown


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def signal(self, wanted: int) -> bool:
        """To it and to all that it started; whether anybody was there."""
        self.process.poll()
        try:
            os.killpg(self.process.pid, wanted)
        except ProcessLookupError:
            return False
        return True

    def stop(self, deadline: float) -> None:
        """Wait for all of them to end, and kill those that have not by then."""
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
        # Impatient Ctrl-C must not leave half of them behind.
        before = {one: signal.signal(one, signal.SIG_IGN) for one in _STOP_SIGNALS}
        started = time.monotonic()
        _stop(self._clients, started + _CLIENTS_STOP)
        _stop(self._servers, started + _ALL_STOP)
        self.prefect.close()
        for one, handler in before.items():
            signal.signal(one, handler)

    # Starting -----------------------------------------------------------------------------------

    def start_servers(self) -> None:
        """Prefect's server with its UI, and the sandbox providers with their inbox."""
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
        """Return when it answers."""
        inbox = f"{self.settings.sandbox_url}/inbox.css"
        self.wait_until(lambda: _get(inbox) is not None, "starting the sandbox")

    def wait_for_servers(self) -> None:
        """Return when both answer."""
        self.wait_for_sandbox()
        self.wait_until(self.prefect.is_well, "starting Prefect")
        # Whoever ran them is gone, for we hold the data.
        self.prefect.end_lost_runs()

    def start_worker(self) -> None:
        """The worker that receives, moves people and sends; returns when it receives."""
        self._clients.append(self._start("the worker", "flows.cli.main", "work"))
        # It may well be red, with something overdue since it was stopped.
        health = f"http://{self.settings.host}:{self.settings.receiver_port}/healthz"
        self.wait_until(lambda: _get(health) is not None, "starting the worker")

    def stop_worker(self) -> None:
        """Stop the worker alone; what it has in hand it brings to its end."""
        workers = [client for client in self._clients if client.name == "the worker"]
        self._clients = [client for client in self._clients if client not in workers]
        _stop(workers, time.monotonic() + _WORKER_STOPS)

    def start_runner(self, journeys: Iterable[str]) -> None:
        """What runs what is started in Prefect; returns when all is deployed."""
        self._clients.append(self._start("the runner", "flows.orchestration.deployments"))
        for name in (*journeys, HOLDING):
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
        """Raise SegueError when one of them has died, with the end of its log."""
        for child in self._clients + self._servers:
            status = child.process.poll()
            if status is not None:
                how = f"signal {-status}" if status < 0 else f"exit status {status}"
                raise SegueError(f"{child.name} has stopped ({how}).\n{_tail(child.log)}")

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float = 600) -> None:
        """Wait for something, while nothing dies. Raises SegueError when it takes too long.

        A busy machine needs minutes for what a quiet one does in seconds.
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
    """What the processes find in their environment: our settings, and a Prefect of our own."""
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
        "PREFECT_HOME": str(data_dir / "prefect"),
        "PREFECT_API_URL": f"{settings.prefect_url}/api",
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(settings.prefect_port),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
            f"sqlite+aiosqlite:///{data_dir / 'prefect' / 'prefect.db'}"
        ),
        # The UI asks the server that it came from, under whichever name; no other page may.
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": settings.prefect_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # Runs that nobody looks at any more make room after 90 days.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "DO_NOT_TRACK": "1",
        # Everything is on this machine, whatever proxy the environment names.
        "NO_PROXY": ",".join(filter(None, [host, given.get("NO_PROXY")])),
        "no_proxy": ",".join(filter(None, [host, given.get("no_proxy")])),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.now is not None:
        ours["SEGUE_NOW"] = format_instant(settings.now)
    if login is not None:
        ours |= {"PREFECT_SERVER_API_AUTH_STRING": login, "PREFECT_API_AUTH_STRING": login}
    return given | ours


def check_ports(settings: Settings) -> None:
    """Raise SegueError for the first port that somebody else has."""
    _check_port(settings, "prefect_port", "Prefect")
    _check_port(settings, "sandbox_port", "the sandbox")
    _check_port(settings, "receiver_port", "the receiver")


def _check_port(settings: Settings, field: str, what: str) -> None:
    port = getattr(settings, field)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, port))
        except OSError as error:
            variable = f"SEGUE_{field.upper()}"
            raise SegueError(
                f"{what} can't have port {port} ({error.strerror}): perhaps another `segue up` or "
                f"another Prefect server has it. Stop that, or choose another port: "
                f"{variable}={port + 1}"
            ) from error


def free_ports(number: int) -> list[int]:
    """So many ports that nobody has at this moment."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def on_free_ports(settings: Settings) -> Settings:
    """The same settings on ports that nobody has at this moment, reached on this machine."""
    prefect, sandbox, receiver = free_ports(3)
    theirs = {"prefect_port": prefect, "sandbox_port": sandbox, "receiver_port": receiver}
    url = f"http://{settings.host}:{receiver}"
    return settings.model_copy(update={**theirs, "public_url": url})


def _get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


def _stop(children: list[_Child], deadline: float) -> None:
    for child in children:
        child.signal(signal.SIGTERM)
    for child in children:
        child.stop(deadline)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in lines[-_TAIL:])])
