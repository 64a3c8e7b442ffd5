"""Giving way: which planned messages of less priority lose their place to a new one."""

from collections.abc import Sequence

from channels.rules.caps import Count, Counted, counts
from channels.rules.loaders import Past
from channels.rules.planner import Planner
from channels.rules.recipient import Recipient


def giving_way(
    planner: Planner,
    recipient: Recipient,
    planned: Sequence[Counted],
    firm: Sequence[Counted],
    lower: Sequence[Past],
) -> list[Past]:
    """Those that must give way: lowest priority first, then the latest, and none in vain.

    Parameters
    ----------
    planned: the new messages, which fit beside `firm` when none of `lower` is counted.
    """
    kept = sorted(lower, key=lambda past: (past.priority, -past.counted.send_at))
    victims: list[Past] = []
    while kept and not _fit(planner, recipient, planned, firm, kept):
        victims.append(kept.pop(0))
    # Those that made room for nothing get their place back, the most important first.
    for past in reversed(victims):
        if _fit(planner, recipient, planned, firm, [*kept, past]):
            kept.append(past)
    return [past for past in victims if past not in kept]


def _fit(
    planner: Planner,
    recipient: Recipient,
    planned: Sequence[Counted],
    firm: Sequence[Counted],
    kept: Sequence[Past],
) -> bool:
    """Whether every new message is within its caps, beside all these and each other."""
    for number, message in enumerate(planned):
        if message.kind != "marketing":
            continue
        others = [*firm, *planned[:number], *planned[number + 1 :]]
        others += [past.counted for past in kept]
        for cap in planner.caps(message.channel, message.topic, recipient):
            fixed = sorted(other.send_at for other in others if counts(cap, other))
            count = Count(cap, fixed, recipient.zones.names, planner.policy.first_weekday)
            if count.blocked_until(message.send_at, 0, ()) is not None:
                return False
    return True
