"""The command line prints foreign text unchanged, except characters that control a terminal.

Every command prints rich markup, escape sequences and direction marks from each place where a
customer, a provider or a file can put them.
"""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, update

import flows.app
import flows.cli.main
from channels.messages import messages
from config.clock.times import MINUTE, format_instant
from flows.cli.output import json_line, show_table, shown
from journeys.definition.catalog import Catalog
from journeys.dsl import SMS, Email, Send, Wait
from journeys.enrollments import enrollments
from journeys.operations.doctor import LATE
from profiles.tables import events
from tests.support.providers.feedback_shop import NEWS
from tests.support.shop import MONDAY, House, described

MARKUP = "[/red][bold]:warning:[link=x.example]"
CONTROLS = "\x1b[31m\x07\x9b2J\x7f\x85\u202e\u2066\u200b\ufeff\u2028\n\r\t"
STEERING = {letter for letter in CONTROLS if not letter.isprintable()}
HOSTILE = f"a{MARKUP}{CONTROLS}z"
ESCAPED = f"a{MARKUP}" + r"\x1b[31m\x07\x9b2J\x7f\x85\u202e\u2066\u200b\ufeff\u2028\n\r\t" + "z"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def segue(
    sqlite_house: House,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command on the shop's database; its output must not control the terminal."""

    def catalog(*_: object) -> Catalog:
        return Catalog(sqlite_house.segue.catalog.current, sqlite_house.segue.catalog.segments)

    monkeypatch.setenv("SEGUE_DATABASE_URL", sqlite_house.db.url)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(flows.app, "load_catalog", catalog)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setenv("SEGUE_NOW", format_instant(sqlite_house.now))
        monkeypatch.setattr(sys, "argv", ["segue", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        status = 0
        try:
            flows.cli.main.main()
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 1
        out, err = capsys.readouterr()
        assert set(out + err) & STEERING <= {"\n"}
        return status, out, err

    return run


@pytest.fixture
def house(sqlite_house: House) -> House:
    """Ann in a journey, with hostile text in every place that others can write."""
    house = sqlite_house
    house.open(described(Send("s", Email("hello"), SMS("hello", after="1h")), Wait("9d")))
    ann = house.customer("ann")
    house.launch("j")
    with house.db.transaction() as tx:
        tx.conn.execute(update(messages).values(reason=HOSTILE, state="failed"))
        tx.conn.execute(update(enrollments).values(step=HOSTILE, attempts=1))
        event = {"profile_id": ann, "name": HOSTILE, "occurred_at": MONDAY, "received_at": MONDAY}
        tx.conn.execute(insert(events).values(**event, properties={}, dedupe_key="e1"))
    house.db.now = MONDAY + LATE + MINUTE
    return house


@pytest.mark.usefixtures("house")
def test_reasons_of_providers(segue: Run) -> None:
    status, out, _ = segue("explain", "ann")
    assert (status, out.count("\n")) == (0, 4)  # the zone, the journey, two messages
    assert out.count(ESCAPED) == 3
    status, out, _ = segue("report", "j")
    assert status == 0
    assert ESCAPED.partition(":")[0] in out  # it counts by the code before the colon
    status, out, _ = segue("explain", "ann", "--json")
    assert (status, out.count("\n")) == (0, 1)
    assert [row["reason"] for row in orjson.loads(out)] == [HOSTILE, HOSTILE, "due"]


@pytest.mark.usefixtures("house")
def test_names_of_events_and_steps(segue: Run) -> None:
    status, out, _ = segue("doctor")
    assert status == 1
    assert f"unprocessed events: 1 ({ESCAPED})" in out
    assert f"failing steps: 1 (j / {ESCAPED})" in out
    assert segue("doctor", "--json")[0] == 1
    assert segue("resolve", "failed")[0] == 0


def test_a_table_of_steps(sqlite_house: House, segue: Run) -> None:
    sqlite_house.open(described(Wait("9d", name=HOSTILE)))
    sqlite_house.customer("ann")
    sqlite_house.launch("j")
    sqlite_house.open(described(Wait("9d", name="another")))
    status, out, _ = segue("migrate", "j")
    assert status == 0
    assert ESCAPED in out


@pytest.mark.usefixtures("house")
@pytest.mark.parametrize(
    "command",
    [
        ["explain", HOSTILE],
        ["report", HOSTILE],
        ["launch", HOSTILE, "--audience", "everyone"],
        ["launch", "j", "--audience", HOSTILE],
        ["launch", "j", "--audience", HOSTILE, "--dry-run"],
        ["launch", "j", "--audience", "everyone", "--now", HOSTILE],
        ["import", HOSTILE],
        ["import", "people.csv", "--map", HOSTILE],
        ["decide", HOSTILE],
        *([command, HOSTILE] for command in ("pause", "resume", "stop", "migrate")),
    ],
)
def test_errors_show_user_input_without_markup(
    segue: Run, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "people.csv").write_text("customer_id\n")
    status, out, err = segue(*command)
    assert (status, out) == (1, "")
    assert err.startswith("segue: ")
    assert err.count("\n") == 1
    assert MARKUP in err


@pytest.mark.usefixtures("house")
@pytest.mark.parametrize("command", [["resolve", MARKUP], [MARKUP], ["doctor", f"--{MARKUP}"]])
def test_usage_errors_show_input_without_markup(segue: Run, command: list[str]) -> None:
    status, out, err = segue(*command)
    assert (status, out) == (2, "")
    assert "[/red]" in err


@pytest.mark.parametrize("name", ["people.csv", f"{MARKUP.replace('/', '')}[].csv"])
def test_cells_of_a_file(sqlite_house: House, segue: Run, tmp_path: Path, name: str) -> None:
    sqlite_house.open(NEWS)
    (tmp_path / "map.toml").write_text(
        '[columns]\nuser_id = "id"\nemail = "email"\ncountry = "land"\ntimezone = "zone"\n'
    )
    cell = HOSTILE.replace("\n", "").replace("\r", "").replace('"', "")
    (tmp_path / name).write_text(
        f"id,email,land,zone,{cell}\n1,,{cell},,\n2,,,{cell},\n{cell},{cell},,,\n",
        encoding="utf-8",
        newline="",
    )
    status, out, err = segue("import", name, "--map", "map.toml")
    assert (status, err) == (0, "")
    assert "3 rows: 3 new, 0 changed, 0 unchanged, 0 refused" in out
    assert out.count(MARKUP) >= 2
    status, out, _ = segue("import", name, "--map", "map.toml", "--json")
    assert status == 0
    assert list(orjson.loads(out)["unknown_countries"]) == [cell]
    # an error names the columns there are
    (tmp_path / "map.toml").write_text('[columns]\nuser_id = "nobody"\n')
    status, _, err = segue("import", name, "--map", "map.toml")
    assert status == 1
    assert MARKUP in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("house")
def test_cases_for_the_planner(segue: Run) -> None:
    cases = [
        {"id": HOSTILE, "now": HOSTILE, "profile": {}, "send": {"messages": []}},
        {"id": HOSTILE, HOSTILE: 1},
        {
            "id": HOSTILE,
            "now": "2026-03-02T04:30:00Z",
            "profile": {"timezone": HOSTILE, "country": HOSTILE},
            "send": {"messages": [{"channel": "email", "topic": HOSTILE}]},
        },
    ]
    status, out, _ = segue("decide", "-", stdin=b"\n".join(map(orjson.dumps, cases)))
    answers = [orjson.loads(line) for line in out.splitlines()]
    assert (status, [answer["id"] for answer in answers]) == (1, [HOSTILE] * 3)


def test_a_policy_with_a_hostile_topic(
    sqlite_house: House, segue: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_house.open(NEWS)
    (tmp_path / "policy.toml").write_text(f'["{MARKUP}\\u001b[31m"]\nx = 1\n')
    monkeypatch.setenv("SEGUE_POLICY_FILE", str(tmp_path / "policy.toml"))
    status, _, err = segue("check")
    assert status == 1
    assert MARKUP in err


def test_a_terminal_without_unicode_ends_no_command(
    sqlite_house: House, segue: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_house.open(NEWS)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reading, os.fdopen(write, "w", encoding="ascii") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        segue("explain", "Zoë")
        terminal.close()
        assert b"no customer has the identifier 'Zo\\xeb'" in reading.read()


@given(st.text())
def test_control_characters_are_escaped_and_json_keeps_its_values(text: str) -> None:
    assert not set(shown(text)) & STEERING
    line = json_line({"said": text}).decode()
    assert not set(line.removesuffix("\n")) & STEERING
    assert orjson.loads(line) == {"said": text}


def test_tags_and_surrogates_are_escaped() -> None:
    assert shown("\U000e0041\ud800") == r"\U000e0041\ud800"
    assert orjson.loads(json_line("\U000e0041")) == "\U000e0041"
    assert shown("Zoë, 東京, 👋🏽, שלום") == "Zoë, 東京, 👋🏽, שלום"


def test_a_table_too_wide_for_the_terminal_is_printed_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    headings, rows = ("channel", "unsubscribed"), [("e-mail", "3 (0.1 %)"), ("SMS", "0")]
    monkeypatch.setenv("COLUMNS", "20")
    show_table(headings, rows, title="Objections")
    assert capsys.readouterr().out.splitlines() == [
        "Objections",
        "  channel: e-mail",
        "  unsubscribed: 3 (0.1 %)",
        "",
        "  channel: SMS",
        "  unsubscribed: 0",
    ]
    monkeypatch.setenv("COLUMNS", "40")
    show_table(headings, rows)
    assert "│ e-mail  │ 3 (0.1 %)    │" in capsys.readouterr().out
