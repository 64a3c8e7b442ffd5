"""The same job as plain Prefect, for comparison: `send.map(profiles)`, a task a profile.

    python -m benchmarks.plain_prefect PORT PEOPLE

runs it against the Prefect server that the environment names and prints how many seconds the flow
took; the benchmark starts the server and this as processes of their own.
"""

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.material import TEMPLATES
from benchmarks.runner import Benchmark, Figures
from benchmarks.stub import accepted, running_stub
from channels.content import SMSContent
from channels.templates import compile_template
from config.settings import Settings
from flows.stack import Stack, environment


def _run(quick: bool) -> Figures:
    people = 10 if quick else 500
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as folder, running_stub() as stub:
        settings = Settings(
            data_dir=Path(folder), prefect_port=_free_port(), sandbox_port=_free_port()
        )
        with Stack(settings) as stack:
            stack.start_servers()
            stack.wait_for_servers()
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.plain_prefect", str(stub), str(people)],
                env=environment(settings) | {"PREFECT_LOGGING_LEVEL": "WARNING"},
                check=True,
                stdout=subprocess.PIPE,
            )
        assert accepted(stub) == people
    return {"profiles": people, "per_second": people / float(done.stdout)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _map(port: int, people: int) -> float:
    """Send to so many people with a task each; the seconds that it took."""
    from prefect import flow, task

    template = compile_template("sms", "offer", TEMPLATES)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
    profiles = [{"first_name": "Ada", "phone": f"+44770{number:07}"} for number in range(people)]

    @task
    def send(profile: dict[str, Any]) -> None:
        content = template.render({"profile": profile, "brand": "Segue Sample Shop"})
        assert isinstance(content, SMSContent)
        form = {"To": profile["phone"], "Body": content.body}
        client.post("/Messages.json", data=form).raise_for_status()

    @flow
    def offer() -> None:
        send.map(profiles).result()

    started = time.perf_counter()
    offer()
    return time.perf_counter() - started


PLAIN_PREFECT = Benchmark("plain Prefect: send.map(profiles), for comparison", _run, {})

if __name__ == "__main__":
    print(_map(int(sys.argv[1]), int(sys.argv[2])))
