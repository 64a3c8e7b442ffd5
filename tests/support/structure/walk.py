"""Trace one event from HTTP to the provider: which files and functions of the project it enters."""

import asyncio
import http.client
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import orjson

from flows.local.stack import free_ports
from flows.worker.worker import Worker
from journeys.dsl import Email, Journey, OnEvent, Send, Wait
from tests.support.failures import until
from tests.support.http.receiving import WRITE_KEY
from tests.support.patience import PATIENCE
from tests.support.shop import House

_ROOT = f"{Path(__file__).parents[3]}/"
_LAYERS = ("config/", "profiles/", "channels/", "journeys/", "flows/")
# What the server calls ten times a second, on a slow machine also during the walk.
_OF_TIMER = {"Server.on_tick", "Connections.tick", "Connection.check"}


class Walk:
    """Functions by file, both in the order in which they were first entered."""

    def __init__(self) -> None:
        self._entered: dict[CodeType, None] = {}
        self._on = False

    def follow(self, frame: FrameType, event: str, _: Any) -> None:
        """A profile function for sys.setprofile."""
        if self._on and event == "call":
            self._entered.setdefault(frame.f_code)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Only what is entered meanwhile counts."""
        self._entered.clear()
        self._on = True
        try:
            yield
        finally:
            self._on = False

    async def quiet(self) -> None:
        """Wait until the worker sleeps; the server's timer still runs."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with self.on():
                    await asyncio.sleep(0.3)
                if "journeys/engine/turn.py" not in self.files:
                    return

    @property
    def files(self) -> Mapping[str, list[str]]:
        """Comprehensions and lambdas count with the function that has them."""
        found: dict[str, list[str]] = {}
        for code in self._entered:
            file = code.co_filename.removeprefix(_ROOT)
            named = not code.co_name.startswith("<") and code.co_qualname not in _OF_TIMER
            if file.startswith(_LAYERS) and named:
                functions = found.setdefault(file, [])
                if code.co_qualname not in functions:
                    functions.append(code.co_qualname)
        return found

    def __str__(self) -> str:
        """A line for each file, and the totals."""
        functions = sum(map(len, self.files.values()))
        lines = [f"{len(names):4}  {file}" for file, names in self.files.items()]
        return "\n".join([*lines, f"{len(self.files)} files, {functions} functions"])


def walk(house: House) -> Walk:
    """A shop posts an event to a worker; a person enters, and her e-mail is planned and posted.

    The first event of a process is not followed, for it also fills what is built once.
    """
    [port] = free_ports(1)
    steps = [Send("hello", Email("hello")), Wait("1d")]
    came = Journey("j", entry=OnEvent("came"), topic="news", steps=steps)
    house.open(came, receiver_port=port)
    # Neither housekeeping nor a look for what other processes plan is part of the walk.
    house.shorten(housekeeping=3600, idle=3600)
    found = Walk()

    async def comes(name: str, number: int) -> None:
        await asyncio.to_thread(post, port, {"userId": name, "event": "came"})
        await until(lambda: [one.step for one in house.people()] == ["wait 1d"] * number)

    async def scenario() -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(house.segue).run(stop))
        await until(lambda: listens(port))
        await comes("ann", 1)
        await found.quiet()
        with found.on():
            await comes("bob", 2)
        stop.set()
        await working

    house.customer("ann")
    house.customer("bob")
    threading.setprofile(found.follow)
    sys.setprofile(found.follow)
    try:
        with house.providers.listening():
            asyncio.run(scenario())
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert [one.channel for one in house.providers.accepted] == ["email", "email"]
    return found


def listens(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        connection.close()
    except OSError:
        return False
    return True


def post(port: int, event: Mapping[str, Any]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    key = b64encode(f"{WRITE_KEY}:".encode()).decode()
    headers = {"Authorization": f"Basic {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/track", orjson.dumps(event), headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()
