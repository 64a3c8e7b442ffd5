"""`python -m benchmarks`: print a table on standard error, and JSON as the last line of output."""

import argparse
import json
import os
import platform
import sys
import time

from rich.console import Console
from rich.table import Table

from benchmarks import (
    dispatch,
    event_cost,
    flow_runs,
    intake,
    launch,
    live,
    matching,
    memory,
    plain_prefect,
    planner,
    profile_reads,
    simulation,
    size,
    workers,
)
from benchmarks.support.runner import Benchmark
from config.garbage import collect_less_often

BENCHMARKS: dict[str, Benchmark] = {
    "launch": launch.SQLITE,
    "launch-postgresql": launch.POSTGRESQL,
    "simulation": simulation.SIMULATION,
    "dispatch": dispatch.DISPATCH,
    "event-cost": event_cost.EVENT_COST,
    "live": live.POSTGRESQL,
    "live-sqlite": live.SQLITE,
    "workers": workers.WORKERS,
    "live-flow-runs": flow_runs.FLOW_RUNS,
    "intake": intake.INTAKE,
    "profile-reads": profile_reads.POSTGRESQL,
    "profile-reads-sqlite": profile_reads.SQLITE,
    "plain-prefect": plain_prefect.PLAIN_PREFECT,
    "planner": planner.PLANNER,
    "memory": memory.MEMORY,
    "matching": matching.MATCHING,
}


def main() -> None:
    """Run the benchmarks that the arguments name."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", help=f"comma-separated names: {', '.join(BENCHMARKS)}, size")
    parser.add_argument(
        "--people", type=int, default=1_000_000, help="profiles of `size`, which runs if named"
    )
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, as a smoke test")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(BENCHMARKS)
    known = {**BENCHMARKS, "size": size.size(arguments.people)}
    if unknown := set(names) - set(known):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    collect_less_often()  # as all of Segue's processes do
    console = Console(stderr=True)
    table = Table("benchmark", "figure", "value", "aim")
    table.columns[2].justify = "right"
    results: dict[str, dict[str, float]] = {}
    started = time.perf_counter()
    for name in names:
        benchmark = known[name]
        console.print(f"{time.perf_counter() - started:4.0f} s  {benchmark.about}")
        results[name] = {
            key: _rounded(value) for key, value in benchmark.run(arguments.quick).items()
        }
        table.add_section()
        for key, value in results[name].items():
            table.add_row(name, key, f"{value:,}", benchmark.aims.get(key, ""))
    seconds = round(time.perf_counter() - started, 1)
    console.print(table, f"{seconds} s, load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
    machine = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    print(json.dumps({"benchmarks": results, "machine": machine, "seconds": seconds}))


def _rounded(value: float) -> float:
    """Round to four significant digits, and from 1000 on to an integer."""
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
