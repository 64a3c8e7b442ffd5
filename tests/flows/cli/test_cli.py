"""The command line: output, exit status, and the errors for invalid input."""

import io
import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from sqlalchemy import select

import flows.app
import flows.cli.main
from channels.messages import messages
from config.database.engine import Database
from config.settings import ROOT
from journeys.enrollments import enrollments
from tests.support.logged import logging_at
from tests.support.shared_data import DATA, needs_orders
from tests.support.shop import Providers

CUSTOMERS = """\
customer_id,email,phone,push_token,country,email_opt_in,sms_opt_in
ann,ann@example.com,+447700900001,token-1,United Kingdom,yes,yes
bob,bob@example.com,,,Germany,yes,no
cleo,,,,European Community,no,no
"""
ORDERS = """\
invoice,customer_id,ordered_at,items,total_gbp,top_item
1,ann,2026-01-10 12:00:00,2,30.50,Lamp
2,bob,2025-06-01 12:00:00,1,10.00,Cup
"""


class Said(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


Segue = Callable[..., Said]


@pytest.fixture
def segue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Segue:
    """Run `segue` with these arguments, on an empty data directory."""
    monkeypatch.setenv("SEGUE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SEGUE_SENDGRID_TEMPLATE_ID", "d-1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"") -> Said:
        monkeypatch.setattr(sys, "argv", ["segue", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        status = 0
        try:
            flows.cli.main.main()
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
        return Said(status, *capsys.readouterr())

    return run


@pytest.fixture
def stocked(segue: Segue, tmp_path: Path) -> Segue:
    """The same with three customers and what two of them bought."""
    (tmp_path / "customers.csv").write_text(CUSTOMERS)
    (tmp_path / "orders.csv").write_text(ORDERS)
    assert segue("import", "customers.csv").status == 0
    orders = (
        '[columns]\nuser_id = "customer_id"\noccurred_at = "ordered_at"\nid = "invoice"\n'
        '[properties]\ntotal = { column = "total_gbp", type = "number" }\n'
    )
    (tmp_path / "orders.toml").write_text('timezone = "UTC"\n' + orders)
    done = segue("import", "orders.csv", "--as-events", "order_completed", "--map", "orders.toml")
    assert done.status == 0, done.err
    return segue


def wrong(said: Said, *parts: str) -> None:
    """One line on standard error with all these parts, nothing on standard output, status 1."""
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("segue: ")
    assert said.err.count("\n") == 1, said.err
    assert [part for part in parts if part not in said.err] == [], said.err


# Bad input ---------------------------------------------------------------------------------------


def test_an_unknown_journey(segue: Segue) -> None:
    wrong(segue("launch", "winback", "--audience", "lapsed"), "no journey 'winback'", "win-back")
    wrong(segue("report", "winback"), "no journey 'winback'", "win-back")


def test_an_unknown_segment(segue: Segue) -> None:
    for more in ([], ["--dry-run"]):
        said = segue("launch", "win-back", "--audience", "lost", *more)
        wrong(said, "no segment 'lost'", "everyone", "lapsed")


def test_a_broken_csv(segue: Segue, tmp_path: Path) -> None:
    file = tmp_path / "customers.csv"
    file.write_bytes(b"\xff\xfe\x00broken")
    wrong(segue("import", "customers.csv"), "customers.csv", "UTF-8")
    file.write_text("")
    wrong(segue("import", "customers.csv"), "customers.csv", "empty")
    wrong(segue("import", "nowhere.csv"), "nowhere.csv", "does not exist")


def test_a_wrong_column_map(segue: Segue, tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text(CUSTOMERS)
    (tmp_path / "map.toml").write_text('[columns]\nuser_id = "id"\n')
    said = segue("import", "customers.csv", "--map", "map.toml")
    wrong(said, "no column 'id'", "map.toml", "customer_id")
    (tmp_path / "map.toml").write_text('[columns]\nname = "customer_id"\n')
    wrong(segue("import", "customers.csv", "--map", "map.toml"), "map.toml", "name")
    (tmp_path / "map.toml").write_text("[columns")
    wrong(segue("import", "customers.csv", "--map", "map.toml"), "map.toml", "not valid TOML")
    wrong(segue("import", "customers.csv", "--map", "nowhere.toml"), "nowhere.toml")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("timezone = 5", ["timezone"]),
        ('timezone = "Mars/Base"', ["Mars/Base", "Europe/London"]),
        ("[channels.email]\nwindows = []", ["channels.email", "remove it to send at all hours"]),
        ('[[caps]]\nchannels = "all"\nlimit = 1', ["caps[0]", "per =", "within ="]),
        ("[channels.fax]", ["channels", "fax"]),
        ("timezone = ", ["not valid TOML"]),
        (None, ["the policy file", "SEGUE_POLICY_FILE"]),
    ],
)
def test_an_invalid_policy_file(
    segue: Segue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    parts: list[str],
) -> None:
    file = tmp_path / "policy.toml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("SEGUE_POLICY_FILE", str(file))
    for command in (["check"], ["launch", "win-back", "--audience", "lapsed"], ["decide", "-"]):
        wrong(segue(*command), "policy.toml", *parts)


def test_a_template_that_does_not_parse(
    segue: Segue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    shutil.copytree(ROOT / "journeys" / "library", library)
    text = library / "win_back" / "we_miss_you.sms.txt"
    text.write_text("Hello {{ profile.name")
    monkeypatch.setenv("SEGUE_LIBRARY", str(library))
    for command in (["check"], ["launch", "win-back", "--audience", "lapsed"]):
        said = segue(*command)
        wrong(said, "journey win-back", "step 'we miss you'", "we_miss_you.sms.txt, line 1")


def test_missing_credentials(
    stocked: Segue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGUE_PROVIDERS", "live")
    launch = ("launch", "win-back", "--audience", "lapsed")
    said = stocked(*launch)
    wrong(said, "SEGUE_PROVIDERS is live", "SEGUE_SECRET_KEY", "SEGUE_PROVIDERS=sandbox")
    wrong(
        said, "SEGUE_PUBLIC_URL is 'http://127.0.0.1:8080'", "SEGUE_SENDGRID_WEBHOOK_KEY is not set"
    )
    doctor = stocked("doctor")
    assert doctor.status == 1
    assert "SEGUE_SENDGRID_WEBHOOK_KEY is not set: SendGrid's events are refused" in doctor.out
    told = orjson.loads(stocked("doctor", "--json").out)["settings"]
    assert any(line.startswith("SEGUE_TWILIO_AUTH_TOKEN is not set") for line in told)
    # nobody was entered by all this
    monkeypatch.setenv("SEGUE_PROVIDERS", "sandbox")
    assert orjson.loads(stocked("report", "win-back", "--json").out)["entered"] == 0


def test_a_database_that_cannot_be_reached(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/segue")
    said = segue("launch", "win-back", "--audience", "lapsed")
    wrong(said, "127.0.0.1:1/segue", "can't be reached", "SEGUE_DATABASE_URL")
    assert "secret" not in said.err
    monkeypatch.setenv("SEGUE_DATABASE_URL", "mysql://127.0.0.1/segue")
    wrong(segue("report", "win-back"), "SQLite and PostgreSQL, not on mysql")
    monkeypatch.setenv("SEGUE_DATABASE_URL", "nonsense")
    wrong(segue("report", "win-back"), "'nonsense' is not a database URL")


def test_an_invalid_setting(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_SANDBOX_PORT", "many")
    wrong(segue("check"), "SEGUE_SANDBOX_PORT", "'many'")


def test_the_simulated_clock(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = ("launch", "win-back", "--audience", "lapsed", "--now")
    wrong(segue(*launch, "tomorrow"), "--now", "2026-03-02T04:30:00Z")
    wrong(segue(*launch, "2026-03-02T04:30:00"), "--now", "no time zone")
    monkeypatch.setenv("SEGUE_PROVIDERS", "live")
    wrong(segue(*launch, "2026-03-02T04:30:00Z"), "sandbox only", "SEGUE_PROVIDERS=sandbox")


def test_a_launch_id_of_another_launch(stocked: Segue) -> None:
    with Providers().listening():
        assert stocked("launch", "win-back", "--audience", "lapsed", "--id", "l").status == 0
        said = stocked("launch", "welcome", "--audience", "lapsed", "--id", "l")
    wrong(said, "the launch 'l' exists, of the journey win-back for lapsed", "another id")


def test_an_unknown_customer(segue: Segue) -> None:
    wrong(
        segue("explain", "nobody@example.com"),
        "no customer has the identifier 'nobody@example.com'",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["launch", "win-back"],
        ["launch", "win-back", "--audience", "lapsed", "--limit", "0"],
        ["launch", "win-back", "--audience", "lapsed", "--limit", "some"],
        ["launch", "win-back", "--audience", "lapsed", "--limit", "10000001"],
        ["launch", "win-back", "--audience", "lapsed", "--limit", "9" * 40],
        ["launch", "win-back", "--audience", "lapsed", "--people", "3"],
        ["no-such-command"],
    ],
)
def test_wrong_usage(segue: Segue, arguments: list[str]) -> None:
    said = segue(*arguments)
    assert (said.status, said.out) == (2, "")
    assert "Usage: segue" in said.err


def test_errors_end_a_real_process_too(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "flows.cli.main",
        "launch",
        "nothing",
        "--audience",
        "everyone",
    ]
    env = {"SEGUE_DATA_DIR": str(tmp_path), "PATH": "", "COLUMNS": "80"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("segue: there is no journey 'nothing'; there are: ")
    assert "Traceback" not in done.stderr


# What it prints -----------------------------------------------------------------------------------


def test_check(segue: Segue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = segue("check")
    assert said.status == 0
    assert "journeys" in said.out
    assert "no errors" in said.out
    (tmp_path / "policy.toml").write_text(
        (ROOT / "config" / "policy.toml").read_text()
        + '\n[[caps]]\nchannels = ["push"]\nlimit = 0\nper = "day"\n'
    )
    monkeypatch.setenv("SEGUE_POLICY_FILE", str(tmp_path / "policy.toml"))
    said = segue("check")
    assert said.status == 0
    assert "a limit of 0 stops all marketing on push" in said.err


def test_importing(segue: Segue, tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text(CUSTOMERS + "dan,no-address,,,France,perhaps,no\n")
    said = segue("import", "customers.csv")
    assert said.status == 0
    assert "4 rows: 3 new, 0 changed, 0 unchanged, 1 refused" in said.out
    assert "customers.csv.refused.csv" in said.out
    assert "Unknown country: 'European Community' (1 rows)" in said.out
    again = orjson.loads(segue("import", "customers.csv", "--json").out)
    assert (again["read"], again["created"], again["unchanged"], again["refused"]) == (4, 0, 3, 1)


def test_an_import_is_tried_first(segue: Segue, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(
        'timezone = "UTC"\ncountry = "Schweiz"\n[columns]\nuser_id = "Kunde"\nseen_at = "Stand"\n'
        '[attributes]\nspent = { column = "Umsatz", type = "number" }\n'
    )
    (tmp_path / "kunden.csv").write_bytes(
        "Kunde;Umsatz;Stand\n1;1,50;13.01.2026\nÖ2;viel;\n3;2;gestern\n".encode("latin-1")
    )
    arguments = ("import", "kunden.csv", "--map", "map.toml", "--dry-run")
    assert segue(*arguments).out.splitlines() == [
        "Read as: encoding windows-1252, most likely (Ö2), delimiter semicolon, times without a "
        "zone in UTC, phone numbers without a country in CH",
        '  Stand: date_order = "day-first"',
        '  Umsatz: decimal = ","',
        "line 2: user_id = 1, seen_at = 2026-01-13T00:00:00Z, attributes.spent = 1.5",
        "line 3: user_id = Ö2",
        "3 rows: 2 can be imported, 1 would be refused",
        "  line 4: Stand: 'gestern' is not a date and time; write it like 2026-03-02T04:30:00Z",
        "1 rows would be accepted without unreadable values:",
        "  Umsatz (1 rows): line 3: 'viel' is not a number; write it like 1234,5",
        "Nothing was written. Without --dry-run the file is imported",
    ]
    tried = orjson.loads(segue(*arguments, "--json").out)
    assert (tried["dry_run"], tried["created"]) == (True, 0)
    assert tried["first_rows"][1] == {"place": "line 3", "user_id": "Ö2"}
    assert tried["unreadable"]["Umsatz"]["rows"] == 1
    done = orjson.loads(segue(*arguments[:-1], "--json").out)
    assert (done["created"], done["refused"], done["taken_in_part"]) == (2, 1, 1)


def test_launching(stocked: Segue) -> None:
    arguments = ("launch", "win-back", "--audience", "lapsed", "--now", "2026-04-20T10:00:00Z")
    rehearsed = orjson.loads(stocked(*arguments, "--dry-run", "--json").out)
    with Providers().listening():
        launched = orjson.loads(stocked(*arguments, "--id", "l", "--json").out)
        again = stocked(*arguments, "--id", "l")
    # Ann's and Bob's orders are old; Cleo never ordered. Push and text follow later.
    assert (launched["journey"], launched["audience"]) == ("win-back", "lapsed")
    assert (launched["launch"], launched["entered"]) == ("l", 2)
    assert launched["sent"] == {"email": 2, "sms": 0, "push": 0}
    assert launched["planned"] == {"email": 0, "sms": 1, "push": 1}
    assert launched["not_sent"] == {"no_address": 2}
    assert (rehearsed["dry_run"], rehearsed["not_sent"]) == (True, {"no_address": 2})
    assert rehearsed["planned"] == {"email": 2, "sms": 1, "push": 1}
    assert again.status == 0
    assert "entered: 2" in again.out
    assert "sent: 2 email, 0 sms, 0 push" in again.out

    said = stocked("explain", "bob")
    assert "win-back / we miss you: It was sent." in said.out
    assert "The customer has no device on record." in said.out
    for spelling in ("ann@example.com", " Ann@EXAMPLE.com", "+44 7700 900001", "ann"):
        told = orjson.loads(stocked("explain", spelling, "--json").out)
        channels = [one["channel"] for one in told if one["message"] is not None]
        assert channels == ["email", "push", "sms"]
        standing = {one["journey"]: one for one in told if one["message"] is None}
        assert set(standing["win-back"]) > set(told[0]) - {"devices"}
        assert standing["win-back"]["state"] == "waiting"
        assert standing["cart-recovery"]["reason"] == "no_event"
        assert {one["timezone"] for one in standing.values()} == {"Europe/London"}
    # nobody gets no answer: who has no message is told about each journey
    said = stocked("explain", "cleo")
    assert said.out.startswith("Times are in the zone ")
    assert "win-back: Never in it. The customer is not in the segment lapsed." in said.out
    assert said.out.endswith("No message to the customer was planned.\n")
    counted = orjson.loads(stocked("report", "win-back", "--json").out)
    assert (counted["entered"], counted["active"]) == (2, 2)
    assert "2 entered, 2 active, 0 converted" in stocked("report", "win-back").out


# Decide -------------------------------------------------------------------------------------------

GOOD = {
    "id": "c1",
    "now": "2026-03-02T04:30:00Z",
    "policy": {
        "channels": {"email": {"windows": [{"days": "mon-sun", "from": "08:00", "to": "21:00"}]}}
    },
    "profile": {"timezone": "Europe/Berlin", "addresses": {"email": "a@example.com"}},
    "send": {"messages": [{"channel": "email", "topic": "promotions"}]},
}
ANSWER = {
    "channel": "email",
    "outcome": "send",
    "send_at": "2026-03-02T07:00:00Z",
    "reason": None,
    "rule": None,
    "timezone": "Europe/Berlin",
    "timezone_source": "profile",
}


def lines(*cases: Any) -> bytes:
    return b"\n".join(case if isinstance(case, bytes) else orjson.dumps(case) for case in cases)


def test_decide(segue: Segue, tmp_path: Path) -> None:
    said = segue("decide", "-", stdin=lines(GOOD, b"", {**GOOD, "id": 2}))
    assert (said.status, said.err) == (0, "")
    assert [orjson.loads(line) for line in said.out.splitlines()] == [
        {"id": "c1", "decisions": [ANSWER]},
        {"id": 2, "decisions": [ANSWER]},
    ]
    (tmp_path / "cases.jsonl").write_bytes(lines(GOOD))
    assert segue("decide", "cases.jsonl").out == said.out.splitlines()[0] + "\n"
    wrong(segue("decide", "nowhere.jsonl"), "nowhere.jsonl", "No such file")
    assert segue("decide", "-") == Said(0, "", "")


def test_decide_answers_the_others_when_one_is_malformed(segue: Segue) -> None:
    cases = (
        b"{not json",
        GOOD,
        b"[1]",
        {**GOOD, "id": "no-now", "now": "soon"},
        {**GOOD, "id": "odd", "send": {"messages": [{"channel": "fax"}]}},
        {**GOOD, "id": "policy", "policy": {"caps": [{"channels": "all", "limit": -1}]}},
        {**GOOD, "id": "more", "hello": 1},
        b"\xff\xfe",
        {**GOOD, "id": "last"},
    )
    said = segue("decide", "-", stdin=lines(*cases))
    assert said.status == 1
    answers = [orjson.loads(line) for line in said.out.splitlines()]
    assert [(one["id"], one.get("line")) for one in answers] == [
        (None, 1), ("c1", None), (None, 3), ("no-now", 4), ("odd", 5), ("policy", 6), ("more", 7),
        (None, 8), ("last", None),
    ]  # fmt: skip
    told = {one["line"]: one["error"] for one in answers if "error" in one}
    assert "a case is a JSON object" in told[3]
    assert "now: 'soon' is not a date and time" in told[4]
    assert "send.messages[0].channel" in told[5]
    assert "caps[0]" in told[6]
    assert "hello" in told[7]
    assert answers[-1]["decisions"] == [ANSWER]


def test_decide_answers_the_others_when_one_is_nested_too_deeply(segue: Segue) -> None:
    deep = b"[" * 300 + b"]" * 300
    policy = orjson.dumps({**GOOD, "id": "deep", "policy": {"timezone": "HERE"}})
    unsayable = orjson.dumps({**GOOD, "id": "HERE"})
    nested = [case.replace(b'"HERE"', deep) for case in (policy, unsayable)]
    said = segue("decide", "-", stdin=lines(*nested, GOOD))
    assert said.status == 1
    answers = [orjson.loads(line) for line in said.out.splitlines()]
    assert [(one["id"], one.get("line")) for one in answers] == [
        ("deep", 1), (None, 2), ("c1", None),
    ]  # fmt: skip


def test_lift_answers_in_order_and_names_the_line_of_an_invalid_case(segue: Segue) -> None:
    case = {"kind": "proportion", "control": [28, 14], "arm": [30, 16]}
    said = segue("lift", "-", stdin=lines(case, b"", {**case, "arm": [30]}, b"{", case))
    assert said.status == 1
    answers = [orjson.loads(line) for line in said.out.splitlines()]
    assert answers[0] == answers[3]
    assert [round(one, 5) for one in answers[0]["absolute_fixed"][1]] == [-0.22961, 0.29628]
    assert [one["line"] for one in answers[1:3]] == [3, 4]
    assert answers[1]["error"] == "arm: it must be a list [people, conversions]"
    assert segue("lift", "-", stdin=lines(case)).status == 0
    wrong(segue("lift", "nowhere.jsonl"), "nowhere.jsonl", "No such file")


# Experiments --------------------------------------------------------------------------------------


def test_an_experiment_is_reported_planned_and_promoted(stocked: Segue) -> None:
    report = orjson.loads(stocked("experiment", "welcome", "which nudge", "--json").out)
    assert [one["arm"] for one in report["arms"]] == ["holdout", "bestsellers", "guide"]
    assert {one["people"] for one in report["arms"]} == {0}
    assert report["sample_ratio_p"] == 1
    shown = stocked("experiment", "welcome", "which nudge").out
    assert "guide against holdout: nothing can be said yet" in shown

    size = ("--people", "20000", "--rate", "0.02")
    assert "however often one looks" in stocked("experiment", "welcome", "which nudge", *size).out
    plan = orjson.loads(stocked("experiment", "welcome", "which nudge", *size, "--json").out)
    assert (plan["control"], plan["arm"]) == (2000, 9000)
    assert 0 < plan["smallest_fixed"] < plan["smallest_sequential"]

    promote = ("experiment", "welcome", "which nudge", "--promote")
    done = orjson.loads(stocked(*promote, "guide", "--json").out)
    assert (done["journey"], done["promoted"]) == ("welcome", "guide")
    assert done["version"] in stocked(*promote, "guide").out
    assert "guide is promoted" in stocked("experiment", "welcome", "which nudge").out


def test_what_is_no_experiment_is_refused(segue: Segue) -> None:
    wrong(segue("experiment", "welcome", "hello"), "no experiment 'hello'", "'which nudge'")
    wrong(segue("experiment", "nothing", "hello"), "there is no journey 'nothing'")
    wrong(segue("experiment", "welcome", "which nudge", "--promote", "c"), "no arm 'c'")
    wrong(segue("experiment", "welcome", "which nudge", "--people", "9"), "give --rate")
    both = ("--people", "9", "--promote", "guide")
    wrong(segue("experiment", "welcome", "which nudge", *both), "not both")


def test_the_yardstick_by_quarter_year_and_segment(
    stocked: Segue, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = orjson.loads(stocked("yardstick", "--json").out)
    assert "2 orders without a number as their amount are left out" in unread["left_out"]
    monkeypatch.setenv("SEGUE_REVENUE_AMOUNT", "total")
    shown = orjson.loads(stocked("yardstick", "--from", "2025-04-01", "--json").out)
    periods = {one["period"]: one for one in shown["periods"]}
    assert next(iter(periods)) == "2025 Q2"
    assert periods["2025"]["measures"][0] == {
        **{"measure": "revenue", "unit": "GBP", "total": 10.0, "difference": None},
        "all": {"people": 1, "each": 10.0},
        "held_out": {"people": 0, "each": None},
        "others": {"people": 1, "each": 10.0},
    }
    by_segment = stocked("yardstick", "--by-segment").out
    assert "best-customers" in by_segment
    assert "nobody is in the holdout" in by_segment
    wrong(stocked("yardstick", "--from", "spring"), "'spring' is not a day")


# The real customers -------------------------------------------------------------------------------


@needs_orders
def test_every_real_customer_has_a_row_for_every_channel(segue: Segue, tmp_path: Path) -> None:
    for name in ("customers.csv", "orders.csv"):
        shutil.copyfile(DATA / name, tmp_path / name)
    assert segue("import", "customers.csv").status == 0
    assert segue("import", "orders.csv", "--as-events", "order_completed").status == 0
    providers = Providers()
    with providers.listening():
        launched = segue(
            *("launch", "win-back", "--audience", "lapsed", "--json"),
            *("--now", "2011-12-10T10:00:00Z", "--id", "l"),
        )
    assert (launched.status, launched.err) == (0, "")
    told = orjson.loads(launched.out)
    db = Database(f"sqlite:///{tmp_path / 'data' / 'segue.db'}")
    with db.transaction(write=False) as tx:
        entered = set(tx.conn.execute(select(enrollments.c.profile_id)).scalars())
        rows = tx.conn.execute(select(messages)).all()
    db.close()
    # the same from the file alone: who ordered, and not since 11 September
    last: dict[str, str] = {}
    with (DATA / "orders.csv").open(encoding="utf-8") as file:
        for line in list(file)[1:]:
            _invoice, customer, at = line.split(",")[:3]
            last[customer] = max(last.get(customer, ""), at)
    lapsed = [at for at in last.values() if at < "2011-09-11T10:00"]
    assert told["entered"] == len(entered) == len(lapsed) > 1000
    by_person = Counter((row.profile_id, row.channel) for row in rows)
    assert by_person == {
        (one, channel): 1 for one in entered for channel in ("email", "sms", "push")
    }
    assert all(row.reason for row in rows if row.state not in ("planned", "sent"))
    sent = Counter(row.channel for row in rows if row.state == "sent")
    assert told["sent"] == {channel: sent[channel] for channel in ("email", "sms", "push")}
    assert Counter(one.channel for one in providers.accepted) == sent
    assert sum(told["not_sent"].values()) + sum(told["planned"].values()) + sent.total() == len(
        rows
    )
    assert sent["email"] > 900


# The worker's log --------------------------------------------------------------------------------


def test_a_worker_logs_json_even_at_its_end(segue: Segue, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(*_: object) -> None:
        logging.getLogger("flows.worker.worker").info("it begins")
        raise KeyError("ann@example.com")

    monkeypatch.setattr("flows.worker.worker.Worker.run", dies)
    with logging_at("info"):
        said = segue("work")
    assert said.status == 1
    begins, ends = map(orjson.loads, said.err.splitlines())
    assert (begins["level"], begins["message"]) == ("info", "it begins")
    assert ends["level"] == "critical"
    assert ends["message"].startswith("the worker stops: KeyError at ")
    assert "@" not in said.err
