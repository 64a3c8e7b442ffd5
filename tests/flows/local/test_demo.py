"""`segue demo`: from an event and a launch to the last reaction, and the numbers in its summary."""

import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from sqlalchemy import func, select

from channels.messages import messages
from config.database.engine import Tx
from config.settings import Settings
from flows.app import open_segue
from flows.local.stack import environment
from journeys.enrollments import enrollments
from journeys.operations.counts import summarise
from profiles.tables import events
from sandbox.store import Store
from tests.support.patience import PATIENCE


@pytest.mark.long
def test_the_demo_ends_with_what_the_database_and_the_sandbox_say(tmp_path: Path) -> None:
    settings = Settings().model_copy(update={"data_dir": tmp_path, "database_url": ""})
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "demo"],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout.splitlines()[-1])
    assert list(told) == [
        *("journey", "entered", "sent", "not_sent"),
        *("answers", "event_to_message_ms", "live", "seconds"),
    ]

    segue = open_segue(settings.model_copy(update={"data_dir": tmp_path / "demo"}))
    with closing(segue.db), segue.db.transaction(write=False) as tx:
        launched, live = summarise(tx, told["journey"]), summarise(tx, "cart-recovery")
        assert told["entered"] == launched.entered > 0
        assert told["sent"] == dict(launched.sent + live.sent)
        assert told["not_sent"] == dict(launched.not_sent + live.not_sent)
        assert (launched.active, launched.planned.total()) == (0, 0), "somebody is on the way"
        assert told["answers"].items() <= happened(tx).items()
        assert of_the_cart(tx) == [("push", "sent", "nudge")]
        [ended] = tx.conn.execute(
            select(enrollments.c.end_reason).where(enrollments.c.journey == "cart-recovery")
        ).scalars()
    assert all(told["sent"][channel] > 0 for channel in ("email", "sms", "push"))
    # The customers answered, and what they said had its effect on the second mail.
    for answer in ("email_opened", "email_clicked", "email_bounced", "sms_stopped"):
        assert told["answers"][answer] > 0
    assert told["not_sent"]["suppressed"] > 0
    # Her purchase stopped what would have followed on the reminder.
    assert told["event_to_message_ms"] > 0
    assert ended == "exited: exit rule"
    assert told["live"] == {
        "journey": "cart-recovery",
        "started_by": "cart_abandoned",
        "sent": {"push": 1},
        "stopped_by": "order_completed",
    }

    with closing(Store(tmp_path / "demo" / "sandbox.db")) as sandbox:
        stats = sandbox.stats()
    assert stats["accepted"] == told["sent"]
    assert stats["duplicates"] == 0


def happened(tx: Tx) -> Counter[str]:
    """All events, by name."""
    number = func.count().label("number")
    counted = select(events.c.name, number).group_by(events.c.name)
    return Counter({row.name: row.number for row in tx.conn.execute(counted)})


def of_the_cart(tx: Tx) -> list[tuple[str, ...]]:
    """What cart recovery sent."""
    sent = select(messages.c.channel, messages.c.state, messages.c.step).where(
        messages.c.journey == "cart-recovery"
    )
    return [tuple(row) for row in tx.conn.execute(sent)]
