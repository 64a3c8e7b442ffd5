"""Giving way: which planned messages of less priority lose their place to a new one."""

from collections.abc import Sequence

from channels.caps import Count, Counted, counts, period_of
from channels.decide import Planner
from channels.facts import Past
from channels.recipient import Recipient
from config.policy import Cap


def giving_way(
    planner: Planner,
    recipient: Recipient,
    planned: Sequence[Counted],
    firm: Sequence[Counted],
    lower: Sequence[Past],
) -> list[Past]:
    """The fewest that must give way: lowest priority first, then the latest.

    Parameters
    ----------
    planned: the new messages, which fit beside `firm` when none of `lower` is counted.
    """
    order = sorted(lower, key=lambda past: (past.priority, -past.counted.send_at))
    victims: list[Past] = []
    for message in planned:
        if message.kind != "marketing":
            continue
        for cap in planner.caps(message.channel, message.topic, recipient):
            for past in order:
                others = [*firm, *(new for new in planned if new is not message)]
                others += [kept.counted for kept in order if kept not in victims]
                if _fits(planner, recipient, cap, message, others):
                    break
                if past not in victims and _near(planner, recipient, cap, message, past.counted):
                    victims.append(past)
    return victims


def _fits(
    planner: Planner, recipient: Recipient, cap: Cap, message: Counted, others: Sequence[Counted]
) -> bool:
    fixed = sorted(other.send_at for other in others if counts(cap, other))
    count = Count(cap, fixed, recipient.zones.names, planner.policy.first_weekday)
    return count.blocked_until(message.send_at, 0, ()) is None


def _near(
    planner: Planner, recipient: Recipient, cap: Cap, message: Counted, other: Counted
) -> bool:
    """Whether taking the other away can make room for the message under this cap."""
    if not counts(cap, other):
        return False
    if cap.within is not None:
        return abs(other.send_at - message.send_at) < cap.within
    assert cap.per is not None
    first_weekday = planner.policy.first_weekday
    for name in recipient.zones.names:
        start, end, _ = period_of(message.send_at, cap.per, name, first_weekday)
        if start <= other.send_at < end:
            return True
    return False
