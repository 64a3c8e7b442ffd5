"""Matching: how long a match takes, its peak and its quality, by the number of profiles.

    python -m benchmarks.matching FILE

matches the rows of a file in a process of its own and prints its result and its peak in MB. Twice
the profiles must take about twice the time, because the pairs grow with the profiles.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.memory import peak_mb
from benchmarks.support.duplicates import COLUMNS, write
from benchmarks.support.runner import Benchmark, Figures
from profiles.matching.clusters import clusters
from profiles.matching.columns import MatchMap
from profiles.matching.matching import match
from profiles.matching.records import Records, Truth, read_file
from profiles.matching.score import score


def _run(quick: bool) -> Figures:
    few = 500 if quick else 250_000
    many = few * 4
    small, large = _matched(few), _matched(many)
    a_row = large["seconds"] / large["rows"], small["seconds"] / small["rows"]
    return {
        f"seconds_of_{many}": large["seconds"],
        f"peak_mb_of_{many}": large["peak_mb"],
        f"f1_of_{many}": large["f1"],
        "ratio_of_seconds_a_row": a_row[0] / a_row[1],
    }


def _matched(people: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "people.csv"
        write(file, int(people / 1.2))
        command = [sys.executable, "-m", "benchmarks.matching", str(file)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _match(file: Path) -> dict[str, float]:
    started = time.perf_counter()
    records = Records(COLUMNS)
    columns = MatchMap(columns={name: [name] for name in COLUMNS})
    people = read_file(file, columns, records, truth=Truth("person:(.+)"))
    sides = [0] * len(people)
    with match(records.table(), across=False) as found:
        joined = clusters(found.pairs, sides, across=False)
    return {
        "rows": len(people),
        "f1": score(joined, people, sides, across=False).f1,
        "seconds": time.perf_counter() - started,
        "peak_mb": peak_mb(),
    }


MATCHING = Benchmark(
    "matching: time, peak and quality of a match of 1,000,000 profiles",
    _run,
    {
        "seconds_of_1000000": "at most 120 on 2 cores",
        "peak_mb_of_1000000": "at most 2000",
        "ratio_of_seconds_a_row": "about 1",
    },
)

if __name__ == "__main__":
    print(json.dumps(_match(Path(sys.argv[1]))))
