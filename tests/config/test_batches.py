"""Isolate a failing item by halving, and size transactions by their duration."""

from collections.abc import Collection

import pytest

from config.batches import Halving, TimedSize


def isolate(number: int, bad: Collection[int]) -> tuple[list[int], list[int], int]:
    """Work through the numbers below `number`; gives the good, the bad and the tries."""
    halving, left = Halving(number), list(range(number))
    worked: list[int] = []
    blamed: list[int] = []
    tries = 0
    while left:
        some = left[: halving.size]
        tries += 1
        if any(one in bad for one in some):
            if not halving.failed(len(some)):
                continue
            blamed += some
        else:
            worked += some
            halving.worked()
        left = left[len(some) :]
    return worked, blamed, tries


@pytest.mark.parametrize("bad", [set(), {0}, {499}, {250}, {3, 4, 400}, set(range(7))])
def test_halving_finds_exactly_those_that_fail(bad: set[int]) -> None:
    worked, blamed, tries = isolate(500, bad)
    assert blamed == sorted(bad)
    assert worked == [one for one in range(500) if one not in bad]
    assert tries <= 1 + 40 * len(bad)


def test_after_a_failure_the_size_grows_back_to_its_most() -> None:
    halving = Halving(100)
    assert not halving.failed(100)
    assert halving.size == 50
    assert halving.failed(1)
    sizes = []
    for _ in range(9):
        halving.worked()
        sizes.append(halving.size)
    assert sizes == [2, 4, 8, 16, 32, 64, 100, 100, 100]


def sized(each: float, number: int | None, times: int = 1) -> int:
    """The size after transactions that took `each` second a member."""
    size = TimedSize(0.04, first=250, smallest=50, largest=5000)
    for _ in range(times):
        some = size.size if number is None else number
        size.note(some, each * some)
    return size.size


def test_quick_transactions_grow_and_slow_ones_shrink_by_steps() -> None:
    assert sized(1e-7, None) == 500
    assert sized(1e-7, None, times=20) == 5000
    assert sized(1.0, None) == 125
    assert sized(1.0, None, times=20) == 50


def test_the_size_settles_at_the_aim() -> None:
    assert sized(1 / 10_000, None, times=20) == pytest.approx(400, abs=1)


def test_a_few_done_quickly_change_nothing_and_a_few_done_slowly_do() -> None:
    assert sized(1e-7, 1) == sized(1e-7, 0) == 250
    assert sized(1.0, 3) == 125
