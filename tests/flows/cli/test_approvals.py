"""The commands that list, approve and reject launches."""

from pathlib import Path

import orjson
import pytest

from config.policy import load_policy
from journeys.dsl import Email, Send
from tests.support.commands import Said, Segue, commands
from tests.support.shop import House, described


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

    monkeypatch.setenv("SEGUE_POLICY_FILE", str(policy))
    return commands(house, monkeypatch, capsys)


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
