"""What would become of each message of the journeys if its step sent it to one profile now."""

from typing import Literal, NamedTuple

from channels.explain import refusal_words
from channels.outbox.plan import gives_way
from channels.rules.loaders import load_history, load_recipients
from channels.rules.planner import Decision, Planner, Wanted
from config.channels import ChannelName
from config.clock.times import Instant
from config.clock.zones import format_local
from config.database.engine import Tx
from config.policy import Policy
from config.settings import Settings
from journeys.definition.catalog import Catalog
from journeys.engine.send import planned_send
from journeys.explain.preview import preview
from journeys.operations.control import HELD_MEANS, held

Goes = Literal["now", "later", "not"]


class WouldGo(NamedTuple):
    """One message. why: a sentence; empty if it would go now."""

    journey: str
    step: str
    member: str
    channel: ChannelName
    goes: Goes
    why: str


def would_go(
    tx: Tx, catalog: Catalog, policy: Policy, settings: Settings, profile_id: int, zone: str
) -> list[WouldGo]:
    """All messages of the current journeys, by the rules of the moment. Sends and stores nothing.

    Neither the entry rules nor the conditions before a step are looked at. zone: that of the times
    in the texts, an IANA name.
    """
    planner = Planner(policy)
    recipient = load_recipients(tx, policy, [profile_id])[profile_id]
    steps = [
        (version, step, planned_send(policy, version, step))
        for _, version in sorted(catalog.current.items())
        for step in version.journey.sends()
    ]
    delays = [one.max_delay + one.offset for *_, send in steps for _, one in send.members]
    latest = tx.now + max(delays, default=0)
    history = load_history(tx, policy, {profile_id: recipient}, latest).get(profile_id, [])
    states = held(tx)
    found: list[WouldGo] = []
    for version, step, send in steps:
        name = version.journey.name
        firm = [past.counted for past in history if not gives_way(past, send)]
        wanted = [one for _, one in send.members]
        decisions = planner.decide(recipient.situation, send.mode, wanted, firm, tx.now)
        for message, one, decision in zip(step.messages, wanted, decisions, strict=True):
            goes, why = _answer(decision, one, tx.now, zone)
            if goes != "not":
                shown = preview(tx, policy, settings, version, step, message, profile_id)
                if shown.refusal and not shown.lacks_event:
                    goes, why = "not", shown.refusal
            if name in states:
                goes, why = "not", f"The journey is {states[name]}: {HELD_MEANS[states[name]]}."
            found.append(
                WouldGo(
                    journey=name,
                    step=step.name,
                    member=message.member,
                    channel=message.channel,
                    goes=goes,
                    why=why,
                )
            )
    return found


def _answer(decision: Decision, wanted: Wanted, now: Instant, zone: str) -> tuple[Goes, str]:
    """Whether a message goes by the planner's decision, and why not."""
    if decision.reason:
        words = refusal_words(decision.reason, wanted.channel, wanted.topic)
        rule = f" Rule: {decision.rule}." if decision.rule else ""
        return "not", f"{words or decision.reason}{rule}"
    assert decision.send_at is not None
    if decision.send_at <= now + wanted.offset:
        return "now", ""
    return "later", f"It waits for {format_local(decision.send_at, zone)}."
