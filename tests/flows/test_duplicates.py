"""Profiles that are one person are suggested, joined or refused, from the command to Prefect."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from benchmarks.support.duplicates import COLUMNS, people
from config.errors import SegueError
from config.matching_rules import MatchingRules
from config.policy import Policy, load_policy
from flows.duplicates import accept, find_duplicates, refuse
from flows.orchestration import duplicates_flow as module
from flows.orchestration.deployments import deployments
from flows.orchestration.names import DUPLICATES
from journeys.dsl import Exit
from profiles.duplicates import suggestions
from profiles.tables import consents, merges, profiles
from tests.support.commands import Segue, commands
from tests.support.shop import House, described

_ATTRIBUTES = {"given_name": "first_name", "surname": "last_name", "birth_date": "birthday"}


@pytest.fixture
def stocked(house: House) -> dict[int, str]:
    """A shop with 150 people, some of them twice. Returns the person of each profile."""
    house.open(described(Exit("out", "over")))
    whose: dict[int, str] = {}
    for at, (person, cells) in enumerate(people(150)):
        stated = {
            _ATTRIBUTES.get(column, column): cell
            for column, cell in zip(COLUMNS, cells, strict=True)
            if cell and column not in ("email", "phone")
        }
        whose[house.customer(f"shopper{at}", attributes=stated, user_id=None)] = person
    return whose


def _profiles(house: House) -> int:
    with house.db.transaction(write=False) as tx:
        return len(tx.conn.execute(select(profiles.c.id)).all())


def test_pairs_are_suggested_with_their_weights(house: House, stocked: dict[int, str]) -> None:
    found = find_duplicates(house.segue)
    assert found.profiles == len(stocked)
    assert found.joined == 0
    assert _profiles(house) == len(stocked)
    right = [one for one in found.suggested if stocked[one.left_id] == stocked[one.right_id]]
    assert len(right) >= 0.9 * len(found.suggested) > 0
    assert len(right) >= 0.8 * (len(stocked) - 150)
    for one in found.suggested:
        assert sum(weight for _, _, weight in one.bars) == pytest.approx(one.weight)
        assert one.probability >= 0.9
    with house.db.transaction(write=False) as tx:
        assert [one.id for one in suggestions(tx)] == [one.id for one in found.suggested]


def test_accepted_pairs_are_joined_without_the_opt_ins(
    house: House, stocked: dict[int, str]
) -> None:
    one = find_duplicates(house.segue).suggested[0]
    accept(house.segue, one.id, "yan")
    with house.db.transaction(write=False) as tx:
        assert one.id not in [other.id for other in suggestions(tx)]
        [joined] = tx.conn.execute(select(merges.c.from_id, merges.c.into_id, merges.c.why)).all()
        left = tx.conn.execute(
            select(consents.c.profile_id).where(consents.c.profile_id == one.right_id)
        ).all()
    assert tuple(joined) == (one.right_id, one.left_id, "duplicate")
    assert left == []
    with pytest.raises(SegueError, match=f"{one.id} was accepted by yan"):
        refuse(house.segue, one.id, "zoe")


def test_a_refused_pair_is_never_suggested_again(house: House, stocked: dict[int, str]) -> None:
    before = find_duplicates(house.segue).suggested
    refuse(house.segue, before[0].id, "yan")
    after = find_duplicates(house.segue).suggested
    assert {one.id for one in after} == {one.id for one in before[1:]}


def test_the_policy_joins_what_is_nearly_certain(house: House, stocked: dict[int, str]) -> None:
    sure = MatchingRules(suggest_from=0.9, join_from=0.999)
    house.open(described(Exit("out", "over")), policy=Policy(matching=sure))
    found = find_duplicates(house.segue)
    assert found.joined > 0
    assert _profiles(house) == len(stocked) - found.joined
    with house.db.transaction(write=False) as tx:
        gone = set(tx.conn.execute(select(merges.c.from_id)).scalars())
    assert not gone & {one.left_id for one in found.suggested}


def test_two_user_ids_are_joined_by_a_person_only(house: House) -> None:
    sure = MatchingRules(suggest_from=0.5, join_from=0.5)
    house.open(described(Exit("out", "over")), policy=Policy(matching=sure))
    for at, (_, cells) in enumerate(people(60)):
        named = dict(zip(COLUMNS, cells, strict=True))
        stated = {_ATTRIBUTES.get(name, name): cell for name, cell in named.items() if cell}
        house.customer(f"shopper{at}", attributes=stated)
    found = find_duplicates(house.segue)
    assert found.suggested
    assert found.joined == 0


def test_an_empty_shop_has_no_duplicates(house: House) -> None:
    house.open(described(Exit("out", "over")))
    assert find_duplicates(house.segue).suggested == []
    house.customer()
    assert find_duplicates(house.segue).suggested == []


@pytest.mark.parametrize("name", ["1-2", "x", "1", "-", "²-1", "9" * 30 + "-1"])
def test_an_unknown_suggestion(house: House, name: str) -> None:
    house.open(described(Exit("out", "over")))
    with pytest.raises(SegueError, match="there is no suggestion"):
        accept(house.segue, name, "yan")


def test_the_commands(
    house: House,
    stocked: dict[int, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    segue: Segue = commands(house, monkeypatch, capsys)
    assert "no suggestion waits" in segue("duplicates").out
    assert f"{len(stocked)} profiles: " in segue("duplicates", "find").out
    found = json.loads(segue("duplicates", "--json").out)["duplicates"]
    first, second = found[0]["id"], found[1]["id"]
    assert first in segue("duplicates").out
    assert "is now part of profile" in segue("duplicates", "accept", first).out
    assert "are not suggested again" in segue("duplicates", "refuse", second).out
    wrong = segue("duplicates", "accept", first)
    assert wrong.status == 1
    assert "was accepted by" in wrong.err


def test_the_flow_writes_waterfalls(
    house: House, stocked: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, str]] = []

    async def create(text: str, key: str, _: str) -> None:
        written.append((key, text))

    monkeypatch.setattr(module, "acreate_markdown_artifact", create)
    monkeypatch.setattr(module, "open_segue", lambda: house.segue)
    flow: Any = module.duplicates_flow
    state = asyncio.run(flow.fn())
    assert state.is_completed()
    [(key, text)] = written
    assert key == "find-duplicates"
    assert "data:image/svg+xml;base64," in text
    assert "| surname | equal |" in text
    assert "@" not in text  # nothing of what the columns contain


def test_it_has_a_deployment() -> None:
    [found] = [one for one in deployments() if one.name == DUPLICATES]
    assert found.entrypoint == "flows.orchestration.library.find_duplicates"


def test_the_policy_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[matching]\nsuggest_from = 0.9\njoin_from = 0.8\n")
    with pytest.raises(SegueError, match="raise join_from"):
        load_policy(file)
