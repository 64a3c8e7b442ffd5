"""Workers as in production: separate processes on one database, with a provider."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from config.settings import ROOT, Settings
from flows.local.stack import environment, free_ports

_STARTS_WITHIN = 60.0  # seconds
_STOPS_WITHIN = 30.0
_CPU = re.compile(r"^process_cpu_seconds_total (\S+)$", re.MULTILINE)
_WINDOWS = re.compile(r"windows = \[.*?\]\n", re.DOTALL)


@contextmanager
def workers(
    number: int,
    database_url: str,
    provider_port: int,
    command: str = "flows.cli.main work",
    prefect_url: str = "",
) -> Iterator[list[int]]:
    """Run workers until the block ends; yields the ports of their receivers.

    The policy is the default one without windows, because these workers use the real clock. An
    empty `prefect_url` means that they report to no Prefect server.

    Parameters
    ----------
    command: a module and its arguments, run instead of the worker's.
    """
    with TemporaryDirectory(prefix="segue-bench-") as folder:
        policy = Path(folder) / "policy.toml"
        shipped = (ROOT / "config" / "policy.toml").read_text(encoding="utf-8")
        policy.write_text(_WINDOWS.sub("", shipped), encoding="utf-8")
        with contextlib.ExitStack() as running:
            ports = free_ports(number)
            for port in ports:
                settings = Settings(
                    data_dir=Path(folder),
                    database_url=database_url,
                    sandbox_port=provider_port,
                    receiver_port=port,
                )
                log = running.enter_context((Path(folder) / f"{port}.log").open("w+b"))
                given = environment(settings) | {
                    "SEGUE_POLICY_FILE": str(policy),
                    "PREFECT_API_URL": prefect_url,
                    "PREFECT_LOGGING_LEVEL": "WARNING",
                }
                running.enter_context(_process(command.split(), given, log.fileno()))
            for port in ports:
                wait_for(port, "/healthz", "a worker")
            yield ports


@contextmanager
def _process(command: Sequence[str], given: Mapping[str, str], log: int) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=given, stdout=log, stderr=log
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(port: int, path: str, what: str) -> None:
    """Wait until the server responds. Raises TimeoutError after _STARTS_WITHIN."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
            return
        time.sleep(0.1)
    raise TimeoutError(f"{what} does not start")


def cpu_seconds(port: int) -> float:
    """The processor seconds that the process behind a port has used so far, to a hundredth."""
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    found = _CPU.search(metrics)
    assert found is not None, metrics
    return float(found[1])
