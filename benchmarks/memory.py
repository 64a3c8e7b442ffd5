"""Memory: the peak of a process that launches a journey, for a small and a large audience.

    python -m benchmarks.memory URL

launches in the database at URL and prints its peak in MB. The benchmark runs it as a separate
process. The peak must not depend on the size of the audience.
"""

import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.launch import enter_and_plan
from benchmarks.support.databases import on_sqlite
from benchmarks.support.material import EMAIL, MORNING, catalog_of, fill
from benchmarks.support.runner import Benchmark, Figures
from config.database.engine import Database


def _run(quick: bool) -> Figures:
    few, many = (100, 500) if quick else (20_000, 100_000)
    small, large = _peak(few), _peak(many)
    return {
        f"peak_mb_of_{few}": small,
        f"peak_mb_of_{many}": large,
        "ratio_of_many_to_few": large / small,
    }


def _peak(people: int) -> float:
    with on_sqlite(lambda db: fill(db, people, MORNING), MORNING) as fresh:
        db = fresh()
        db.close()
        command = [sys.executable, "-m", "benchmarks.memory", db.url]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return float(done.stdout)


def _launch(url: str) -> None:
    enter_and_plan(Database(url, now=MORNING), catalog_of(EMAIL))
    print(peak_mb())


def peak_mb() -> float:
    """The peak resident memory of this process, in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000_000  # macOS reports bytes
    # On Linux getrusage reports the peak of the parent process if that is higher.
    [peak] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(peak.split()[1]) / 1_000


MEMORY = Benchmark(
    "memory: the peak of a launch, by the size of the audience",
    _run,
    {"ratio_of_many_to_few": "about 1"},
)

if __name__ == "__main__":
    _launch(sys.argv[1])
