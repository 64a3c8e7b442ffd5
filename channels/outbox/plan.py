"""Planning: the messages of one step for many people, decided and written to the outbox.

One row for each message wanted, refusals included, with its decision in it. Runs inside the
caller's transaction, with the profiles concerned locked.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import select, tuple_

from channels.messages import messages, transitions
from channels.messages.transitions import Decided, NewMessage, Redecided, is_undecided
from channels.outbox.rows import MESSAGE_COLUMNS, MessageRow, RefusedMessage
from channels.rules.caps import Counted
from channels.rules.loaders import Past, load_history, load_recipients
from channels.rules.planner import Decision, Mode, Planner, Reason, Wanted
from channels.rules.preemption import giving_way
from channels.rules.recipient import Recipient
from config.clock.times import Instant
from config.database.engine import Tx
from profiles.bulk import lock_profiles


class PlannedSend(NamedTuple):
    """What one step wants sent: the group's members by name, and where it comes from."""

    journey: str
    version: str
    step: str
    priority: int
    mode: Mode
    members: tuple[tuple[str, Wanted], ...]
    # Later members of a fallback are not wanted yet: those not chosen get no row.
    may_fall_back: bool = False


class Addressee(NamedTuple):
    """Somebody for whom a send is wanted."""

    profile_id: int
    enrollment_id: int


def plan(
    tx: Tx,
    planner: Planner,
    send: PlannedSend,
    people: Sequence[Addressee],
    *,
    settled: Callable[[Tx, Sequence[int]], None] = lambda *_: None,
) -> dict[int, list[Decision]]:
    """Decide the send for everybody and write the outbox.

    Parameters
    ----------
    settled: is told the enrollments of messages that gave way and do not go any more.

    Returns
    -------
    The decisions by enrollment id, in the order of the send's members.
    """
    profile_ids = {person.profile_id for person in people}
    lock_profiles(tx, profile_ids)
    recipients = load_recipients(tx, planner.policy, profile_ids)
    wanted = [member for _, member in send.members]
    latest = tx.now + max(member.max_delay + member.offset for member in wanted)
    histories = load_history(tx, planner.policy, recipients, latest)
    decided: dict[int, list[Decision]] = {}
    rows: list[NewMessage] = []
    displaced: list[Past] = []
    for profile_id, enrollment_id in people:
        recipient = recipients[profile_id]
        history = histories[profile_id]
        # Marketing that is only planned, with less priority, gives way where its place is needed.
        lower = [
            past
            for past in history
            if past.planned and past.priority < send.priority and past.counted.kind == "marketing"
        ]
        firm = [past.counted for past in history if past not in lower]
        decisions = planner.decide(recipient, send.mode, wanted, firm, tx.now)
        decided[enrollment_id] = decisions
        planned = [
            Counted(decision.send_at, member.channel, member.kind, member.topic)
            for member, decision in zip(wanted, decisions, strict=True)
            if decision.send_at is not None
        ]
        victims = giving_way(planner, recipient, planned, firm, lower) if lower else []
        displaced += victims
        note = {"took_place_of": [past.name for past in victims]} if victims else {}
        for (name, member), decision in zip(send.members, decisions, strict=True):
            if send.may_fall_back and decision.reason == "not_chosen":
                continue
            took = {} if decision.reason else note
            outcome = _outcome(decision, recipient, tx.now + member.offset, took)
            rows.append(_row(tx, send, Addressee(profile_id, enrollment_id), name, member, outcome))
        # The same person may stand here twice, with two carts.
        history[:] = [past for past in history if past not in victims]
        history += [
            _as_past(counted, send.priority, enrollment_id, send.step) for counted in planned
        ]
    transitions.plan(tx, rows)
    if displaced:
        # Decided again, each with its whole group.
        groups = {(past.enrollment_id, past.step) for past in displaced}
        refused = decide_again(
            tx, planner, groups, {"gave_way_to": f"{send.journey} / {send.step}"}
        )
        settled(tx, [one.message.enrollment_id for one in refused])
    return decided


def refuse(
    tx: Tx, planner: Planner, send: PlannedSend, people: Sequence[Addressee], reason: Reason
) -> None:
    """Record that none of the send's messages goes to these people, and why."""
    recipients = load_recipients(tx, planner.policy, {person.profile_id for person in people})
    decision = Decision(None, reason)
    rows: list[NewMessage] = []
    for person in people:
        for name, member in send.members:
            outcome = _outcome(decision, recipients[person.profile_id], tx.now, {})
            rows.append(_row(tx, send, person, name, member, outcome))
    transitions.plan(tx, rows)


def _row(
    tx: Tx, send: PlannedSend, person: Addressee, name: str, member: Wanted, decided: Decided
) -> NewMessage:
    return {
        "profile_id": person.profile_id,
        "enrollment_id": person.enrollment_id,
        "journey": send.journey,
        "version": send.version,
        "step": send.step,
        "member": name,
        "channel": member.channel,
        "kind": member.kind,
        "topic": member.topic,
        "priority": send.priority,
        "mode": send.mode,
        "after": member.offset,
        "on_cap": member.on_cap,
        "wanted_at": tx.now,
        "latest_anchor": tx.now + member.max_delay,
        "attempts": 0,
        **decided,
    }


