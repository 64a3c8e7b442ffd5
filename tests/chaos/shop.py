"""The customers' events, posted to any worker that listens, until one responds 200.

Like Segment's clients, it posts an event again with the same id until it is accepted.
"""

import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx

from config.database.engine import Database
from profiles.identity.person import Person, normalise_email
from profiles.identity.phones import Phone
from profiles.identity.upsert import upsert_people
from tests.chaos.patience import patiently

_WRITE_KEY = ("write-key-for-the-sandbox-only", "")
_ZONES = ("UTC", "Asia/Tokyo", "America/Los_Angeles", "Pacific/Auckland")
# What happens how often, and the property that names what it is about.
_KINDS = {
    "ordered": (4, "order_id"),
    "cart_left": (4, "cart_id"),
    "asked": (3, "letter_id"),
    "looked": (2, None),
    "bought": (1, None),
    "push_opened": (1, None),
}
ENTRIES = {name: key for name, (_, key) in _KINDS.items() if key is not None}


class Event(NamedTuple):
    """One thing that a customer does, so many seconds after the start."""

    after: float
    user_id: str
    name: str
    message_id: str
    properties: dict[str, str]

    def call(self) -> dict[str, Any]:
        """The call as Segment's clients send it."""
        return {
            "type": "track",
            "userId": self.user_id,
            "event": self.name,
            "messageId": self.message_id,
            "properties": self.properties,
            "timestamp": datetime.now(UTC).isoformat(),
        }


def customers(db: Database, number: int) -> None:
    """People whom every channel reaches, in several zones, with one to three devices."""
    people = [
        Person(
            user_id=f"u{one}",
            email=normalise_email(f"u{one}@example.com"),
            phone=Phone(f"+447700{900_000 + one}", "GB"),
            push_tokens={f"token-{one}-{device}": "ios" for device in range(1 + one % 3)},
            timezone=_ZONES[one % len(_ZONES)],
            attributes={"tier": "gold" if one % 2 else "plain"},
            consent={("sms", "*"): True, ("email", "*"): True},
        )
        for one in range(number)
    ]
    with db.transaction() as tx:
        report = upsert_people(tx, people, "chaos")
    assert report.created == number


def day(seed: int, seconds: float, a_second: float, people: int) -> list[Event]:
    """Everything that happens in a run; some people do far more than others."""
    draw = random.Random(f"{seed}/shop")
    events: list[Event] = []
    for number in range(int(seconds * a_second)):
        [name] = draw.choices(list(_KINDS), [share for share, _ in _KINDS.values()])
        key = ENTRIES.get(name)
        message_id = f"{name}-{number}"
        events.append(
            Event(
                after=number / a_second,
                user_id=f"u{int(people * draw.random() ** 3)}",
                name=name,
                message_id=message_id,
                properties={} if key is None else {key: message_id},
            )
        )
    return events


class Shop:
    """Posts events in order of time, on several threads, and records the accepted ones."""

    def __init__(self, events: Sequence[Event], ports: Sequence[int]) -> None:
        self.accepted: dict[str, Event] = {}
        self.refused: list[str] = []
        self._waiting = list(reversed(events))
        self._ports = ports
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._tell, args=(n,)) for n in range(4)]

    def open(self) -> None:
        """Begin."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Wait until everything was taken."""

        def all_taken() -> bool:
            return not any(thread.is_alive() for thread in self._threads)

        if not patiently(all_taken, lambda: len(self.accepted)):
            self.refused.append("nobody took what was left of the events, for long")
        self._closed.set()

    def _next(self, number: int) -> list[Event]:
        with self._lock:
            some = [self._waiting.pop() for _ in range(min(number, len(self._waiting)))]
        if some:
            time.sleep(max(0.0, self._began + some[0].after - time.monotonic()))
        return some

    def _tell(self, thread: int) -> None:
        draw = random.Random(thread)
        with httpx.Client(auth=_WRITE_KEY, timeout=10, trust_env=False) as client:
            while some := self._next(draw.choice((1, 1, 5))):
                calls = [event.call() for event in some]
                while not self._told(client, draw.choice(self._ports), some, calls):
                    if self._closed.wait(0.1):
                        return

    def _told(
        self, client: httpx.Client, port: int, some: list[Event], calls: list[dict[str, Any]]
    ) -> bool:
        url = f"http://127.0.0.1:{port}/v1"
        try:
            if len(calls) == 1:
                answer = client.post(f"{url}/track", json=calls[0])
            else:
                answer = client.post(f"{url}/batch", json={"batch": calls})
        except httpx.HTTPError:
            return False
        if answer.status_code in (429, 500, 503):
            if answer.status_code == 500:
                self.refused.append(answer.text)
            return False
        if answer.status_code != 200:
            self.refused.append(answer.text)
        else:
            self.accepted |= {event.message_id: event for event in some}
        return True
