"""The operator's commands: their output, their effects, and that they change nothing by default."""

import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import orjson
import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from channels.outbox.unknown import CLOSED_AFTER, close_unsettled
from config.clock.times import HOUR, MINUTE, format_instant
from config.timing import TIMING
from journeys.definition.catalog import Catalog
from journeys.dsl import SMS, Email, Push, Send, Update, Wait, WaitUntil, did
from journeys.engine.entry import enter_people
from journeys.operations.control import held
from journeys.operations.doctor import LATE
from journeys.operations.heartbeat import record_heartbeat
from tests.support.commands import Said, Segue
from tests.support.shop import MONDAY, House, described


def test_upgrade_makes_the_tables_and_can_be_repeated(
    segue: Segue, house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    house.open()
    url = f"sqlite:///{tmp_path / 'new.db'}"
    monkeypatch.setenv("SEGUE_DATABASE_URL", url)
    for _ in range(2):
        assert segue("upgrade") == Said(0, f"the database {url} is up to date\n", "")
    with sqlite3.connect(tmp_path / "new.db") as conn:
        assert conn.execute("SELECT count(*) FROM message").fetchone() == (0,)


def test_the_doctor_lists_findings_and_fixes_what_it_can(house: House, segue: Segue) -> None:
    house.open(
        described(Send("s", Email("hello"), SMS("hello", after="1h"))),
        described(Update("u", x=1), name="k"),
    )
    assert segue("doctor") == Said(0, "no problems found\n", "")
    ann, bob = house.customer(), house.customer()
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("j"), [ann], None)
    house.advance()
    with (
        patch("channels.outbox.dispatch.Dispatcher._hand_over", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        house.run()
    with house.db.transaction() as tx:
        enter_people(tx, house.segue.catalog.journey("k"), [bob], None)
    late = HOUR + 2 * LATE
    house.db.now = MONDAY + late

    said = segue("doctor")
    assert said.status == 1
    assert {line.split(",")[0] for line in said.out.splitlines()} == {
        "overdue enrollments: 1 (j)",
        "overdue enrollments: 1 (k)",
        "no worker is running: 1 (j)",
        "no worker is running: 1 (k)",
        "overdue messages: 1 (sms)",
        "claims without an owner: 1 (email)",
    }
    assert "overdue enrollments: 1 (k), the oldest for 64m; start a worker: segue work" in said.out
    [claims] = [
        one
        for one in orjson.loads(segue("doctor", "--json").out)["complaints"]
        if one["what"] == "claims without an owner"
    ]
    assert (claims["where"], claims["number"]) == ("email", 1)
    assert claims["for_seconds"] == late - TIMING.claim_lasts > TIMING.lost_after
    # it has only looked
    assert [row.state for row in house.rows()] == ["sending", "planned"]

    said = segue("doctor", "--mend")
    assert said.status == 1
    assert "claims without an owner" not in said.out
    assert "overdue enrollments: 1 (k)" in said.out
    assert [row.state for row in house.rows()] == ["unknown", "planned"]

    # what only a worker can fix
    with house.db.transaction() as tx:
        record_heartbeat(tx, "w")
    house.run()
    assert segue("doctor") == Said(0, "no problems found\n", "")
    assert [row.state for row in house.rows()] == ["unknown", "sent"]
    assert house.attributes(bob) == {"x": 1}


@pytest.fixture
def unsettled(house: House) -> House:
    """An unknown mail, an unknown text, and a mail that was sent."""
    house.open(described(Send("s", Email("hello"), SMS("hello"))))
    house.customer()
    house.providers.answer("email", httpx.ReadError("cut"))
    house.providers.answer("sms", httpx.ReadTimeout("slow"))
    house.launch("j")
    house.customer(consent={("email", "*"): True})
    house.launch("j")
    assert [row.state for row in house.rows()] == ["unknown", "unknown", "sent", "skipped"]
    return house


def test_resolve_lists_unknown_messages_before_it_changes_them(
    unsettled: House, segue: Segue
) -> None:
    mail, text, *others = unsettled.rows()
    shown = segue("resolve", "failed")
    at = format_instant(MONDAY)
    assert shown.out.splitlines() == [
        f"message {mail.id}: email, handed over {at}",
        f"message {text.id}: sms, handed over {at}",
        "2 messages would be failed; to mark them, add --apply",
    ]
    one = segue("resolve", "sent", "--message", str(mail.id))
    assert one.out.splitlines()[1:] == ["1 messages would be sent; to mark them, add --apply"]
    assert unsettled.rows() == [mail, text, *others]

    segue("resolve", "sent", "--message", str(mail.id), "--apply")
    assert [row.state for row in unsettled.rows()] == ["sent", "unknown", "sent", "skipped"]
    assert segue("resolve", "failed", "--apply").out.endswith("1 messages marked as failed\n")
    assert [row.state for row in unsettled.rows()] == ["sent", "failed", "sent", "skipped"]
    assert unsettled.rows()[2:] == others
    assert segue("resolve", "failed", "--apply").out == "0 messages marked as failed\n"
    assert segue("resolve", "lost").status == 2


def test_unresolved_messages_are_closed_and_reported(unsettled: House, segue: Segue) -> None:
    def reported() -> tuple[Any, Any, Any]:
        report = orjson.loads(segue("report", "j", "--json").out)
        return report["sent"], report["unknown"], report["closed_as_unknown"]

    assert reported() == ({"email": 2, "sms": 1}, {"email": 1, "sms": 1}, 0)
    unsettled.db.now = MONDAY + CLOSED_AFTER + 1
    assert segue("doctor", "--mend").status == 0
    assert reported() == ({"email": 2, "sms": 1}, {"email": 1, "sms": 1}, 2)
    assert (
        "2 messages with unknown outcome, 2 of them closed, because no delivery report arrived\n"
        in segue("report", "j").out
    )
    [mail, text, *_] = unsettled.rows()
    assert mail.reason == "closed as unknown: no delivery report within 3d; ReadError: cut"
    assert text.state == "unknown"
    assert "closed as unknown: no delivery report within 3d" in segue("explain", "c1").out
    # once; and an operator may still say otherwise
    with unsettled.db.transaction() as tx:
        assert close_unsettled(tx) == 0
    assert segue("resolve", "sent", "--apply").out.endswith("2 messages marked as sent\n")
    assert reported() == ({"email": 2, "sms": 1}, {}, 0)
    assert "unknown fate" not in segue("report", "j").out


def test_a_migration_is_shown_and_then_applied(house: House, segue: Segue) -> None:
    house.open(described(Wait("1d", name="stays"), Wait("1d", name="goes")))
    for _ in range(2):
        house.customer()
        house.launch("j")
        house.later("1d")
    house.customer()
    house.launch("j")
    house.open(described(Wait("2d", name="stays"), WaitUntil("new", did("x"), timeout="1d")))
    old = [person.version for person in house.people()]
    shown = segue("migrate", "j", "--plan")
    assert shown.status == 0
    assert "nothing was moved; to move them, add --apply" in shown.out
    rows = [line.split("│")[2:-1] for line in shown.out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["goes", "1", "stays", "the current version has no such step"],
        ["stays", "1", "stays", "the step has changed"],
    ]
    assert segue("migrate", "j").out == shown.out
    plan = orjson.loads(segue("migrate", "j", "--plan", "--json").out)
    assert (plan["applied"], len(plan["steps"])) == (False, 2)
    assert [person.version for person in house.people()] == old

    both = segue("migrate", "j", "--plan", "--apply")
    assert (both.status, both.err.count("\n")) == (1, 1)
    assert "give one of them" in both.err
    assert [person.version for person in house.people()] == old

    assert "moved" in segue("migrate", "j", "--apply").out
    current = house.segue.catalog.journey("j").digest
    assert [person.version == current for person in house.people()] == [False, False, True]
    assert "has no such step" in segue("migrate", "j", "--plan").out
    house.later("3d")
    assert segue("migrate", "j").out == "all enrollments of j are on the current version\n"


def test_holding_a_journey_from_the_command_line(house: House, segue: Segue) -> None:
    house.open(
        described(Send("s", Push("hello", after="1h"), Email("hello", after="1h", max_delay="2h")))
    )
    house.customer("ann")
    house.launch("j")
    assert segue("pause", "j").out.startswith("j is paused: 1 active enrollments wait")
    house.later("5h")
    assert house.providers.accepted == []
    assert segue("doctor").out.count("overdue") == 0
    assert segue("resume", "j").out.startswith("j is running: 1 active enrollments continue")
    house.run()
    assert [sent.channel for sent in house.providers.accepted] == ["push"]
    dropped = segue("explain", "ann").out
    assert "j / s: It was sent.\n    ios …-ann: sent\n" in dropped
    assert "Reason: expired: it could not leave within its max_delay." in dropped
    house.later(f"{2 * MINUTE}s")
    assert [person.end_reason for person in house.people()] == ["completed"]

    house.customer("bob")
    house.launch("j")
    assert segue("stop", "j").out.startswith("j is stopped: 1 active enrollments have ended")
    house.customer("cleo")
    house.launch("j")
    house.later("1d")
    assert len(house.providers.accepted) == 1
    assert [person.end_reason for person in house.people()] == [
        "completed",
        "the journey was stopped",
    ]
    assert "Reason: the journey was stopped." in segue("explain", "bob").out
    for command in ("pause", "resume", "stop", "migrate"):
        said = segue(command, "nothing")
        assert (said.status, said.out) == (1, "")
        assert "there is no journey 'nothing'; there are: j" in said.err


def test_a_database_in_trouble_is_named_in_a_line(house: House, segue: Segue) -> None:
    house.open(described(Wait("1d")))
    locked = OperationalError("", {}, sqlite3.OperationalError("database is locked"))
    with patch("flows.orchestration.journey_controls.pause", side_effect=locked):
        said = segue("pause", "j")
    assert said == Said(1, "", "segue: database error: OperationalError: database is locked\n")
    with house.db.transaction(write=False) as tx:
        assert held(tx) == {}
    with patch.object(Catalog, "register", side_effect=locked):
        said = segue("doctor")
    assert (said.status, said.out, said.err.count("\n")) == (1, "", 1)
    assert "database is locked" in said.err
    # what is wrong in the program itself is not hidden
    ours = ProgrammingError("", {}, sqlite3.ProgrammingError("no such column"))
    with (
        patch("flows.orchestration.journey_controls.pause", side_effect=ours),
        pytest.raises(ProgrammingError),
    ):
        segue("pause", "j")


def test_tidy_applies_the_retention(
    segue: Segue, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.open(described(Send("s", Email("hello"))))
    house.customer()
    house.launch("j")
    house.later("364d")
    rest = "the properties of 0 events and 0 acts of the staff's log\n"
    nothing = Said(0, f"removed 0 messages, 0 passages, {rest}", "")
    passed = Said(0, f"removed 0 messages, 1 passages, {rest}", "")
    assert [segue("tidy") for _ in range(2)] == [passed, nothing]
    monkeypatch.setenv("SEGUE_MESSAGE_RETENTION", "")
    house.later("2d")
    assert segue("tidy") == nothing
    monkeypatch.setenv("SEGUE_MESSAGE_RETENTION", "29d")
    refused = segue("tidy")
    assert refused.status == 1
    assert "SEGUE_MESSAGE_RETENTION: a retention is at least 30d" in refused.err
    monkeypatch.delenv("SEGUE_MESSAGE_RETENTION")
    assert segue("tidy").out.startswith("removed 1 messages, 0 passages")
    assert '"sent":{"email":1}' in segue("report", "j", "--json").out


def test_a_launch_is_undone_only_with_apply(house: House, segue: Segue) -> None:
    house.open(described(Send("s", Email("hello"), Push("hello", after="1h"))))
    house.customer()
    house.launch("j", launch_id="l")
    said = segue("launch", "--undo", "l")
    assert said.status == 0
    assert said.out.splitlines() == [
        "j for everyone, launch l: 1 people",
        "messages would be cancelled: 0 email, 0 sms, 1 push",
        "people whose journey would end: 1",
        "people would be treated as if they had never entered: 0",
        "gone, which nothing takes back: 1 email, 0 sms, 0 push",
        "Nothing was changed. To undo the launch, add --apply",
    ]
    assert [row.state for row in house.rows()] == ["sent", "planned"]
    answer = orjson.loads(segue("launch", "--undo", "l", "--apply", "--json").out)
    assert (answer["applied"], answer["cancelled"]["push"], answer["gone"]["email"]) == (True, 1, 1)
    assert [row.state for row in house.rows()] == ["sent", "cancelled"]


def test_an_undo_takes_nothing_else(house: House, segue: Segue) -> None:
    house.open(described(Send("s", Email("hello"))))
    assert "--undo takes the id of a launch" in segue("launch", "j", "--undo", "l").err
    assert "--apply goes with --undo" in (
        segue("launch", "j", "--audience", "everyone", "--apply").err
    )
    said = segue("launch", "j")
    assert said.status == 2
    assert "--audience" in said.err
    assert "there is no launch 'x'" in segue("launch", "--undo", "x").err
