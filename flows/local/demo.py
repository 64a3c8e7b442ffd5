"""`segue demo`: two journeys on one machine, on a simulated clock, in about a minute.

First a customer abandons a cart on the sample shop's page: Segment's browser client sends the
event, a worker sends the reminder, and her purchase cancels the remaining messages. Then one
journey runs from its launch to its end, while the sandbox's customers open, click and reply STOP,
and its providers send webhooks.

The clock starts on a Monday morning and jumps to the next due time when no work is left. So the
result is always the same, except the two durations in real time (of the reminder and of the demo).
"""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, get_args

from sqlalchemy import func, select

from channels.providers.webhook import FeedbackKind
from config.channels import by_channel, channel_of
from config.clock.times import HOUR, MINUTE, Instant, format_instant, parse_instant
from config.database.engine import Tx
from config.errors import SegueError
from config.policy import CHANNELS
from config.settings import load_settings
from flows.app import Segue, open_segue
from flows.cli.output import print_json, say
from flows.http.serving import serving
from flows.local.sandbox_api import SandboxAPI
from flows.local.stack import Stack, on_free_ports
from flows.local.storefront import cart_outcome, leave_cart_and_buy
from flows.local.up import only_one, stop_on_signals
from flows.orchestration.pages.labels import listed
from journeys.engine.turn import Turn
from journeys.operations.counts import Summary, summarise
from profiles.sample.shop import load_sample_shop
from profiles.tables import events

JOURNEY, AUDIENCE = "win-back", "lapsed"
BEGINS = parse_instant("2026-03-02T09:00:00Z")
# Customers take hours to open a mail; the clock stops for their reactions once an hour.
BEHAVIOUR = {
    "seed": 1,
    "stops": 0.05,
    "delivered_within": MINUTE,
    "answered_within": 6 * HOUR,
    "gathered": 0,
}
_ANSWERS_EVERY = HOUR
# More turns than this at the same due time are an error.
_TURNS = 10

_say = partial(say, error=True)


def demo() -> int:
    """Run the demo; returns the exit status. Its last line on standard output is the summary.

    Raises SegueError, with all processes stopped, if the counts of the database and of the sandbox
    differ, or if a process can't start or ends early.
    """
    started = time.monotonic()
    stop_on_signals()
    data_dir = load_settings().data_dir / "demo"
    try:
        with only_one(data_dir):
            _wipe(data_dir)
            summary = _run(data_dir)
    except KeyboardInterrupt:
        _say("Stopped.")
        return 130
    summary["seconds"] = round(time.monotonic() - started, 1)
    print_json(summary)
    return 0


def _wipe(data_dir: Path) -> None:
    """Remove earlier data, except the lock, which we hold."""
    for entry in data_dir.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def _run(data_dir: Path) -> dict[str, Any]:
    """Run the whole demo; returns the summary."""
    ours = {"data_dir": data_dir, "database_url": "", "providers": "sandbox", "now": BEGINS}
    settings = on_free_ports(load_settings().model_copy(update=ours))
    segue = open_segue(settings)
    with (
        closing(segue.db),
        closing(SandboxAPI(settings)) as sandbox,
        Stack(settings) as stack,
    ):
        _say(f"It is {_clock(BEGINS)}. Starting Prefect and the sandbox providers ...")
        stack.start_servers()
        shop = load_sample_shop(segue.db, BEGINS)
        _say(f"Loaded the sample shop: {shop['customers']:,} invented customers.")
        stack.wait_for_sandbox()
        sandbox.behave(BEHAVIOUR)
        milliseconds = _live(stack, segue, sandbox)
        stack.wait_for_servers()
        stack.start_runner(segue.catalog.current)
        _say(f"Launching {JOURNEY} for the segment {AUDIENCE}, through Prefect ...")
        run_id = _run_journey(stack, {"audience": AUDIENCE})
        asyncio.run(_live_through(segue, sandbox))
        _say("All enrollments have ended. A last run shows that in Prefect ...")
        _run_journey(stack, {})
        with segue.db.transaction(write=False) as tx:
            entered = summarise(tx, JOURNEY, run_id).entered
            everything = [summarise(tx, journey) for journey in segue.catalog.journeys()]
            summary = {
                "journey": JOURNEY,
                "entered": entered,
                **_messages(everything),
                "answers": _answers(tx),
                "event_to_message_ms": round(milliseconds, 1),
                "live": cart_outcome(tx),
            }
        _say(f"Reactions of customers: {listed(Counter(summary['answers']))}.")
        _compare(summary["sent"], sandbox)
        _say("The sandbox accepted exactly the messages that were sent. Stopping ...")
    return summary


