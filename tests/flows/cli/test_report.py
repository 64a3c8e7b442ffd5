"""`segue report`: its table, JSON and CSV, and what it says about wrong input and no data."""

import csv
import io
from typing import Any

import orjson
import pytest

from channels.feedback.apply import apply
from channels.providers.webhook import Feedback
from config.settings import ROOT
from journeys.analytics.reports.kept import keep_report
from journeys.analytics.reports.period import ever
from journeys.analytics.revenue import RevenueMapping
from journeys.dsl import SMS, Email, Experiment, Goal, Journey, OnEvent, Send, Wait, arm, days, did
from tests.support.commands import Segue
from tests.support.shop import House, described


def welcome() -> Journey:
    return described(
        Send("hello", Email("hello"), SMS("hello")),
        Experiment(
            "tone",
            arm("warm", 1, [Send("warm mail", Email("offer"))]),
            arm("cool", 1, [Send("cool mail", Email("offer"))]),
        ),
        Wait("30d", "rest"),
        name="welcome",
        entry=OnEvent("came"),
        goal=Goal(did=did("order_completed"), within=days(7)),
    )


def reported(house: House, kind: Any, message_id: int, **more: Any) -> None:
    with house.db.transaction() as tx:
        feedback = Feedback(
            id=f"{kind} {message_id} {house.now}",
            source="sendgrid",
            channel="email",
            kind=kind,
            message_id=message_id,
            **more,
        )
        apply(tx, [feedback])


@pytest.fixture
def shop(house: House) -> House:
    """Three customers came; one opened, clicked and ordered, one complained."""
    house.open(welcome())
    people = [house.customer(name) for name in ("ann", "bob", "cyd")]
    for person in people:
        house.did(person, "came")
    house.run()
    house.later("1h")
    mails = [row for row in house.rows() if row.step == "hello" and row.channel == "email"]
    reported(house, "opened", mails[0].id)
    reported(house, "clicked", mails[0].id, properties={"url": "https://shop.example/tents?c=1"})
    reported(house, "machine_opened", mails[1].id)
    reported(house, "complained", mails[2].id)
    house.did(people[0], "order_completed", total_gbp=12.5)
    house.run()
    return house


def test_the_table_has_the_funnel_the_reactions_and_the_method(segue: Segue, shop: House) -> None:
    del shop
    said = segue("report", "welcome")
    assert said.status == 0
    assert "3 entered, 3 active, 1 converted" in said.out
    for heading in (
        *("Results", "Objections and refusals", "Funnel", "Clicked links"),
        *("E-mails by mailbox provider", "Messages by state and reason"),
    ):
        assert heading in said.out
    assert "Counted: all entries, ever, up to 2026-03-02T11:00:00Z" in said.out
    assert "https://shop.example/tents" in said.out
    assert "not known" in said.out, "opens of texts"
    assert "12.50" in said.out
    assert "an order (order_completed) counts for the customer's last message" in said.out


def test_the_json_has_the_old_keys_and_the_new_ones(segue: Segue, shop: House) -> None:
    del shop
    found = orjson.loads(segue("report", "welcome", "--json").out)
    assert (found["entered"], found["active"], found["converted"]) == (3, 3, 1)
    assert found["sent"] == {"email": 6, "sms": 3}
    for key in ("ended", "unknown", "returned", "planned", "not_sent"):
        assert found[key] == {}
    assert found["closed_as_unknown"] == 0
    [mail, text, *_] = found["groups"]
    assert (mail["step"], mail["channel"], mail["sent"]) == ("hello", "email", 3)
    assert (mail["opened"], mail["machine_opened"], mail["clicked"]) == (1, 1, 1)
    assert (mail["complained"], mail["returned"], mail["not_sent"]) == (1, 0, 0)
    assert text["opened"] is None
    assert found["total"]["revenue"] == 12.5
    assert found["total"]["orders"] == 1
    assert [step["reached"] for step in found["steps"][:2]] == [3, 3]
    assert found["links"] == [
        {
            "step": "hello",
            "channel": "email",
            "url": "https://shop.example/tents",
            "clicked": 1,
        }
    ]
    [others] = found["mailboxes"]
    assert others["verdict"] == (
        "1 (16.67%): at or above 0.3%, where mails are refused (in fewer than 1,000 mails one "
        "complaint is enough)"
    )
    assert found["timezone"] == "Europe/London"
    assert found["goal_within_seconds"] == 7 * 86400


