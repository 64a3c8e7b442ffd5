"""The statement with the latest own time holds, in whatever order statements arrive."""

from itertools import count, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from config.clock.times import DAY, Instant, format_instant, parse_instant
from config.database.engine import Database
from journeys.dsl import OnLaunch, Update
from journeys.operations.merge import merge
from profiles.attributes.latest import Times, attribute_key, join_profiles
from profiles.calls.record_calls import take_calls
from profiles.calls.segment_calls import read_call
from profiles.identity.person import Person, normalise_email
from profiles.identity.phones import Phone
from profiles.identity.upsert import upsert_people
from profiles.imports.importer import import_file
from profiles.tables import identifiers, profiles
from tests.support.proof import cases
from tests.support.shop import House, described

NOW: Instant = parse_instant("2026-03-02T10:00:00Z")
# A person as one source states it, without its time.
VALUES: dict[str, list[dict[str, Any]]] = {
    "attributes": [{"attributes": {"plan": value}} for value in ("a", "b", None)],
    "country": [{"country": "GB"}, {"country": "FR"}, {"removed": {"country"}}],
    "timezone": [{"timezone": "Europe/London"}, {"timezone": "Asia/Tokyo"}],
    "language": [{"language": "en"}, {"language": "fr"}, {"removed": {"language"}}],
    "email": [
        {"email": normalise_email("a@example.com")},
        {"email": normalise_email("b@example.com")},
        {"removed": {"email"}},
    ],
    "phone": [
        {"phone": Phone("+447700900001", "GB")},
        {"phone": Phone("+447700900002", "GB")},
        {"removed": {"phone"}},
    ],
    "token": [
        {"push_tokens": {"t": "ios"}},
        {"push_tokens": {"u": None}},
        {"removed_tokens": {"t"}},
    ],
}


