"""Group commit: which requests share a transaction, and that a failure affects only its request."""

import asyncio
from collections.abc import Sequence
from threading import Event

import pytest
from sqlalchemy.exc import OperationalError

from flows.http.ingest.intake import Intake
from profiles.calls.record_calls import Outcome
from profiles.calls.segment_calls import SegmentCall, read_call

DOWN = OperationalError("SELECT 1", {}, Exception("gone"))


class Ledger:
    """Stands in for the database: what each transaction wrote, by event name."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.tried = 0
        self.gate = Event()
        self.gate.set()
        self.down = False

    def write(self, calls: Sequence[SegmentCall], came: Sequence[float]) -> list[Outcome]:
        assert len(came) == len(calls)
        assert self.gate.wait(10)
        self.tried += 1
        names = [call.event for call in calls]
        if self.down:
            raise DOWN
        if any(name.startswith("bad") for name in names):
            raise RuntimeError("a bad call")
        self.transactions.append(names)
        return [Outcome([name]) for name in names]


def calls(*names: str) -> list[SegmentCall]:
    return [read_call("track", {"userId": "u1", "event": name}) for name in names]


def answered(outcomes: Sequence[Outcome]) -> list[str]:
    return [warning for outcome in outcomes for warning in outcome.warnings]


async def at_once(
    intake: Intake, ledger: Ledger, *requests: list[SegmentCall]
) -> list[list[Outcome] | BaseException]:
    """All of them arrive while a first transaction is under way."""
    ledger.gate.clear()
    first = asyncio.create_task(intake.take(calls("first")))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(intake.take(request)) for request in requests]
    await asyncio.sleep(0.01)
    ledger.gate.set()
    await asyncio.wait([first])
    return await asyncio.gather(*rest, return_exceptions=True)


def test_requests_during_a_transaction_share_the_next_one() -> None:
    ledger = Ledger()
    intake = Intake(ledger.write, aim=1)
    done = asyncio.run(at_once(intake, ledger, calls("a", "b"), calls("c"), calls("d")))
    assert ledger.transactions == [["first"], ["a", "b", "c", "d"]]
    assert [answered(one) for one in done if isinstance(one, list)] == [["a", "b"], ["c"], ["d"]]
    assert intake.waiting == 0


def test_a_single_request_is_written_at_once() -> None:
    ledger = Ledger()
    intake = Intake(ledger.write, aim=1)
    for name in ("a", "b"):
        assert answered(asyncio.run(intake.take(calls(name)))) == [name]
    assert asyncio.run(intake.take([])) == []
    assert ledger.transactions == [["a"], ["b"]]


def test_a_large_request_takes_several_transactions_and_keeps_its_order() -> None:
    ledger = Ledger()
    intake = Intake(ledger.write, aim=0)  # every transaction takes longer than this
    names = [f"n{number}" for number in range(1000)]
    assert answered(asyncio.run(intake.take(calls(*names)))) == names
    assert len(ledger.transactions) > 3
    assert [name for some in ledger.transactions for name in some] == names


def test_requests_take_turns() -> None:
    """A small request does not wait for the rest of a large one, nor one large one for another."""
    ledger = Ledger()
    intake = Intake(ledger.write, aim=0)  # so 200 calls a transaction
    large = [[f"{client}{number}" for number in range(900)] for client in "ab"]
    requests = [*(calls(*names) for names in large), calls("small")]
    done = asyncio.run(at_once(intake, ledger, *requests))
    assert [answered(one) for one in done if isinstance(one, list)] == [*large, ["small"]]
    first, second, *_ = ledger.transactions[1:]
    assert first == [*large[0][:99], *large[1][:100], "small"]
    assert [name[0] for name in second].count("a") == 100
    for names in large:
        written = [name for some in ledger.transactions for name in some if name in names]
        assert written == names


def test_more_requests_than_a_transaction_takes_are_all_served() -> None:
    ledger = Ledger()
    intake = Intake(ledger.write, aim=0)
    names = [f"n{number}" for number in range(500)]
    done = asyncio.run(at_once(intake, ledger, *(calls(name, "more") for name in names)))
    assert [answered(one) for one in done if isinstance(one, list)] == [[n, "more"] for n in names]
    written = [name for some in ledger.transactions[1:] for name in some if name != "more"]
    assert written == names


def test_a_failing_call_does_not_affect_other_requests() -> None:
    ledger = Ledger()
    intake = Intake(ledger.write, aim=1)
    done = asyncio.run(at_once(intake, ledger, calls("a"), calls("x", "bad"), calls("c")))
    assert [type(one) for one in done] == [list, RuntimeError, list]
    assert ledger.transactions == [["first"], ["a"], ["c"]]
    assert answered(asyncio.run(intake.take(calls("later")))) == ["later"]
    assert intake.waiting == 0


def test_the_rest_of_a_request_that_failed_is_not_written() -> None:
    ledger = Ledger()
    intake = Intake(ledger.write, aim=0)
    names = [f"n{number}" for number in range(500)]
    with pytest.raises(RuntimeError, match="a bad call"):
        asyncio.run(intake.take(calls("bad", *names)))
    assert ledger.transactions == []


def test_a_database_failure_is_shared_by_the_waiting_requests() -> None:
    ledger = Ledger()
    intake = Intake(ledger.write, aim=1)
    ledger.down = True
    requests = [calls(f"n{number}") for number in range(20)]
    done = asyncio.run(at_once(intake, ledger, *requests))
    assert done == [DOWN] * len(requests)
    assert ledger.tried <= 4
    ledger.down = False
    assert answered(asyncio.run(intake.take(calls("a")))) == ["a"]
