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
from channels.messages.transitions import (
    Addressee,
    Decided,
    Member,
    NewMessages,
    Redecided,
    is_undecided,
)
from channels.outbox.rows import MESSAGE_COLUMNS, MessageRow, RefusedMessage
from channels.rules.caps import Counted
from channels.rules.loaders import Past, load_history, load_recipients
from channels.rules.planner import Decision, Mode, Planner, Reason, Wanted
from channels.rules.preemption import preempted
from channels.rules.recipient import Recipient, Situation
from config.clock.times import Instant
from config.database.arrays import rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import lock_rows


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


class DecidedAlike(NamedTuple):
    """Profiles with the same decisions, in the order of the send's members."""

    decisions: tuple[Decision, ...]
    people: Sequence[Addressee]


class Planned(NamedTuple):
    """The result of planning: the decisions, and the recipients by profile."""

    decided: list[DecidedAlike]
    recipients: dict[int, Recipient]


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
    now = tx.now
    profile_ids = {person.profile_id for person in people}
    recipients = load_recipients(tx, planner.policy, profile_ids)
    latest = now + max(member.max_delay + member.offset for _, member in send.members)
    histories = load_history(tx, planner.policy, recipients, latest)
    several_each = len(profile_ids) < len(people)
    cases: dict[_Case, _Decisions] = {}
    alike: list[_Decisions] = []
    displaced: list[Past] = []
    for person in people:
        profile_id, enrollment_id = person
        history = histories.get(profile_id, [])
        lower = [past for past in history if gives_way(past, send)]
        firm = tuple([past.counted for past in history if past not in lower])
        case = (recipients[profile_id].situation, firm)
        made = cases.get(case)
        if made is None:
            made = cases[case] = _decide(planner, send, case, now)
            alike.append(made)
        if lower and (victims := preempted(planner, *case, made.planned, lower)):
            displaced += victims
            note = {"took_place_of": [past.name for past in victims]}
            outcomes = _outcomes(send, case[0], made.decisions, now, note)
            made = made._replace(outcomes=outcomes, people=[])
            alike.append(made)
            history = [past for past in history if past not in victims]
        made.people.append(person)
        if several_each:
            histories[profile_id] = history + [
                _as_past(counted, send.priority, enrollment_id, send.step)
                for counted in made.planned
            ]
    # A case has nobody if the messages of all its profiles took the place of others.
    alike = [made for made in alike if made.people]
    members = _members(send, now)
    transitions.plan(tx, [_rows(members, made) for made in alike])
    if displaced:
        # A preempted message is decided again with all members of its group.
        groups = {(past.enrollment_id, past.step) for past in displaced}
        refused = decide_again(
            tx, planner, groups, {"gave_way_to": f"{send.journey} / {send.step}"}
        )
        settled(tx, [one.message.enrollment_id for one in refused])
    decided = [DecidedAlike(made.decisions, made.people) for made in alike]
    return Planned(decided, recipients)


def refuse(
    tx: Tx, planner: Planner, send: PlannedSend, people: Sequence[Addressee], reason: Reason
) -> None:
    """Record all messages of the send as refused for these profiles, with the reason."""
    recipients = load_recipients(tx, planner.policy, {person.profile_id for person in people})
    decision, members = Decision(None, reason), _members(send, tx.now)
    new: list[NewMessages] = []
    for person in people:
        outcome = _outcome(decision, recipients[person.profile_id].situation, tx.now, {})
        new.append(NewMessages([person], [(member, outcome) for member in members]))
    transitions.plan(tx, new)


def _members(send: PlannedSend, now: Instant) -> list[Member]:
    return [
        Member(
            journey=send.journey,
            version=send.version,
            step=send.step,
            member=name,
            channel=wanted.channel,
            kind=wanted.kind,
            topic=wanted.topic,
            priority=send.priority,
            mode=send.mode,
            after=wanted.offset,
            on_cap=wanted.on_cap,
            wanted_at=now,
            latest_anchor=now + wanted.max_delay,
        )
        for name, wanted in send.members
    ]


def gives_way(past: Past, send: PlannedSend) -> bool:
    """Whether the send may take the place of this message: a planned one of lower priority."""
    return past.planned and past.priority < send.priority and past.counted.kind == "marketing"


