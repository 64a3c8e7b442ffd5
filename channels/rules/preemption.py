"""Preemption: new messages take the places of planned ones of lower priority under full caps."""

from collections.abc import Sequence

from channels.rules.caps import Count, Counted, counts
from channels.rules.loaders import Past
from channels.rules.planner import Planner
from channels.rules.recipient import Situation


def preempted(
    planner: Planner,
    situation: Situation,
    firm: Sequence[Counted],
    planned: Sequence[Counted],
    lower: Sequence[Past],
) -> list[Past]:
    """The members of `lower` whose places the new messages need.

    The lowest priority is preempted first, then the latest send time. A message whose place is not
    needed is kept.

    Parameters
    ----------
    firm: messages that can't be preempted.
    planned: the new messages; they fit the caps beside `firm` alone.
    """
    kept = sorted(lower, key=lambda past: (past.priority, -past.counted.send_at))
    victims: list[Past] = []
    while kept and not _fit(planner, situation, planned, firm, kept):
        victims.append(kept.pop(0))
    # Keep those whose removal does not help, the highest priority first.
    for past in reversed(victims):
        if _fit(planner, situation, planned, firm, [*kept, past]):
            kept.append(past)
    return [past for past in victims if past not in kept]


def _fit(
    planner: Planner,
    situation: Situation,
    planned: Sequence[Counted],
    firm: Sequence[Counted],
    kept: Sequence[Past],
) -> bool:
    """Whether each new message is within its caps, given `firm`, `kept` and the other new ones."""
    for number, message in enumerate(planned):
        if message.kind != "marketing":
            continue
        others = [*firm, *planned[:number], *planned[number + 1 :]]
        others += [past.counted for past in kept]
        for cap in planner.caps(message.channel, message.topic, situation):
            fixed = sorted(other.send_at for other in others if counts(cap, other))
            count = Count(
                cap=cap,
                fixed=fixed,
                zones=situation.zones.names,
                first_weekday=planner.policy.first_weekday,
            )
            if count.blocked_until(message.send_at, 0, ()) is not None:
                return False
    return True
