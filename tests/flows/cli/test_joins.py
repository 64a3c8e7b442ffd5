"""`segue unmerge` and the staff site: a preview, the undo, its record, and each error."""

from typing import Any

import orjson
import pytest
from sqlalchemy import delete, insert, select, update

from config.policy import Policy
from journeys.operations.merge import merge
from profiles.calls.record_calls import take_calls
from profiles.calls.segment_calls import CallKind, read_call
from profiles.tables import identifiers, identity_records, merges, profiles
from tests.support.commands import Segue, commands
from tests.support.http.staff import URL, Staff
from tests.support.shop import House

SAID: list[tuple[CallKind, dict[str, Any]]] = [
    ("identify", {"userId": "ann", "traits": {"email": "ann@example.com", "plan": "gold"}}),
    ("identify", {"anonymousId": "kiosk", "traits": {"plan": "basic", "size": 1}}),
    ("identify", {"userId": "ann", "anonymousId": "kiosk"}),
    ("track", {"anonymousId": "kiosk", "event": "looked"}),
    ("track", {"userId": "ann", "event": "bought"}),
]


def say(house: House, *calls: tuple[CallKind, dict[str, Any]]) -> list[str]:
    warnings: list[str] = []
    for kind, fields in calls:
        house.db.now = house.now + 1
        with house.db.transaction() as tx:
            [outcome] = take_calls(tx, [read_call(kind, fields)], merge)
        warnings += outcome.warnings
    return warnings


def owners(house: House) -> dict[str, int]:
    c = identifiers.c
    with house.db.transaction(write=False) as tx:
        return {row.value: row.profile_id for row in tx.conn.execute(select(c.value, c.profile_id))}


def join_of(house: House) -> int:
    c = identity_records.c
    with house.db.transaction(write=False) as tx:
        return int(tx.conn.execute(select(c.id).where(c.kind == "join")).scalar_one())


def attributes(house: House) -> dict[int, dict[str, Any]]:
    c = profiles.c
    with house.db.transaction(write=False) as tx:
        return {row.id: row.attributes for row in tx.conn.execute(select(c.id, c.attributes))}


@pytest.fixture
def segue(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Segue:
    house.open(policy=Policy(), staff_url=URL)
    say(house, *SAID)
    return commands(house, monkeypatch, capsys)


def test_a_dry_run_shows_what_goes_to_whom(house: House, segue: Segue) -> None:
    join, ann = join_of(house), owners(house)["ann"]
    said = segue("unmerge", str(join), "--dry-run")
    assert said.status == 0
    kiosk = next(number for number in (1, 2) if number != ann)
    assert said.out.splitlines() == [
        f"join {join}: identify, by calls",
        f"customer {ann} keeps email ann@example.com, user_id ann",
        f"customer {kiosk} gets back anonymous_id kiosk",
        f"to customer {kiosk} go 2 events, 0 consent records, 0 enrollments, 0 messages",
        "nothing was changed; without --dry-run it is",
    ]
    assert set(owners(house).values()) == {ann}
    found = orjson.loads(segue("unmerge", str(join), "--dry-run", "--json").out)
    assert (found["applied"], found["stays"], found["leaves"]) == (False, ann, kiosk)
    assert found["goes"]["events"] == 2


def test_an_undo_separates_the_customers_for_good(house: House, segue: Segue) -> None:
    join = join_of(house)
    found = orjson.loads(segue("unmerge", str(join), "--json").out)
    assert found["applied"] is True
    whose = owners(house)
    assert whose["ann"] == whose["ann@example.com"] == found["stays"]
    assert whose["kiosk"] == found["leaves"]
    assert attributes(house) == {
        whose["ann"]: {"plan": "gold"},
        whose["kiosk"]: {"plan": "basic", "size": 1},
    }
    # The same call does not join them again, and neither does an alias.
    again = {"userId": "ann", "anonymousId": "kiosk", "messageId": "again"}
    assert say(house, ("identify", again)) == [
        "anonymousId is left out: it belongs to another customer"
    ]
    say(house, ("alias", {"userId": "ann", "previousId": "kiosk"}))
    assert owners(house) == whose
    explained = segue("explain", "ann").out
    assert f"Found to be one person with customer {found['leaves']} (join {join}" in explained
    assert f"The join with customer {found['leaves']} was undone (join {join}" in explained


def test_each_refusal_says_why(house: House, segue: Segue) -> None:
    join = join_of(house)
    refused = segue("unmerge", "999", "--dry-run")
    assert refused.status != 0
    assert "there is no join 999; `segue explain PERSON` shows the joins" in refused.err
    segue("unmerge", str(join))
    assert f"the join {join} is undone already" in segue("unmerge", str(join)).err


def test_an_erased_customer_is_not_made_again(house: House, segue: Segue) -> None:
    join = join_of(house)
    with house.db.transaction() as tx:
        tx.conn.execute(delete(identity_records).where(identity_records.c.kind != "join"))
    assert "what the customers were before it was erased" in segue("unmerge", str(join)).err
    with house.db.transaction() as tx:
        tx.conn.execute(delete(profiles))
        tx.conn.execute(delete(merges))
    assert "the customer was erased" in segue("unmerge", str(join)).err


def test_joins_in_a_circle_are_refused(house: House, segue: Segue) -> None:
    """Rows that nobody but a manual change can write."""
    join, ann = join_of(house), owners(house)["ann"]
    with house.db.transaction() as tx:
        [row] = tx.conn.execute(select(identity_records).where(identity_records.c.id == join))
        again = {name: value for name, value in row._mapping.items() if name != "id"}
        tx.conn.execute(insert(identity_records).values(again))
    refused = segue("unmerge", str(join)).err
    assert f"the join {join} separates nobody: the customers are joined in a circle" in refused
    with house.db.transaction() as tx:
        tx.conn.execute(delete(profiles).where(profiles.c.id == ann))
        tx.conn.execute(
            insert(merges).values(
                from_id=ann, into_id=3 - ann, merged_at=1, why="by hand", moved={}
            )
        )
        tx.conn.execute(update(merges).where(merges.c.from_id != ann).values(into_id=ann))
    assert f"the joins of customer {ann} form a circle" in segue("unmerge", str(join)).err


def test_the_staff_site_undoes_a_join(house: House, segue: Segue) -> None:
    join, ann = join_of(house), owners(house)["ann"]
    staff = Staff(house, role="editor")
    assert f'href="/joins/{join}"' in staff.get(f"/people/{ann}").text
    preview = staff.read(f"/joins/{join}")
    assert "2 events" in preview
    assert "kiosk" in preview
    done = staff.post(f"/joins/{join}", {}, page=f"/joins/{join}")
    assert "are two again" in done.text
    assert len(set(owners(house).values())) == 2
    assert staff.acts()[0].act == "undid a join"
    again = staff.post(f"/joins/{join}", {}, page="/password")
    assert "is undone already" in again.text
    assert f'href="/joins/{join}"' not in staff.get(f"/people/{ann}").text


def test_a_viewer_may_look_but_not_undo(house: House, segue: Segue) -> None:
    join = join_of(house)
    staff = Staff(house)
    assert "Undo join" in staff.read(f"/joins/{join}")
    assert staff.post(f"/joins/{join}", {}, page=f"/joins/{join}").status_code == 403
    assert len(set(owners(house).values())) == 1
