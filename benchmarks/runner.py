"""What the benchmarks share: costs, paired rounds and their medians.

Other work on the machine stretches every time, so that a figure alone says little: ours and the
bare job that it is held against are measured in turn, in the same minute, and the ratio is the
median over the rounds. The ratio of the processor time is given beside it: it leaves out what
others took from us, and what another process (the stub, a database server) did for us.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Figures = Mapping[str, float]


class Cost(NamedTuple):
    """What a job took: seconds on the clock, and processor seconds of this process."""

    wall: float
    cpu: float


class Benchmark(NamedTuple):
    """What it is about, how it is run (quickly or not), and what its figures aim at."""

    about: str
    run: Callable[[bool], Figures]
    aims: Mapping[str, str]


def cost_of(job: Callable[[], object]) -> Cost:
    """Do the job once."""
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def against(name: str, rounds: list[tuple[Cost, Cost]]) -> dict[str, float]:
    """How many times as fast ours was as the other job, over rounds of (ours, the other)."""
    return {
        f"ratio_to_{name}": statistics.median(other.wall / ours.wall for ours, other in rounds),
        f"cpu_ratio_to_{name}": statistics.median(other.cpu / ours.cpu for ours, other in rounds),
    }


def a_second(count: int, costs: list[Cost]) -> dict[str, float]:
    """How many a second on the clock and on the processor, the median of the rounds."""
    return {
        "per_second": count / statistics.median(cost.wall for cost in costs),
        "per_cpu_second": count / statistics.median(cost.cpu for cost in costs),
    }