def _outcome(
    decision: Decision, recipient: Recipient, wanted_at: Instant, note: Mapping[str, Any]
) -> Decided:
    """The columns of a message row that a decision sets."""
    return {
        "state": "skipped" if decision.reason else "planned",
        "reason": decision.reason,
        "send_at": wanted_at if decision.send_at is None else decision.send_at,
        "decision": {**decision.described(recipient), **note},
    }


def decide_again(
    tx: Tx,
    planner: Planner,
    groups: Collection[tuple[int, str]],
    note: Mapping[str, Any],
    at_hand_over: Mapping[int, Reason] = MappingProxyType({}),
) -> list[RefusedMessage]:
    """Decide groups again, as far as they are still planned: messages are moved or refused.

    Returns those that were refused, as they were, each with the reason.

    Parameters
    ----------
    groups: enrollment and step of each; their profiles are locked.
    note: what led to it; kept in the decision, beside what led to earlier ones.
    at_hand_over: messages, by id, that may not go for a reason that only the hand-over knows.
    """
    found = select(*MESSAGE_COLUMNS, messages.c.decision).where(
        tuple_(messages.c.enrollment_id, messages.c.step).in_(sorted(groups)), is_undecided
    )
    rows: list[MessageRow] = []
    before: dict[int, Mapping[str, Any]] = {}
    for *columns, its_decision in tx.conn.execute(found.order_by(messages.c.id).with_for_update()):
        rows.append(MessageRow(*columns))
        before[rows[-1].id] = its_decision
    profile_ids = {row.profile_id for row in rows}
    recipients = load_recipients(tx, planner.policy, profile_ids)
    latest = max((row.latest_anchor + row.after for row in rows), default=tx.now)
    histories = load_history(tx, planner.policy, recipients, max(latest, tx.now))
    by_group: dict[tuple[int, str], list[MessageRow]] = defaultdict(list)
    for row in rows:
        by_group[row.enrollment_id, row.step].append(row)
    changes: list[Redecided] = []
    refused: list[RefusedMessage] = []
    # The more important are decided first, against all that is not being decided again.
    undecided = {row.id for row in rows}
    for group in sorted(by_group.values(), key=lambda group: (-group[0].priority, group[0].id)):
        recipient = recipients[group[0].profile_id]
        history = histories[group[0].profile_id]
        counted = [past.counted for past in history if past.id not in undecided]
        decisions = _again(planner, recipient, group, counted, tx.now, at_hand_over)
        for row, decision in zip(group, decisions, strict=True):
            if decision.reason == "not_chosen":
                continue  # as it was
            notes = {name: before[row.id][name] for name in _NOTES if name in before[row.id]}
            outcome = _outcome(decision, recipient, row.send_at, {**notes, **note})
            changes.append({"message": row.id, **outcome})
            if decision.reason is not None:
                refused.append(RefusedMessage(row, decision.reason))
            elif decision.send_at is not None:
                message = Counted(decision.send_at, row.channel, row.kind, row.topic)
                history.append(_as_past(message, row.priority, row.enrollment_id, row.step))
    transitions.replan(tx, changes)
    return refused


# What a decision keeps when it is made again.
_NOTES = ("took_place_of", "gave_way_to", "looked_at_again")


def _again(
    planner: Planner,
    recipient: Recipient,
    group: Sequence[MessageRow],
    history: Sequence[Counted],
    now: Instant,
    at_hand_over: Mapping[int, Reason],
) -> list[Decision]:
    """One group from where it stands now: nothing goes earlier than it was planned."""
    if group[0].mode != "first":
        mode: Mode = "all" if group[0].mode == "all" else "any"
        return _from_here(planner, recipient, mode, group, history, now, at_hand_over)
    decisions: list[Decision] = []
    for row in group:
        if any(decision.reason is None for decision in decisions):
            decisions.append(Decision(None, "not_chosen"))
        else:
            decisions += _from_here(planner, recipient, "any", [row], history, now, at_hand_over)
    return decisions


def _from_here(
    planner: Planner,
    recipient: Recipient,
    mode: Mode,
    group: Sequence[MessageRow],
    history: Sequence[Counted],
    now: Instant,
    at_hand_over: Mapping[int, Reason],
) -> list[Decision]:
    first = min(row.after for row in group)
    start = max(now, min(row.send_at for row in group))
    wanted = [
        Wanted(
            channel=row.channel,
            kind=row.kind,
            topic=row.topic,
            offset=row.after - first,
            on_cap=row.on_cap,
            max_delay=max(0, row.latest_anchor + first - start),
            refused=at_hand_over.get(row.id),
        )
        for row in group
    ]
    return planner.decide(recipient, mode, wanted, history, start)


def _as_past(message: Counted, priority: int, enrollment_id: int, step: str) -> Past:
    """A message just decided, whose row has no id yet."""
    return Past(0, message, priority, planned=True, enrollment_id=enrollment_id, step=step, name="")
