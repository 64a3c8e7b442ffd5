"""`segue demo`: one journey from its launch to its end, on a clock that jumps, in under a minute.

Everything is as in `segue up` but the time: it is a Monday morning, and whenever nothing is left to
do, the clock jumps to the next moment at which somebody is due. So the same comes out at any hour.
"""

import asyncio
import shutil
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import orjson
from rich.console import Console

from config.errors import SegueError
from config.policy import CHANNELS
from config.settings import load_settings
from config.times import Instant, format_instant, parse_instant
from flows.app import Segue, open_segue
from flows.stack import Stack, free_ports
from flows.up import only_one
from journeys.report import Summary, summarise
from profiles.sample_shop import load_sample_shop

JOURNEY, AUDIENCE = "win-back", "lapsed"
BEGINS = parse_instant("2026-03-02T09:00:00Z")
# How often the same moment is worked before it is an error.
_LOOKS = 10

_err = Console(stderr=True, highlight=False, soft_wrap=True)


def demo() -> int:
    """Run the demo; gives the exit status. Its last line on standard output is the summary.

    Raises SegueError, with nothing left running, when the numbers of the database and of the
    sandbox differ, or when something can't start or dies.
    """
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    data_dir = load_settings().data_dir / "demo"
    try:
        with only_one(data_dir):
            _wipe(data_dir)
            summary = _run(data_dir)
    except KeyboardInterrupt:
        _err.print("Stopped.")
        return 130
    told = {
        "journey": JOURNEY,
        "entered": summary.entered,
        "sent": {channel: summary.sent[channel] for channel in CHANNELS},
        "not_sent": dict(sorted(summary.not_sent.items())),
        "seconds": round(time.monotonic() - started, 1),
    }
    sys.stdout.write(orjson.dumps(told).decode() + "\n")
    return 0


def _wipe(data_dir: Path) -> None:
    """Begin with nothing; the lock stays, for we hold it."""
    for entry in data_dir.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def _run(data_dir: Path) -> Summary:
    settings = load_settings().model_copy(
        update={
            "data_dir": data_dir,
            "database_url": "",
            "providers": "sandbox",
            "now": BEGINS,
            **free_ports("prefect_port", "sandbox_port", "receiver_port"),
        }
    )
    segue = open_segue(settings)
    with closing(segue.db), Stack(settings) as stack:
        _err.print(f"It is {_clock(BEGINS)}. Starting Prefect and the sandbox providers ...")
        stack.start_servers()
        shop = load_sample_shop(segue.db, BEGINS)
        _err.print(f"The sample shop is open: {shop['customers']:,} invented customers.")
        stack.wait_for_servers()
        stack.start_runner(segue.catalog.current)
        _err.print(f"Launching {JOURNEY} for the segment {AUDIENCE}, through Prefect ...")
        run_id = _run_journey(stack, {"audience": AUDIENCE})
        asyncio.run(_live_through(segue))
        _err.print("Nobody is on the way any more. A last run, so that Prefect shows the end ...")
        _run_journey(stack, {})
        with segue.db.transaction(write=False) as tx:
            summary = summarise(tx, JOURNEY, run_id)
        _compare(summary, httpx.get(f"{settings.sandbox_url}/stats", trust_env=False).json())
        _err.print("The sandbox accepted what the database says was sent. Stopping ...")
    return summary


def _run_journey(stack: Stack, parameters: dict[str, Any]) -> str:
    """Start the journey in Prefect and wait for its end; gives the run's id."""
    run_id = stack.prefect.start(JOURNEY, parameters)
    stack.wait_until(lambda: stack.prefect.ended(run_id) is not None, f"the run of {JOURNEY}")
    state = stack.prefect.ended(run_id)
    assert state is not None
    if state["type"] != "COMPLETED":
        raise SegueError(f"the run of {JOURNEY} ended as {state['name']}: {state['message']}")
    _err.print(f"  {state['message']}")
    return run_id


async def _live_through(segue: Segue) -> None:
    """Jump from one due moment to the next until nothing lies ahead."""
    now, looked = BEGINS, 0
    async with segue.dispatcher() as dispatcher:
        while (due := await asyncio.to_thread(segue.engine.next_due)) is not None:
            # Those whose message has just gone are due again at once.
            looked = 0 if due > now else looked + 1
            if looked > _LOOKS:
                raise SegueError(f"somebody has been due since {_clock(due)} and can't be moved")
            segue.db.now = now = max(now, due)
            await asyncio.to_thread(segue.engine.advance_due)
            sent = await dispatcher.run()
            if sent:
                counts = (f"{n} {channel} {what}" for (_, channel, what), n in sent.items())
                _err.print(f"  {_clock(now)}: {', '.join(counts)}")


def _compare(summary: Summary, sandbox: dict[str, Any]) -> None:
    """Raise SegueError unless the sandbox accepted exactly what was sent, each message once."""
    sent = {channel: summary.sent[channel] for channel in CHANNELS}
    if sandbox["accepted"] != sent or sandbox["duplicates"] or sandbox["without_id"]:
        raise SegueError(f"the database says that {sent} were sent, but the sandbox: {sandbox}")


def _clock(instant: Instant) -> str:
    return format_instant(instant).replace("T", " ")[:16] + " UTC"
