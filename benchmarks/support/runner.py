"""Shared parts of the benchmarks: costs, paired rounds and their medians.

Other load on the machine distorts timings. So each round measures Segue and the reference job one
after the other, and results are ratios, with the median over the rounds. The ratio of the processor
times is also given. It excludes waiting for other load, and the work of other processes (the stub,
a database server).
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Figures = Mapping[str, float]


class Cost(NamedTuple):
    """The cost of a job: elapsed seconds, and processor seconds of this process."""

    wall: float
    cpu: float


class Benchmark(NamedTuple):
    """A benchmark: its description, its function (`True` for a quick run), and aims by figure."""

    about: str
    run: Callable[[bool], Figures]
    aims: Mapping[str, str]


def cost_of(job: Callable[[], object]) -> Cost:
    """Run the job once and measure it."""
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def against(name: str, rounds: list[tuple[Cost, Cost]]) -> dict[str, float]:
    """The speed relative to a reference job: medians over rounds of (ours, the reference)."""
    return {
        f"ratio_to_{name}": statistics.median(other.wall / ours.wall for ours, other in rounds),
        f"cpu_ratio_to_{name}": statistics.median(other.cpu / ours.cpu for ours, other in rounds),
    }


def a_second(count: int, costs: list[Cost]) -> dict[str, float]:
    """The rate per elapsed second and per processor second, from the median of the rounds."""
    return {
        "per_second": count / statistics.median(cost.wall for cost in costs),
        "per_cpu_second": count / statistics.median(cost.cpu for cost in costs),
    }
