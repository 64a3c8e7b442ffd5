"""The same job in plain Prefect, for comparison: `send.map(profiles)`.

    python -m benchmarks.plain_prefect PORT PEOPLE

runs it against the Prefect server in the environment and prints the seconds that the flow took. The
benchmark starts the server and this module as separate processes.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.support.material import TEMPLATES
from benchmarks.support.runner import Benchmark, Figures
from benchmarks.support.stub import accepted, running_stub
from channels.kinds.sms import SMSContent
from channels.templates.compile import compile_template
from channels.templates.link_check import LinkRules
from config.settings import Settings
from flows.local.stack import Stack, environment, on_free_ports


def _run(quick: bool) -> Figures:
    people = 10 if quick else 500
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as folder, running_stub() as stub:
        settings = on_free_ports(Settings(data_dir=Path(folder)))
        with Stack(settings) as stack:
            stack.start_servers()
            stack.wait_for_servers()
            seconds = _in_a_process(settings, stub, people)
        assert accepted(stub) == people
    return {"profiles": people, "per_second": people / seconds}


def _in_a_process(settings: Settings, stub: int, people: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plain_prefect", str(stub), str(people)],
        env=environment(settings) | {"PREFECT_LOGGING_LEVEL": "WARNING"},
        check=True,
        stdout=subprocess.PIPE,
    )
    return float(done.stdout)


def _map(port: int, people: int) -> float:
    """Send to this many customers with one task each. Returns the seconds."""
    from prefect import flow, task

    template = compile_template("sms", "offer", TEMPLATES)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
    profiles = [{"first_name": "Ada", "phone": f"+44770{number:07}"} for number in range(people)]

    @task
    def send(profile: dict[str, Any]) -> None:
        content = template.render({"profile": profile, "brand": "Segue Sample Shop"}, LinkRules())
        assert isinstance(content, SMSContent)
        form = {"To": profile["phone"], "Body": content.body}
        client.post("/Messages.json", data=form).raise_for_status()

    @flow
    def offer() -> None:
        send.map(profiles).result()

    started = time.perf_counter()
    offer()
    return time.perf_counter() - started


PLAIN_PREFECT = Benchmark("for comparison: plain Prefect with one task for each profile", _run, {})

if __name__ == "__main__":
    print(_map(int(sys.argv[1]), int(sys.argv[2])))
