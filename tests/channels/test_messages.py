"""Every transition of messages and devices, from every state, follows ALLOWED."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, get_args

import pytest
from sqlalchemy import Row, select, update

from channels.messages import (
    DeviceState,
    MessageState,
    device_transitions,
    message_devices,
    messages,
    transitions,
)
from channels.messages.device_transitions import DeviceClaim, DeviceOutcome, DeviceReport
from channels.messages.states import ALLOWED, CLOSED, DEVICE_ALLOWED, NOT_HANDED_OVER, REPORTED
from channels.messages.transitions import (
    Addressee,
    Decided,
    Followed,
    Member,
    NewMessages,
    Recorded,
    RecordedState,
    Redecided,
    Report,
)
from config.clock.times import HOUR, Instant
from config.database.engine import Database, Tx
from tests.support.shop import MONDAY
from tests.support.structure.lifecycles import allowed, functions

STATES: tuple[MessageState, ...] = get_args(MessageState)
DEVICE_STATES: tuple[DeviceState, ...] = get_args(DeviceState)
LATER: Instant = MONDAY + HOUR


def new(number: int, state: Any = "planned") -> NewMessages:
    member = Member(
        journey="j",
        version="v",
        step="s",
        member="email",
        channel="email",
        kind="marketing",
        topic="news",
        priority=0,
        mode="any",
        after=0,
        on_cap="skip",
        wanted_at=MONDAY,
        latest_anchor=LATER,
    )
    decided = Decided(state=state, reason=None, send_at=MONDAY, decision={})
    return NewMessages([Addressee(1, number)], [(member, decided)])


def rows_of(tx: Tx, table: Any = messages) -> dict[Any, Row[Any]]:
    key = [*table.primary_key]
    return {
        tuple(row._mapping[column] for column in key): row for row in tx.conn.execute(select(table))
    }


Rows = Mapping[int, MessageState]
Act = Callable[[Tx, Rows], int]


def replan(state: Any) -> Act:
    return lambda tx, rows: transitions.replan(
        tx,
        [Redecided(one, Decided(state, "capped", LATER, decision={"n": 1})) for one in rows],
    )


def put_off(until: Instant) -> Act:
    return lambda tx, rows: sum(transitions.put_off(tx, one, until, "why") for one in rows)


def record(state: RecordedState) -> Act:
    return lambda tx, rows: transitions.record(
        tx,
        [
            Recorded(
                message_id=one,
                profile_id=1,
                state=state,
                reason="why",
                send_at=LATER,
                attempts=7,
                provider_id="theirs",
                segments=2,
            )
            for one in rows
        ],
    )


def report(state: Any) -> Act:
    return lambda tx, rows: transitions.report(
        tx,
        state,
        [Report(message_id=one, reason="why", provider_id="theirs", at=LATER) for one in rows],
    )


def follow(state: MessageState) -> Act:
    return lambda tx, rows: transitions.follow_devices(
        tx,
        [
            Followed(
                message_id=one,
                was=was,
                state=state,
                reason="why",
                send_at=LATER,
                attempts=7,
                provider_id="theirs",
            )
            for one, was in rows.items()
        ],
    )


def resolve(state: Any) -> Act:
    return lambda tx, rows: transitions.resolve(tx, list(rows), state)


ACTS: dict[str, list[Act]] = {
    "replan": [replan("planned"), replan("skipped")],
    "put_off": [put_off(MONDAY + 1), put_off(LATER + 1)],
    "skip": [lambda tx, rows: transitions.skip(tx, dict.fromkeys(rows, "why"))],
    "cancel": [lambda tx, rows: transitions.cancel(tx, {one: f"why {one % 2}" for one in rows})],
    "cancel_of": [
        lambda tx, rows: transitions.cancel_of(tx, range(100), "why"),
        lambda tx, rows: transitions.cancel_of(tx, range(100), "why", step="s"),
    ],
    "fail": [lambda tx, rows: transitions.fail(tx, dict.fromkeys(rows, "why"))],
    "claim": [lambda tx, rows: transitions.claim(tx, rows, not_after=LATER, claimed_by="me")],
    "record": [record(state) for state in get_args(RecordedState)],
    "lose": [lambda tx, rows: transitions.lose(tx, MONDAY, "why")],
    "report": [report(state) for state in REPORTED],
    "follow_devices": [follow(state) for state in STATES],
    "resolve": [resolve("sent"), resolve("failed")],
    "close": [lambda tx, rows: transitions.close(tx, LATER, f"{CLOSED}: ")],
}


def in_every_state(tx: Tx) -> dict[int, MessageState]:
    """Messages in every state, tried or not, by their ids; of each, one that was not chosen."""
    cases = list(product(STATES, (0, 1), (None, "not_chosen")))
    transitions.plan(tx, [new(number) for number in range(len(cases))])
    for number, (state, attempts, reason) in enumerate(cases):
        values = {
            "state": state,
            "attempts": attempts,
            "reason": reason,
            "mode": "first" if reason else "any",
            "not_after": MONDAY - 1,
        }
        changing = update(messages).where(messages.c.enrollment_id == number)
        tx.conn.execute(changing.values(**values))
    return {row.id: row.state for row in rows_of(tx).values()}


def changes(db: Database, act: Act) -> Iterator[tuple[Row[Any], Row[Any]]]:
    """The changed messages, before and after; checks the returned number."""
    with db.transaction(keep=False) as tx:
        rows = in_every_state(tx)
        before = rows_of(tx)
        changed = act(tx, rows)
        after = rows_of(tx)
    different = [(row, after[key]) for key, row in before.items() if row != after[key]]
    assert len(different) == changed
    yield from different


def test_every_transition_is_a_function_and_every_function_a_transition() -> None:
    no_transitions = {"give_to", "give_back", "existing"}
    assert functions(transitions) == {*ALLOWED, *no_transitions}
    assert functions(device_transitions) == {*DEVICE_ALLOWED, "give_to", "give_back"}
    assert {*ACTS, "plan"} == set(ALLOWED)
    assert set(DEVICE_ACTS) == set(DEVICE_ALLOWED)


@pytest.mark.parametrize("transition", ACTS)
def test_messages_follow_the_allowed_transitions(db: Database, transition: str) -> None:
    found = {
        (before.state, after.state)
        for act in ACTS[transition]
        for before, after in changes(db, act)
    }
    assert found == allowed(ALLOWED, transition)


def test_a_new_message_is_planned_or_refused(db: Database) -> None:
    with db.transaction() as tx:
        assert transitions.plan(tx, []) == 0
        assert transitions.plan(tx, [new(1), new(2, "skipped")]) == 2
        states = {(None, row.state) for row in rows_of(tx).values()}
    assert states == allowed(ALLOWED, "plan")


@pytest.mark.parametrize("transition", ["report", "follow_devices"])
def test_only_a_message_with_an_attempt_follows_reports(db: Database, transition: str) -> None:
    """A message that was never tried has no call-back of ours. Of a push the devices know it."""
    tries = {
        before.attempts
        for act in ACTS[transition]
        for before, _ in changes(db, act)
        if before.state in NOT_HANDED_OVER
    }
    assert tries == ({1} if transition == "report" else {0, 1})


def test_a_skipped_message_is_decided_again_only_if_another_was_chosen(db: Database) -> None:
    reasons = {
        before.reason for before, _ in changes(db, replan("planned")) if before.state == "skipped"
    }
    assert reasons == {"not_chosen"}


def test_a_push_in_another_state_is_not_changed(db: Database) -> None:
    """Its state was derived from another one."""

    def stale(tx: Tx, rows: Rows) -> int:
        others = {one: next(state for state in STATES if state != was) for one, was in rows.items()}
        return follow("failed")(tx, others)

    assert list(changes(db, stale)) == []


def test_columns_that_a_claim_and_its_outcome_write(db: Database) -> None:
    with db.transaction() as tx:
        transitions.plan(tx, [new(1)])
        [row] = rows_of(tx).values()
        transitions.claim(tx, {row.id: "ann@example.com"}, not_after=LATER, claimed_by="me")
        [row] = rows_of(tx).values()
        assert (row.send_at, row.not_after, row.claimed_by) == (tx.now, LATER, "me")
        assert (row.attempts, row.address) == (1, "ann@example.com")
        transitions.record(
            tx,
            [
                Recorded(
                    message_id=row.id,
                    profile_id=row.profile_id,
                    state="sent",
                    reason=None,
                    send_at=MONDAY,
                    attempts=1,
                    provider_id="theirs",
                    segments=2,
                )
            ],
        )
        [row] = rows_of(tx).values()
    assert (row.send_at, row.not_after, row.claimed_by) == (MONDAY, None, None)
    assert (row.provider_id, row.segments) == ("theirs", 2)


def test_closing_twice_adds_nothing(db: Database) -> None:
    with db.transaction() as tx:
        in_every_state(tx)
        assert transitions.close(tx, LATER, f"{CLOSED}: ") == 4
        assert transitions.close(tx, LATER, f"{CLOSED}: ") == 0
        reasons = {row.reason for row in rows_of(tx).values() if row.state == "unknown"}
    assert reasons == {f"{CLOSED}: the provider did not answer", f"{CLOSED}: not_chosen"}


# Devices ------------------------------------------------------------------------------------------

DeviceAct = Callable[[Tx, list[tuple[int, str]]], int]


def record_devices(state: Any) -> DeviceAct:
    return lambda tx, keys: device_transitions.record(
        tx,
        [
            DeviceOutcome(
                message_id=message_id,
                token=token,
                state=state,
                reason="why",
                attempts=7,
                retry_at=LATER,
                provider_id="theirs",
            )
            for message_id, token in keys
        ],
    )


def report_devices(state: Any) -> DeviceAct:
    return lambda tx, keys: device_transitions.report(
        tx,
        state,
        [
            DeviceReport(message_id=message_id, token=token, reason="why", provider_id="theirs")
            for message_id, token in keys
        ],
    )


def claim_devices(tx: Tx, keys: list[tuple[int, str]]) -> int:
    claims = [
        DeviceClaim(message_id=message_id, token=token, profile_id=1, attempts=2, not_after=LATER)
        for message_id, token in keys
    ]
    return device_transitions.claim(tx, claims).number


DEVICE_ACTS: dict[str, list[DeviceAct]] = {
    "claim": [claim_devices],
    "drop": [
        lambda tx, keys: device_transitions.drop(tx, range(100), "why"),
        lambda tx, keys: device_transitions.drop(tx, range(100), claimed=True),
    ],
    "record": [record_devices(state) for state in ("sent", "failed", "unknown", "later")],
    "lose": [lambda tx, keys: device_transitions.lose(tx, range(100), LATER + 1, "why")],
    "report": [report_devices(state) for state in REPORTED],
}


@pytest.mark.parametrize("transition", DEVICE_ACTS)
def test_devices_follow_the_allowed_transitions(db: Database, transition: str) -> None:
    found: set[tuple[str | None, str]] = set()
    for act in DEVICE_ACTS[transition]:
        with db.transaction(keep=False) as tx:
            keys = [(number, "token") for number in range(2 * len(DEVICE_STATES))]
            assert claim_devices(tx, keys) == len(keys)
            for (number, _), (state, attempts) in zip(
                keys, product(DEVICE_STATES, (0, 1)), strict=True
            ):
                changing = update(message_devices).where(message_devices.c.message_id == number)
                tx.conn.execute(changing.values(state=state, attempts=attempts))
            before = rows_of(tx, message_devices)
            added = [(99, "token")] if transition == "claim" else []
            changed = act(tx, keys + added)
            after = rows_of(tx, message_devices)
        different = [key for key, row in after.items() if row != before.get(key)]
        assert len(different) == changed
        for key in different:
            was = before[key].state if key in before else None
            found.add((was, after[key].state))
            if was in ("later", "dropped") and transition == "report":
                assert before[key].attempts > 0
    assert found == allowed(DEVICE_ALLOWED, transition)


def test_a_device_that_is_dropped_keeps_the_reason_of_the_provider(db: Database) -> None:
    with db.transaction() as tx:
        device_transitions.claim(
            tx, [DeviceClaim(message_id=1, token="a", profile_id=1, attempts=1, not_after=LATER)]
        )
        record_devices("later")(tx, [(1, "a")])
        assert device_transitions.drop(tx, [1]) == 1
        [row] = rows_of(tx, message_devices).values()
        assert (row.state, row.reason, row.retry_at) == ("dropped", "why", None)