@pytest.mark.parametrize(
    ("by", "columns", "groups"),
    [
        ("step", ["step", "channel"], 4),
        ("arm", ["experiment", "arm"], None),
        ("channel", ["channel"], 2),
        ("segment", ["segment"], 1),
        ("week", ["week"], 1),
        ("launch", ["launch"], 1),
    ],
)
def test_each_grouping_is_a_table_json_and_csv(
    segue: Segue, shop: House, by: str, columns: list[str], groups: int | None
) -> None:
    del shop
    rows = list(csv.DictReader(io.StringIO(segue("report", "welcome", "--by", by, "--csv").out)))
    assert list(rows[0])[: len(columns)] == columns
    found = orjson.loads(segue("report", "welcome", "--by", by, "--json").out)["groups"]
    assert len(rows) == len(found)
    assert groups in (None, len(rows))
    for row, one in zip(rows, found, strict=True):
        assert row["sent"] == str(one["sent"])
        assert row["opened"] == ("not known" if one["opened"] is None else str(one["opened"]))
    assert sum(int(row["sent"]) for row in rows) == (3 if by == "arm" else 9)
    assert columns[0] in segue("report", "welcome", "--by", by).out


def test_a_period_counts_its_days_only(segue: Segue, shop: House) -> None:
    shop.later("8d")
    shop.did(shop.customer("dan"), "came")
    shop.run()
    march = segue("report", "welcome", "--from", "2026-03-09", "--to", "2026-03-31", "--json").out
    found = orjson.loads(march)
    assert (found["entered"], found["sent"]) == (1, {"email": 2, "sms": 1})
    assert (found["from"], found["to"]) == ("2026-03-09", "2026-03-31")
    weeks = orjson.loads(segue("report", "welcome", "--by", "week", "--json").out)["groups"]
    assert [(one["week"], one["entered"]) for one in weeks] == [
        ("2026-03-02", 3),
        ("2026-03-09", 1),
    ]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--from", "2026-03-31", "--to", "2026-03-01"], "is after --to 2026-03-01"),
        (["--from", "yesterday"], "--from: 'yesterday' is not a date"),
        (["--from", "2030-01-01"], "is in the future: today is 2026-03-02 in Europe/London"),
        (["--csv", "--json"], "give --csv or --json, not both"),
    ],
)
def test_wrong_options_are_one_line_of_text(
    segue: Segue, shop: House, options: list[str], why: str
) -> None:
    del shop
    said = segue("report", "welcome", *options)
    assert (said.status, said.out) == (1, "")
    assert why in said.err
    assert len(said.err.splitlines()) == 1


def test_without_data_it_says_why(segue: Segue, house: House) -> None:
    house.open(welcome(), described(Send("x", Email("hello")), name="plain"))
    assert "Nobody has entered welcome yet. It is entered by event came." in (
        segue("report", "welcome").out
    )
    assert "no journey 'wellcome'" in segue("report", "wellcome").err
    assert "no experiment" in segue("report", "plain", "--by", "arm").err
    found = orjson.loads(segue("report", "welcome", "--json").out)
    assert found["empty"].startswith("Nobody has entered welcome yet.")
    assert found["groups"] == []
    assert "Nobody has entered" in segue("report", "welcome", "--csv").err


def test_the_commands_of_the_page_work(segue: Segue, house: House) -> None:
    """The commands of docs/marketer/reports.md, on a journey of that name."""
    house.open(welcome().model_copy(update={"name": "win-back"}))
    house.did(house.customer(), "came")
    house.run()
    house.later("40d")
    page = (ROOT / "docs" / "marketer" / "reports.md").read_text(encoding="utf-8")
    commands = page.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert len(commands) == 5
    for command in commands:
        name, *arguments = command.split()
        assert name == "segue"
        said = segue(*arguments)
        assert (said.status, said.err) == (0, ""), command
        assert said.out


def test_a_kept_report_is_shown_unless_it_shall_be_counted_now(segue: Segue, shop: House) -> None:
    mapping = RevenueMapping.of(shop.segue.settings)
    keep_report(shop.db, shop.segue.catalog, "welcome", mapping, ever(shop.segue.policy.timezone))
    late = shop.customer("dan")
    shop.did(late, "came")
    shop.run()
    said = segue("report", "welcome").out
    assert "3 entered" in said
    assert "A worker counted this" in said
    now = segue("report", "welcome", "--now").out
    assert "4 entered" in now
    assert "A worker counted this" not in now
    assert "4 entered" in segue("report", "welcome", "--by", "week").out
