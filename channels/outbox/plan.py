"""Planning: decide the messages of one step for many profiles and write them to the outbox.

Each wanted message gets one row with its decision, also if it is refused. Runs in the caller's
transaction, which holds the profiles.
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
from channels.rules.preemption import preempted
from channels.rules.recipient import Recipient
from config.clock.times import Instant
from config.database.arrays import rows_of
from config.database.engine import Tx


class PlannedSend(NamedTuple):
    """The group that one Send step wants to send: its members by name, and its origin."""

    journey: str
    version: str
    step: str
    priority: int
    mode: Mode
    members: tuple[tuple[str, Wanted], ...]
    # With a fallback, members that are not chosen get no row: the fallback plans them later.
    may_fall_back: bool = False


class Planned(NamedTuple):
    """The result of planning: decisions by enrollment in the order of the send's members, and
    recipients by profile.
    """

    decisions: dict[int, list[Decision]]
    recipients: dict[int, Recipient]


class Addressee(NamedTuple):
    """A profile to send to, and the enrollment that wants it."""

    profile_id: int
    enrollment_id: int


def plan(
    tx: Tx,
    planner: Planner,
    send: PlannedSend,
    people: Sequence[Addressee],
    *,
    settled: Callable[[Tx, Sequence[int]], None] = lambda *_: None,
) -> Planned:
    """Decide the send for each profile and write the outbox. The caller holds the profiles.

    Parameters
    ----------
    settled: is told the enrollments of messages that gave way and do not go any more.
    """
    profile_ids = {person.profile_id for person in people}
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
        # Planned marketing messages of lower priority can be preempted.
        lower = [
            past
            for past in history
            if past.planned and past.priority < send.priority and past.counted.kind == "marketing"
        ]
        firm = [past.counted for past in history if past not in lower]
        decisions = planner.decide(recipient, send.mode, wanted, firm, tx.now)
        decided[enrollment_id] = decisions
        planned = [
            Counted(
                send_at=decision.send_at,
                channel=member.channel,
                kind=member.kind,
                topic=member.topic,
            )
            for member, decision in zip(wanted, decisions, strict=True)
            if decision.send_at is not None
        ]
        victims = preempted(planner, recipient, planned, firm, lower) if lower else []
        displaced += victims
        note = {"took_place_of": [past.name for past in victims]} if victims else {}
        for (name, member), decision in zip(send.members, decisions, strict=True):
            if send.may_fall_back and decision.reason == "not_chosen":
                continue
            took = {} if decision.reason else note
            outcome = _outcome(decision, recipient, tx.now + member.offset, took)
            rows.append(_row(tx, send, Addressee(profile_id, enrollment_id), name, member, outcome))
        # A profile may occur twice in `people`, once for each of its enrollments.
        history[:] = [past for past in history if past not in victims]
        history += [
            _as_past(counted, send.priority, enrollment_id, send.step) for counted in planned
        ]
    transitions.plan(tx, rows)
    if displaced:
        # A preempted message is decided again with all members of its group.
        groups = {(past.enrollment_id, past.step) for past in displaced}
        refused = decide_again(
            tx, planner, groups, {"gave_way_to": f"{send.journey} / {send.step}"}
        )
        settled(tx, [one.message.enrollment_id for one in refused])
    return Planned(decided, recipients)


def refuse(
    tx: Tx, planner: Planner, send: PlannedSend, people: Sequence[Addressee], reason: Reason
) -> None:
    """Record all messages of the send as refused for these profiles, with the reason."""
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
    """The columns of a message that a decision sets."""
    return {
        "state": "skipped" if decision.reason else "planned",
        "reason": decision.reason,
        "send_at": wanted_at if decision.send_at is None else decision.send_at,
        "decision": {**decision.described(recipient), **note},
    }


_UNDECIDED = (
    select(*MESSAGE_COLUMNS, messages.c.decision)
    .where(
        tuple_(messages.c.enrollment_id, messages.c.step).in_(
            select(rows_of("groups", messages.c.enrollment_id, messages.c.step))
        ),
        is_undecided,
    )
    .order_by(messages.c.id)
    .with_for_update(of=messages)
)


def decide_again(
    tx: Tx,
    planner: Planner,
    groups: Collection[tuple[int, str]],
    note: Mapping[str, Any],
    at_hand_over: Mapping[int, Reason] = MappingProxyType({}),
) -> list[RefusedMessage]:
    """Decide the planned messages of these groups again: reschedule or refuse them.

    Returns the refused messages as they were before, each with the reason.

    Parameters
    ----------
    groups: enrollment id and step of each; the caller holds the locks of their profiles.
    note: the cause; added to the decision, which keeps the causes of earlier decisions.
    at_hand_over: refusals, by message id, for reasons that are known only at the hand-over.
    """
    rows: list[MessageRow] = []
    before: dict[int, Mapping[str, Any]] = {}
    for *columns, its_decision in tx.conn.execute(_UNDECIDED, {"groups": sorted(groups)}):
        rows.append(MessageRow._make(columns))
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
    # Groups of higher priority are decided first; messages that are not decided again count as
    # history.
    undecided = {row.id for row in rows}
    for group in sorted(by_group.values(), key=lambda group: (-group[0].priority, group[0].id)):
        recipient = recipients[group[0].profile_id]
        history = histories[group[0].profile_id]
        counted = [past.counted for past in history if past.id not in undecided]
        decisions = _decide_group(planner, recipient, group, counted, tx.now, at_hand_over)
        for row, decision in zip(group, decisions, strict=True):
            if decision.reason == "not_chosen":
                continue  # the row does not change
            notes = {name: before[row.id][name] for name in _KEPT_NOTES if name in before[row.id]}
            outcome = _outcome(decision, recipient, row.send_at, {**notes, **note})
            changes.append({"message": row.id, **outcome})
            if decision.reason is not None:
                refused.append(RefusedMessage(row, decision.reason))
            elif decision.send_at is not None:
                message = Counted(
                    send_at=decision.send_at, channel=row.channel, kind=row.kind, topic=row.topic
                )
                history.append(_as_past(message, row.priority, row.enrollment_id, row.step))
    transitions.replan(tx, changes)
    return refused


# The keys of a decision that stay when it is made again.
_KEPT_NOTES = ("took_place_of", "gave_way_to", "looked_at_again")


def _decide_group(
    planner: Planner,
    recipient: Recipient,
    group: Sequence[MessageRow],
    history: Sequence[Counted],
    now: Instant,
    at_hand_over: Mapping[int, Reason],
) -> list[Decision]:
    """Decide one group again. No message is planned earlier than before."""
    if group[0].mode != "first":
        mode: Mode = "all" if group[0].mode == "all" else "any"
        return _decide_members(planner, recipient, mode, group, history, now, at_hand_over)
    decisions: list[Decision] = []
    for row in group:
        if any(decision.reason is None for decision in decisions):
            decisions.append(Decision(None, "not_chosen"))
        else:
            decisions += _decide_members(
                planner, recipient, "any", [row], history, now, at_hand_over
            )
    return decisions


def _decide_members(
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
    """A message that was just decided; its row has no id yet."""
    return Past(
        id=0,
        counted=message,
        priority=priority,
        planned=True,
        enrollment_id=enrollment_id,
        step=step,
        name="",
    )
