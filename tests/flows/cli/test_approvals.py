"""The commands that list, approve and reject launches."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

import flows.app
import flows.cli.main
from config.clock.times import format_instant
from config.policy import load_policy
from journeys.definition.catalog import Catalog
from journeys.dsl import Email, Send
from tests.support.shop import House, described


class Said(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


Segue = Callable[..., Said]


@pytest.fixture
def segue(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Segue:
    """Run a command on a shop with three customers, in which launches for two or more wait."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[approval]\npeople = 1\nlapses_after = "2d"\n')
    house.open(described(Send("s", Email("hello"))), policy=load_policy(policy))
    for _ in range(3):
        house.customer()

    def catalog(*_: object) -> Catalog:
        return Catalog(house.segue.catalog.current, house.segue.catalog.segments)

    monkeypatch.setenv("SEGUE_DATABASE_URL", house.db.url)
    monkeypatch.setenv("SEGUE_POLICY_FILE", str(policy))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(flows.app, "load_catalog", catalog)

    def run(*arguments: str) -> Said:
        monkeypatch.setenv("SEGUE_NOW", format_instant(house.now))
        monkeypatch.setattr(sys, "argv", ["segue", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        status = 0
        try:
            with house.providers.listening():
                flows.cli.main.main()
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
        return Said(status, *capsys.readouterr())

    return run


def test_a_launch_waits_until_somebody_approves_it(house: House, segue: Segue) -> None:
    assert segue("approvals").out == "no launch has asked for an approval\n"
    said = segue("launch", "j", "--audience", "everyone", "--id", "spring")
    assert said.status == 0
    assert "waits for approval: it is for 3 profiles, which is more than 1\n" in said.out
    assert "the launch would be:\n" in said.out
    assert "3 email" in next(line for line in said.out.split("\n") if line.startswith("planned: "))
    assert house.rows() == []
    listed = segue("approvals").out
    assert "spring" in listed
    assert "everyone (3)" in listed
    assert "2026-03-04T10:00:00Z" in listed
    assert segue("doctor").status == 1

    approved = orjson.loads(segue("approve", "spring", "--as", "ann", "--json").out)
    assert (approved["approved_by"], approved["changed"], approved["entered"]) == ("ann", True, 3)
    assert approved["sent"] == {"email": 3, "sms": 0, "push": 0}
    again = segue("approve", "spring", "--as", "bob")
    assert again == Said(
        0, "ann approved the launch spring already, on 2026-03-02T10:00:00Z.\n", ""
    )
    assert len(house.providers.accepted) == 3
    [one] = orjson.loads(segue("approvals", "--json").out)["approvals"]
    assert (one["state"], one["decided_by"], one["launched"]) == ("approved", "ann", True)
    assert one["summary"]["entered"] == 3


def test_a_rejected_launch_says_why(house: House, segue: Segue) -> None:
    segue("launch", "j", "--audience", "everyone", "--id", "spring")
    assert segue("reject", "spring").status == 2, "it wants a reason"
    said = segue("reject", "spring", "--reason", "wrong price", "--as", "ann")
    assert said == Said(0, "ann rejected the launch spring: wrong price\n", "")
    for command in (
        ("approve", "spring"),
        ("reject", "spring", "--reason", "again"),
        ("launch", "j", "--audience", "everyone", "--id", "spring"),
    ):
        said = segue(*command)
        assert (said.status, said.out) == (1, "")
        assert "the launch 'spring' was rejected by ann: wrong price" in said.err
    assert house.rows() == []


def test_an_audience_that_changed_is_an_error(house: House, segue: Segue) -> None:
    segue("launch", "j", "--audience", "everyone", "--id", "spring")
    house.customer()
    said = segue("approve", "spring")
    assert (said.status, said.out) == (1, "")
    assert "the audience has changed from 3 to 4 profiles" in said.err
