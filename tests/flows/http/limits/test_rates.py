"""Token buckets of senders."""

from flows.http.limits.rates import BURST, Rates


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_sender_has_a_burst_then_the_rate() -> None:
    clock = Clock()
    rates = Rates(10, clock)
    assert rates.wait("a") == 0
    rates.take("a", 10 * BURST)
    assert (rates.wait("a"), rates.wait("b")) == (1, 0)
    clock.now += 0.5
    assert rates.wait("a") == 0
    rates.take("a", 5)
    assert rates.wait("a") == 1


def test_a_batch_above_the_burst_is_accepted_and_waited_for() -> None:
    clock = Clock()
    rates = Rates(10, clock)
    rates.take("a", 10 * BURST + 45)
    assert rates.wait("a") == 5
    clock.now += 5
    assert rates.wait("a") == 0
    rates.take("a", 1_000_000)
    assert rates.wait("a") == 300, "the longest Retry-After that clients honour"


def test_the_sender_that_was_idle_longest_is_forgotten() -> None:
    clock = Clock()
    rates = Rates(1, clock)
    rates.take("first", 100)
    for number in range(10_000):
        rates.take(str(number), 1)
    assert rates.wait("first") == 0
    rates.take("9999", 100)
    assert rates.wait("9999") > 0
