"""Plans messages for customers, without journeys."""

from itertools import count
from typing import Any

from sqlalchemy import Row

from channels.explain import ExplainedMessage, explanation
from channels.messages.transitions import Addressee
from channels.outbox.plan import PlannedSend, plan
from channels.rules.planner import Decision, Planner, Wanted
from config.channels import ChannelName
from config.clock.times import DAY, Instant, Seconds, format_instant, parse_instant
from config.database.engine import Database
from config.policy import Policy
from tests.support.shop import House

OFFICE = [{"days": "mon-fri", "from": "09:00", "to": "17:00"}]
ONE_A_DAY = [{"channels": ["email"], "limit": 1, "per": "day"}]


class Desk:
    """Plans messages, each call as a new step."""

    def __init__(self, db: Database, **policy: Any) -> None:
        self.house = House(db)
        self.planner = Planner(Policy.model_validate(policy))
        self._numbers = count(1)

    def wants(
        self,
        who: int | list[int],
        *wanted: Wanted,
        mode: Any = "any",
        priority: int = 50,
        journey: str = "j",
    ) -> list[list[Decision]]:
        """Plan messages now. Each profile gets an enrollment of its own."""
        number = next(self._numbers)
        members = tuple((f"m{place}", one) for place, one in enumerate(wanted))
        send = PlannedSend(
            journey=journey,
            version="v",
            step=f"step {number}",
            priority=priority,
            mode=mode,
            members=members,
        )
        people = [
            Addressee(profile, number * 1000 + place)
            for place, profile in enumerate([who] if isinstance(who, int) else who)
        ]
        with self.house.db.transaction() as tx:
            decided = plan(tx, self.planner, send, people).decided
        decisions = {person: list(alike.decisions) for alike in decided for person in alike.people}
        return [decisions[person] for person in people]

    def rows(self, profile: int | None = None) -> list[Row[Any]]:
        return self.house.rows(profile)

    def reported(self, profile: int | None = None) -> list[tuple[str, str | None, str]]:
        """State, reason and time of every row."""
        return [(row.state, row.reason, format_instant(row.send_at)) for row in self.rows(profile)]


def message(
    channel: ChannelName = "email",
    after: Seconds = 0,
    *,
    kind: Any = "marketing",
    on_cap: Any = "skip",
    max_delay: Seconds = 7 * DAY,
    topic: str = "news",
) -> Wanted:
    return Wanted(
        channel=channel, kind=kind, topic=topic, offset=after, on_cap=on_cap, max_delay=max_delay
    )


def at(text: str) -> Instant:
    return parse_instant(text)


def explained(row: Row[Any]) -> str:
    """The explanation of a row of `messages`."""
    return explanation(
        ExplainedMessage._make(getattr(row, name) for name in ExplainedMessage._fields)
    )
