"""Rows of a shop whose journey ran for some weeks, made at random, for tests of its report."""

from random import Random
from typing import Any

from sqlalchemy import insert

from channels.messages import messages
from config.clock.times import DAY, HOUR, MINUTE, Instant, format_instant
from config.database.engine import Tx
from journeys.dsl import (
    SMS,
    Email,
    Experiment,
    Goal,
    Journey,
    OnEvent,
    Push,
    Segment,
    Send,
    Wait,
    arm,
    attribute,
    days,
    did,
)
from journeys.enrollments import enrollments
from journeys.tables import launches, passages
from profiles.bucketing import bucket_of
from profiles.tables import consent_records, events, profiles
from tests.support.shop import MONDAY, described

PEOPLE = 60
SEGMENTS = {
    name: Segment(name, "By their number", attribute("number") >= least)
    for name, least in (("later half", PEOPLE / 2), ("last", PEOPLE - 1))
}
MAILBOXES = ("gmail.com", "googlemail.com", "yahoo.co.uk", "aol.com", "example.org")
_STATES = ("sent", "delivered", "unknown", "failed", "skipped", "cancelled", "planned")
_REASONS = {
    "unknown": "closed as unknown: no report",
    "failed": "sendgrid bounce: 550",
    "skipped": "capped",
    "cancelled": "exited: exit rule",
}


def trial(name: str = "trial") -> Journey:
    """A journey with an experiment, entered by an event and by launches."""
    return described(
        Send("hello", Email("hello"), SMS("hello")),
        Experiment(
            "subject",
            arm("short", 1, [Send("short mail", Email("offer"))]),
            arm("long", 1, [Send("long mail", Email("offer"), Push("offer"))]),
            holdout=10,
        ),
        Wait("1h", "rest"),
        name=name,
        entry=OnEvent("came", again="always"),
        goal=Goal(did=did("order_completed"), within=days(3)),
    )