def _live(stack: Stack, segue: Segue, sandbox: SandboxAPI) -> float:
    """Send one event in real time, and wait for its message from a worker process.

    Returns the milliseconds between the two.
    """
    _say("A worker starts. Ada leaves a cart, and the shop's page sends cart_abandoned ...")
    stack.start_worker()
    milliseconds = leave_cart_and_buy(stack, segue.db, sandbox)
    stack.stop_worker()
    _say(f"  Her reminder was sent {milliseconds:.0f} ms later. She buys; the rest is cancelled.")
    return milliseconds


def _run_journey(stack: Stack, parameters: dict[str, Any]) -> str:
    """Start the journey in Prefect and wait for its end; returns the run's id."""
    run_id = stack.prefect.start(JOURNEY, parameters)
    stack.wait_until(lambda: stack.prefect.ended(run_id) is not None, f"the run of {JOURNEY}")
    state = stack.prefect.ended(run_id)
    assert state is not None
    if state["type"] != "COMPLETED":
        raise SegueError(f"the run of {JOURNEY} ended as {state['name']}: {state['message']}")
    _say(f"  {state['message']}")
    return run_id


async def _live_through(segue: Segue, sandbox: SandboxAPI) -> None:
    """Set the clock to the next due time until nothing is due.

    An enrollment, a message or a reaction of the sandbox's customers can be due. The sandbox's
    clock moves with ours, and its webhooks arrive before other work is done.
    """
    now, turns = BEGINS, 0
    async with serving(segue, lambda _: None), segue.dispatcher() as dispatcher:
        turn = Turn(segue.engine, dispatcher)
        while (due := await asyncio.to_thread(_next_due, segue, sandbox)) is not None:
            # Enrollments whose message was just sent are due again at once.
            turns = 0 if due > now else turns + 1
            if turns > _TURNS:
                raise SegueError(
                    f"an enrollment has been due since {_clock(due)} and does not move"
                )
            segue.db.now = now = max(now, due)
            await asyncio.to_thread(sandbox.move_clock, now)
            if sent := await turn.until_idle():
                counts = [
                    f"{number:,} {channel_of(channel).short} {what}"
                    for (_, channel, what), number in sorted(sent.items())
                ]
                _say(f"  {_clock(now)}: {', '.join(counts)}")


def _next_due(segue: Segue, sandbox: SandboxAPI) -> Instant | None:
    """The next time at which something is due."""
    moments = [segue.engine.next_due()]
    answer = sandbox.next_answer()
    if answer is not None:
        moments.append(-(-answer // _ANSWERS_EVERY) * _ANSWERS_EVERY)
    return min((moment for moment in moments if moment is not None), default=None)


def _messages(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Sent and refused messages of all journeys."""
    not_sent = sum((summary.not_sent for summary in summaries), Counter[str]())
    return {
        "sent": by_channel(sum((summary.sent for summary in summaries), Counter[str]())),
        "not_sent": dict(sorted(not_sent.items())),
    }


def _answers(tx: Tx) -> dict[str, int]:
    """The reactions of customers and mail servers, as the providers reported them."""
    names = [f"{channel}_{kind}" for channel in CHANNELS for kind in get_args(FeedbackKind)]
    number = func.count().label("number")
    summary = select(events.c.name, number).where(events.c.name.in_(names)).group_by(events.c.name)
    return {row.name: row.number for row in tx.conn.execute(summary.order_by(events.c.name))}


def _compare(sent: dict[str, int], sandbox: SandboxAPI) -> None:
    """Raise SegueError unless the sandbox accepted exactly the sent messages, each once, and
    delivered all its webhooks.
    """
    stats, summary = sandbox.stats(), sandbox.callbacks()
    if stats["accepted"] != sent or stats["duplicates"] or stats["without_id"]:
        raise SegueError(f"the database has sent {sent}, but the sandbox has accepted {stats}")
    if summary["waiting"] or summary["given_up"] or summary["dropped"]:
        raise SegueError(f"the sandbox could not deliver its webhooks: {summary}")


def _clock(instant: Instant) -> str:
    return format_instant(instant).replace("T", " ")[:16] + " UTC"