def state_of(db: Database, user_id: str) -> tuple[Any, ...]:
    """The attributes of the profile, and its addresses in use."""
    p, i = profiles.c, identifiers.c
    with db.transaction(write=False) as tx:
        whose = select(i.profile_id).where(i.kind == "user_id", i.value == user_id)
        columns = (p.attributes, p.country, p.timezone, p.language, p.attribute_times)
        row = tx.conn.execute(select(*columns).where(p.id == whose.scalar_subquery())).one()
        known = select(i.kind, i.value, i.retired_at.is_(None), i.platform).where(
            i.profile_id == whose.scalar_subquery(), i.kind != "user_id"
        )
        return (*row, sorted(map(tuple, tx.conn.execute(known))))


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_order_gives_the_same_profile(db: Database, values: list[dict[str, Any]]) -> None:
    db.now = NOW
    dated = [{**value, "seen_at": NOW - place * DAY} for place, value in enumerate(values)]
    said: list[dict[str, Any]] = [*dated, {**values[-1], "seen_at": NOW - DAY // 2}]
    if "removed" not in values[-1] and "removed_tokens" not in values[-1]:
        said.append({**values[1], "seen_at": None})
    found = []
    for number, order in enumerate(permutations(said)):
        for one in order:
            person = Person(user_id=f"u{number}", **_of_their_own(one, number))
            with db.transaction() as tx:
                upsert_people(tx, [person], "test")
        found.append(_shared(state_of(db, f"u{number}"), number))
    assert all(one == found[0] for one in found)


def _of_their_own(said: dict[str, Any], number: int) -> dict[str, Any]:
    """The same with addresses of a customer's own."""
    own = dict(said)
    if "email" in own:
        own["email"] = normalise_email(f"{number}-{own['email']}")
    if "phone" in own:
        own["phone"] = Phone(f"+44770{900_000 + 10 * number + int(own['phone'].value[-1])}", "GB")
    if "push_tokens" in own:
        own["push_tokens"] = {f"{number}-{t}": p for t, p in own["push_tokens"].items()}
    if "removed_tokens" in own:
        own["removed_tokens"] = {f"{number}-{token}" for token in own["removed_tokens"]}
    return own


def _shared(state: tuple[Any, ...], number: int) -> tuple[Any, ...]:
    *fields, known = state
    shared = [
        (kind, value[-1] if kind == "phone" else value.removeprefix(f"{number}-"), *rest)
        for kind, value, *rest in known
    ]
    return (*fields, shared)


_runs = count()
_TIMES = st.one_of(st.none(), st.integers(NOW - 50, NOW - 1))


@settings(
    max_examples=cases(test=25, prove=2000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_statements_in_any_order(sqlite_url: str, data: st.DataObject) -> None:
    """Each time and each unknown time once; batches are cut anywhere."""
    db = Database(sqlite_url, now=NOW)
    choices = [value for values in VALUES.values() for value in values]
    times = data.draw(st.lists(_TIMES, unique=True, min_size=2, max_size=7))
    said = [{**data.draw(st.sampled_from(choices)), "seen_at": at} for at in times]
    # Files take nothing away, and a token in a row without a date is seen when it is imported.
    never_undated = {"removed", "removed_tokens", "attributes", "push_tokens"}
    said = [one for one in said if one["seen_at"] or not never_undated & one.keys()]
    run = next(_runs)
    states = []
    for side in range(2):
        number = 2 * run + side
        order = data.draw(st.permutations(said))
        people = [Person(user_id=f"u{number}", **_of_their_own(one, number)) for one in order]
        cut = data.draw(st.integers(0, len(people)))
        for some in (people[:cut], people[cut:]):
            with db.transaction() as tx:
                upsert_people(tx, [Person(user_id=f"u{number}"), *some], "test")
        states.append(_shared(state_of(db, f"u{number}"), number))
    db.close()
    assert states[0] == states[1]


def identify(db: Database, traits: dict[str, Any], at: Instant | None = None) -> None:
    said: dict[str, Any] = {"userId": "ann", "traits": traits}
    if at is not None:
        said["timestamp"] = format_instant(at)
    with db.transaction() as tx:
        take_calls(tx, [read_call("identify", said)], merge)


def traits(db: Database) -> dict[str, Any]:
    found: dict[str, Any] = state_of(db, "ann")[0]
    return found


def test_a_call_that_arrives_late_does_not_undo_a_later_one(db: Database) -> None:
    db.now = NOW
    identify(db, {"plan": "gold", "country": "FR"}, at=NOW - 60)
    identify(db, {"plan": "basic", "size": 3, "country": "GB"}, at=NOW - 3600)
    assert traits(db) == {"plan": "gold", "size": 3}
    assert state_of(db, "ann")[1] == "FR"


def test_a_call_without_a_time_counts_as_now(db: Database) -> None:
    db.now = NOW
    identify(db, {"plan": "gold"})
    identify(db, {"plan": "basic"}, at=NOW - 1)
    assert traits(db) == {"plan": "gold"}


def test_the_context_of_an_old_event_displaces_nothing(db: Database) -> None:
    db.now = NOW
    identify(db, {"timezone": "Europe/Paris", "language": "fr"})
    context = {"timezone": "Asia/Tokyo", "locale": "ja", "device": {"token": "t1"}}
    said = {"userId": "ann", "event": "x", "context": context, "timestamp": format_instant(NOW - 9)}
    with db.transaction() as tx:
        take_calls(tx, [read_call("track", said)], merge)
    assert state_of(db, "ann")[2:4] == ("Europe/Paris", "fr")


@pytest.mark.parametrize("api_first", [True, False])
def test_a_row_without_a_date_displaces_nothing_dated(
    db: Database, tmp_path: Path, api_first: bool
) -> None:
    """Nor values from the API. Missing values are filled."""
    db.now = NOW
    mapping = tmp_path / "map.toml"
    mapping.write_text(
        'columns = { user_id = "id", email = "mail", country = "land" }\n'
        'attributes = { plan = "plan", size = "size" }\n'
    )
    rows = tmp_path / "rows.csv"
    rows.write_text("id,mail,land,plan,size\nann,old@example.com,DE,basic,3\n")
    said = {"email": "new@example.com", "country": "FR", "plan": "gold"}
    if api_first:
        identify(db, said)
    import_file(db, rows, map_file=mapping)
    if not api_first:
        identify(db, said)
    import_file(db, rows, map_file=mapping)
    attributes, country, *_, known = state_of(db, "ann")
    assert (attributes, country) == ({"plan": "gold", "size": "3"}, "FR")
    assert known == [
        ("email", "new@example.com", True, None),
        ("email", "old@example.com", False, None),
    ]


def test_a_dated_row_applies_by_its_date(db: Database, tmp_path: Path) -> None:
    db.now = NOW
    mapping = tmp_path / "map.toml"
    mapping.write_text(
        'columns = { user_id = "id", seen_at = "at" }\nattributes = { plan = "plan" }\n'
    )
    rows = tmp_path / "rows.csv"
    identify(db, {"plan": "gold"}, at=NOW - 60)
    for at, plan in ((NOW - 120, "gold"), (NOW - 30, "basic"), (NOW + DAY, "basic")):
        rows.write_text(f"id,at,plan\nann,{format_instant(at)},{plan}\n")
        import_file(db, rows, map_file=mapping)
        assert traits(db) == {"plan": plan}


def test_a_date_in_the_future_counts_as_no_date(db: Database) -> None:
    db.now = NOW
    identify(db, {"plan": "gold"})
    future = Person(user_id="ann", attributes={"plan": "basic", "size": 1}, seen_at=NOW + DAY)
    for days in (0, 2):
        db.now = NOW + days * DAY // 4
        with db.transaction() as tx:
            upsert_people(tx, [future], "test")
        assert traits(db) == {"plan": "gold", "size": 1}


def test_an_attribute_stored_without_a_time_counts_as_undated(db: Database) -> None:
    db.now = NOW
    identify(db, {"plan": "gold"})
    with db.transaction() as tx:
        tx.conn.execute(update(profiles).values(attribute_times=None))
        upsert_people(tx, [Person(user_id="ann", attributes={"plan": "basic"})], "test")
    assert traits(db) == {"plan": "basic"}


def test_attributes_set_by_a_journey_have_its_time(house: House) -> None:
    house.open(described(Update("mark", plan="welcomed"), entry=OnLaunch()))
    ann = house.customer("ann")
    house.launch("j")
    identify(house.db, {"plan": "older"}, at=house.now - 5)
    assert house.attributes(ann)["plan"] == "welcomed"
    house.later("1h")
    identify(house.db, {"plan": "newer"}, at=house.now - 5)
    assert house.attributes(ann)["plan"] == "newer"


def test_a_join_keeps_the_survivors_attributes() -> None:
    def row(
        country: str | None, said: dict[str, Any], times: Times, *said_of: list[Any]
    ) -> dict[str, Any]:
        return {
            **{"country": country, "timezone": None, "language": None},
            **{"attributes": said, "attribute_times": times or None},
            "attribute_identifiers": list(said_of) or None,
        }

    plan, size, old = (attribute_key(name) for name in ("plan", "size", "old"))
    ours = row("GB", {"plan": "a"}, {plan: 1, old: 5, "email": 2}, ["user_id", "ann", [plan]])
    their_times = {plan: 9, size: 8, "country": 9, "email": 9, "phone": 9}
    their_said_of = ["anonymous_id", "web", [plan, size, "country"]]
    theirs = row("FR", {"plan": "b", "size": 2, "old": 3}, their_times, their_said_of)
    joined = join_profiles(ours, theirs)
    assert joined["country"] == "GB"
    assert joined["attributes"] == {"plan": "a", "size": 2}
    assert joined["attribute_times"] == {plan: 1, size: 8, old: 5, "email": 2, "phone": 9}
    assert joined["attribute_identifiers"] == [
        ["anonymous_id", "web", [size]],
        ["user_id", "ann", [plan]],
    ]
    nobody = join_profiles(row(None, {}, {}), theirs)
    assert nobody["attribute_times"] == their_times
    assert nobody["attribute_identifiers"] == [their_said_of]
