"""The same jobs as plain Prefect, for comparison: `send.map(profiles)`, and a flow run an event.

    python -m benchmarks.plain_prefect map PORT PEOPLE
    python -m benchmarks.plain_prefect each PORT EVENTS

runs one of them against the Prefect server that the environment names; the benchmark starts the
server and these as processes of their own. The first prints how many seconds the flow took, the
second when each event came.

An event is given to its flow in the same process, without a webhook's HTTP, and the flow does no
more than render a mail and post it in one task: nothing is looked up, decided or recorded. That is
less than the live benchmark does, at the rate at which that one begins.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.material import TEMPLATES
from benchmarks.runner import Benchmark, Figures
from benchmarks.sandbox import Sandbox
from benchmarks.stub import accepted, running_stub
from benchmarks.working import free_port
from channels.content import EmailContent, SMSContent
from channels.templates import compile_template
from config.settings import Settings
from flows.stack import Stack, environment

_EVENTS_A_SECOND = 5
_WARM_UP = 2


def _run(quick: bool) -> Figures:
    people, events = (10, 5) if quick else (500, 50)
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as folder, running_stub() as stub:
        settings = Settings(
            data_dir=Path(folder), prefect_port=free_port(), sandbox_port=free_port()
        )
        with Stack(settings) as stack:
            stack.start_servers()
            stack.wait_for_servers()
            seconds = float(_as_process(settings, "map", stub, people))
            assert accepted(stub) == people
            left = json.loads(_as_process(settings, "each", settings.sandbox_port, events))
            sandbox = Sandbox(settings.sandbox_port, settings.data_dir / "sandbox.db")
            arrived = sandbox.all_arrived([int(number) for number in left])
    took = [(arrived[int(number)] - at) * 1000 for number, at in left.items()]
    return {
        "profiles": people,
        "per_second": people / seconds,
        f"flow_run_each_p50_ms_at_{_EVENTS_A_SECOND}": statistics.median(took),
    }


def _as_process(settings: Settings, what: str, port: int, number: int) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plain_prefect", what, str(port), str(number)],
        env=environment(settings) | {"PREFECT_LOGGING_LEVEL": "WARNING"},
        check=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout


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


async def _each(port: int, events: int) -> dict[int, float]:
    """A flow run for each event, so many a second; when each came, by the monotonic clock."""
    from prefect import flow, task

    template = compile_template("email", "offer", TEMPLATES)
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": "Bearer SG.sandbox"},
        trust_env=False,
        timeout=httpx.Timeout(60),
    )

    @task
    async def send(number: int) -> None:
        content = template.render(
            {
                "profile": {"first_name": "Ada"},
                "brand": "Segue Sample Shop",
                "links": {"unsubscribe": "https://shop.example/u/1"},
            }
        )
        assert isinstance(content, EmailContent)
        mail = {
            "personalizations": [{"to": [{"email": f"customer.{number}@example.com"}]}],
            "from": {"email": "shop@example.com"},
            "subject": content.subject,
            "content": [{"type": "text/html", "value": content.html}],
        }
        (await client.post("/v3/mail/send", json=mail)).raise_for_status()

    @flow
    async def cart(number: int) -> None:
        await send(number)

    for number in range(_WARM_UP):
        await cart(-1 - number)
    left: dict[int, float] = {}
    running = []
    for number in range(1, events + 1):
        left[number] = time.monotonic()
        running.append(asyncio.create_task(cart(number)))
        await asyncio.sleep(1 / _EVENTS_A_SECOND)
    await asyncio.gather(*running)
    await client.aclose()
    return left


PLAIN_PREFECT = Benchmark(
    "plain Prefect, for comparison: a task a profile, a run an event", _run, {}
)

if __name__ == "__main__":
    if sys.argv[1] == "map":
        print(_map(int(sys.argv[2]), int(sys.argv[3])))
    else:
        print(json.dumps(asyncio.run(_each(int(sys.argv[2]), int(sys.argv[3])))))
