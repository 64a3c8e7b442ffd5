"""`segue demo`: one journey to its end, and the same numbers in the database and the sandbox."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import orjson

from channels.sandbox.store import Store
from config.settings import Settings
from flows.app import open_segue
from flows.stack import environment
from journeys.report import summarise


def test_the_demo_ends_with_what_the_database_and_the_sandbox_say(tmp_path: Path) -> None:
    settings = Settings().model_copy(update={"data_dir": tmp_path, "database_url": ""})
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "demo"],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout.splitlines()[-1])
    assert list(told) == ["journey", "entered", "sent", "not_sent", "seconds"]

    segue = open_segue(settings.model_copy(update={"data_dir": tmp_path / "demo"}))
    with closing(segue.db), segue.db.transaction(write=False) as tx:
        summary = summarise(tx, told["journey"])
    assert told["entered"] == summary.entered > 0
    assert told["sent"] == dict(summary.sent)
    assert told["not_sent"] == dict(summary.not_sent)
    assert (summary.active, summary.planned.total()) == (0, 0), "nobody is on the way any more"
    assert all(told["sent"][channel] > 0 for channel in ("email", "sms", "push"))

    with closing(Store(tmp_path / "demo" / "sandbox.db")) as sandbox:
        stats = sandbox.stats()
    assert stats["accepted"] == told["sent"]
    assert stats["duplicates"] == 0
