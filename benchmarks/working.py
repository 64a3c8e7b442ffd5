"""Workers as they are in production: processes of their own, on a database, before a provider."""

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from config.settings import ROOT, Settings
from flows.stack import environment

_STARTS_WITHIN = 60.0  # seconds
_WINDOWS = re.compile(r"windows = \[.*?\]\n", re.DOTALL)


@contextmanager
def workers(number: int, database_url: str, provider_port: int) -> Iterator[list[int]]:
    """So many workers, until the block ends; gives the ports of their receivers.

    The policy is the one that Segue ships with, but open at all hours: time is real here.
    """
    with TemporaryDirectory(prefix="segue-bench-") as folder:
        policy = Path(folder) / "policy.toml"
        shipped = (ROOT / "config" / "policy.toml").read_text(encoding="utf-8")
        policy.write_text(_WINDOWS.sub("", shipped), encoding="utf-8")
        with contextlib.ExitStack() as running:
            ports = []
            for one in range(number):
                settings = Settings(
                    data_dir=Path(folder),
                    database_url=database_url,
                    sandbox_port=provider_port,
                    receiver_port=free_port(),
                )
                log = running.enter_context((Path(folder) / f"{one}.log").open("w+b"))
                running.enter_context(_worker(settings, policy, log.fileno()))
                ports.append(settings.receiver_port)
            for port in ports:
                wait_for(port, "/healthz", "a worker")
            yield ports


@contextmanager
def _worker(settings: Settings, policy: Path, log: int) -> Iterator[None]:
    command = [sys.executable, "-m", "flows.cli", "work"]
    # without Prefect, which is told afterwards and not waited for
    given = environment(settings) | {"SEGUE_POLICY_FILE": str(policy), "PREFECT_API_URL": ""}
    with subprocess.Popen(command, env=given, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()


def free_port() -> int:
    """One that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, path: str, what: str) -> None:
    """Return when it answers."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
            return
        time.sleep(0.1)
    raise TimeoutError(f"{what} does not start")
