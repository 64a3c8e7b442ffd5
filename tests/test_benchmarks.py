"""The benchmarks run and return their figures; the tests check no speed.

Benchmarks with Prefect's server are left out, because each takes half a minute.
"""

import json
import subprocess
import sys

import pytest

from benchmarks.__main__ import main
from tests.support.proof import cases

FIGURES = {
    "planner": {"simple_per_second", "three_caps_per_second", "history_10000_per_second"},
    "launch": {"profiles", "per_second", "ratio_to_bulk_insert"},
    "dispatch": {"messages", "per_second", "ratio_to_best_httpx_loop"},
    "event-cost": {"statements", "transactions"},
    # only in `make prove`
    "simulation": {"people", "sent", "people_days_per_second", "cpu_times_a_launch"},
    "launch-postgresql": {"profiles", "per_second", "ratio_to_bulk_insert"},
    "live-sqlite": {"p50_ms_at_5", "p99_ms_at_50", "cpu_ratio_to_bare_loop"},
    "intake": {"events", "sqlite_per_second", "postgresql_per_second"},
    "profile-reads": {"p99_ms", "p99_ratio_to_bare_read"},
    "profile-reads-sqlite": {"p99_ms", "p99_ratio_to_bare_read"},
    "memory": {"ratio_of_many_to_few"},
    "size": {"p50_ratio_of_many_to_few", "report_seconds", "import_memory_ratio_of_many_to_few"},
}


def _benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", "--quick", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.long
@pytest.mark.proof
def test_the_last_line_is_json_with_every_figure() -> None:
    names = list(FIGURES)[: cases(test=4, prove=len(FIGURES))]
    done = _benchmarks("--only", ",".join(names))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["seconds"] > 0
    assert set(told["benchmarks"]) == set(names)
    for name, figures in told["benchmarks"].items():
        assert figures.keys() >= FIGURES[name]
        assert all(isinstance(value, int | float) and value > 0 for value in figures.values())
        assert name in done.stderr


@pytest.mark.parametrize("arguments", [["--only", "no-such-thing"], ["--fast"]])
def test_unknown_arguments_are_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert arguments[-1] in capsys.readouterr().err