class Rows:
    """Writes the rows of journeys in a transaction."""

    def __init__(self, tx: Tx, seed: int) -> None:
        self.tx = tx
        self.random = Random(seed)
        self._keys = 0

    def write(self, *journeys: str) -> None:
        """Write customers, and what they went through in these journeys."""
        for number in range(PEOPLE):
            self._insert(
                profiles,
                id=number + 1,
                attributes={"number": number},
                **{"created_at": MONDAY, "updated_at": MONDAY, "bucket": bucket_of(number + 1)},
            )
        for journey in journeys:
            for number in (1, 2):
                self._insert(
                    launches,
                    **{"id": f"{journey} {number}", "journey": journey, "version": "v"},
                    audience="everyone",
                    started_at=MONDAY + number * DAY,
                )
            for person in range(1, PEOPLE + 1):
                for entry in range(self.random.choice((0, 1, 1, 2))):
                    self._enrollment(journey, person, entry)
        for person in range(1, PEOPLE + 1):
            self._orders(person)
            self._noes(person)

    def _insert(self, table: Any, **row: Any) -> int:
        key = self.tx.conn.execute(insert(table), row).inserted_primary_key
        assert key is not None
        return int(key[0]) if isinstance(key[0], int) else 0

    def _between(self, first: Instant, last: Instant) -> Instant:
        return self.random.randrange(first, max(last, first + 1))

    def _enrollment(self, journey: str, person: int, entry: int) -> None:
        choice = self.random.choice
        entered = self._between(MONDAY, MONDAY + 30 * DAY)
        # Of the last ones some are not over.
        over = entry == 0 or choice((True, False))
        ended = entered + 2 * DAY if over else None
        reason = choice(("completed", "exited: exit rule", "merged")) if over else None
        taken = choice(("short", "long", "holdout"))
        way = [("hello", "next"), ("subject", taken)]
        if taken != "holdout":
            way.append((f"{taken} mail", "next"))
        at = "rest" if reason in ("completed", None) else choice(("subject", "rest"))
        passed = way if at == "rest" else way[:1]
        if reason == "completed":
            passed = [*passed, ("rest", "next")]
        number = self._insert(
            enrollments,
            **{
                "profile_id": person,
                "journey": journey,
                "version": "v",
                "bucket": bucket_of(person),
            },
            **{"entry_key": "", "context": {}, "step": at, "arrived_at": entered},
            launch_id=choice((None, f"{journey} {entry + 1}")),
            **{"entered_at": entered, "since": entered, "due_at": None if over else entered + DAY},
            **{"ended_at": ended, "end_reason": reason},
            converted_at=choice((None, None, self._between(entered, entered + 3 * DAY))),
        )
        for place, (step, outcome) in enumerate(passed):
            self._insert(
                passages,
                **{"profile_id": person, "enrollment_id": number, "journey": journey},
                **{"step": step, "outcome": outcome, "version": "v", "bucket": bucket_of(person)},
                at=entered + place * HOUR,
            )
        sends = {
            "hello": ("email", "sms"),
            "short mail": ("email",),
            "long mail": ("email", "push"),
        }
        for step, channels in sends.items():
            for channel in channels if step in dict(passed) else ():
                self._message(journey, person, number, step, channel, entered)

    def _message(
        self, journey: str, person: int, enrollment: int, step: str, channel: str, entered: Instant
    ) -> None:
        choice = self.random.choice
        state = choice(_STATES)
        wanted = self._between(entered, entered + DAY)
        late = choice((0, 0, 30, 90 * MINUTE, 10 * HOUR))
        accepted = state in ("sent", "delivered") or (state == "failed" and choice((True, False)))
        tried = accepted or state in ("unknown", "failed")
        number = self._insert(
            messages,
            **{"profile_id": person, "enrollment_id": enrollment, "journey": journey},
            **{"version": "v", "step": step, "member": f"{channel}:x", "channel": channel},
            **{"kind": "marketing", "topic": "news", "priority": 50, "mode": "any", "after": 0},
            **{"on_cap": "skip", "wanted_at": wanted, "latest_anchor": wanted + DAY},
            **{"send_at": wanted + late, "state": state, "reason": _REASONS.get(state)},
            decision={"send_at": format_instant(wanted + late)},
            attempts=int(tried),
            provider_id="p" if accepted else None,
            address=f"c{person}@{choice(MAILBOXES)}" if tried and channel == "email" else None,
            bucket=bucket_of(person),
        )
        if not tried:
            return
        kinds = ["opened", "machine_opened", "clicked", "complained", "delivered"]
        said = self.random.sample(kinds, k=self.random.randrange(4))
        if state == "failed" and accepted:
            said.append(choice(("bounced", "failed")))
        for kind in said:
            for _ in range(choice((1, 1, 2))):
                url = {"url": f"https://shop.example/{choice('ab')}?for={person}"}
                more = url if kind == "clicked" else {}
                at = self._between(wanted + late, wanted + late + DAY)
                names = {"message_id": str(number), "journey": journey, "step": step}
                self._event(person, f"{channel}_{kind}", at, {**names, **more})

    def _orders(self, person: int) -> None:
        for _ in range(self.random.randrange(5)):
            amount = self.random.choice((10.1, 0.2, 25, -3, "12", None))
            at = self._between(MONDAY, MONDAY + 35 * DAY)
            self._event(person, "order_completed", at, {"total_gbp": amount})

    def _noes(self, person: int) -> None:
        for _ in range(self.random.randrange(3)):
            at = self._between(MONDAY, MONDAY + 35 * DAY)
            choice = self.random.choice
            self._insert(
                consent_records,
                **{"profile_id": person, "channel": choice(("email", "sms")), "occurred_at": at},
                topic=choice(("*", "news", "others")),
                granted=choice((True, False, False)),
                recorded_at=at,
                source=choice(("import c.csv", "one-click", "preferences")),
                bucket=bucket_of(person),
            )

    def _event(self, person: int, name: str, at: Instant, properties: dict[str, Any]) -> None:
        self._keys += 1
        self._insert(
            events,
            **{"profile_id": person, "name": name, "occurred_at": at, "received_at": at},
            **{"properties": properties, "dedupe_key": f"k{self._keys}", "worked_at": at},
            bucket=bucket_of(person),
        )