# All that the decisions about a profile depend on; many profiles of a chunk are equal in it. The
# messages are those that count against caps and can't be preempted.
_Case = tuple[Situation, tuple[Counted, ...]]


class _Decisions(NamedTuple):
    """The decisions of a case, by member of the send.

    planned: the messages that go. outcomes: the columns of each message; None: it gets no row.
    people: the profiles in this case.
    """

    decisions: tuple[Decision, ...]
    planned: list[Counted]
    outcomes: list[Decided | None]
    people: list[Addressee]


def _rows(members: Sequence[Member], made: _Decisions) -> NewMessages:
    return NewMessages(
        made.people,
        [
            (member, outcome)
            for member, outcome in zip(members, made.outcomes, strict=True)
            if outcome is not None
        ],
    )


def _decide(planner: Planner, send: PlannedSend, case: _Case, now: Instant) -> _Decisions:
    situation, firm = case
    wanted = [member for _, member in send.members]
    decisions = tuple(planner.decide(situation, send.mode, wanted, firm, now))
    planned = [
        Counted(
            send_at=decision.send_at, channel=member.channel, kind=member.kind, topic=member.topic
        )
        for member, decision in zip(wanted, decisions, strict=True)
        if decision.send_at is not None
    ]
    return _Decisions(
        decisions=decisions,
        planned=planned,
        outcomes=_outcomes(send, situation, decisions, now, {}),
        people=[],
    )


def _outcomes(
    send: PlannedSend,
    situation: Situation,
    decisions: Sequence[Decision],
    now: Instant,
    note: Mapping[str, Any],
) -> list[Decided | None]:
    """The columns of each member. note: is added to the decisions of messages that go."""
    return [
        None
        if send.may_fall_back and decision.reason == "not_chosen"
        else _outcome(decision, situation, now + member.offset, {} if decision.reason else note)
        for (_, member), decision in zip(send.members, decisions, strict=True)
    ]


def _outcome(
    decision: Decision, situation: Situation, wanted_at: Instant, note: Mapping[str, Any]
) -> Decided:
    """The columns of a message that a decision sets."""
    return Decided(
        state="skipped" if decision.reason else "planned",
        reason=decision.reason,
        send_at=wanted_at if decision.send_at is None else decision.send_at,
        decision={**decision.described(situation), **note},
    )


_UNDECIDED = (
    select(*MESSAGE_COLUMNS, messages.c.decision)
    .where(
        tuple_(messages.c.enrollment_id, messages.c.step).in_(
            select(rows_of("groups", messages.c.enrollment_id, messages.c.step))
        ),
        in_buckets(messages.c.bucket),
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
    for *columns, its_decision in lock_rows(tx, _UNDECIDED, {"groups": sorted(groups)}):
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
        situation = recipients[group[0].profile_id].situation
        history = histories[group[0].profile_id]
        counted = [past.counted for past in history if past.id not in undecided]
        decisions = _decide_group(planner, situation, group, counted, tx.now, at_hand_over)
        for row, decision in zip(group, decisions, strict=True):
            if decision.reason == "not_chosen":
                continue  # the row does not change
            notes = {name: before[row.id][name] for name in _KEPT_NOTES if name in before[row.id]}
            outcome = _outcome(decision, situation, row.send_at, {**notes, **note})
            changes.append(Redecided(row.id, outcome))
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
    situation: Situation,
    group: Sequence[MessageRow],
    history: Sequence[Counted],
    now: Instant,
    at_hand_over: Mapping[int, Reason],
) -> list[Decision]:
    """Decide one group again. No message is planned earlier than before."""
    if group[0].mode != "first":
        mode: Mode = "all" if group[0].mode == "all" else "any"
        return _decide_members(planner, situation, mode, group, history, now, at_hand_over)
    decisions: list[Decision] = []
    for row in group:
        if any(decision.reason is None for decision in decisions):
            decisions.append(Decision(None, "not_chosen"))
        else:
            decisions += _decide_members(
                planner, situation, "any", [row], history, now, at_hand_over
            )
    return decisions


def _decide_members(
    planner: Planner,
    situation: Situation,
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
    return planner.decide(situation, mode, wanted, history, start)


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
