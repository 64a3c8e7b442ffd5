"""A profile with the fields that a caller names, on both databases."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import insert

from config.clock.times import DAY, HOUR, format_instant
from journeys.definition.nesting import nest
from journeys.dsl import (
    Segment,
    Wait,
    attribute,
    consented,
    days,
    did,
    group,
    has_address,
    in_segment,
)
from journeys.explain.profile_view import (
    PROFILE_FIELDS,
    ProfileField,
    ProfileViews,
    Unverified,
)
from journeys.operations.merge import merge
from profiles.attributes.companies import CompanyStatement, record_companies
from profiles.calls.record_calls import take_calls
from profiles.calls.segment_calls import CallKind, read_call
from profiles.consent.preferences import Changes, read_chosen, save
from profiles.events import PROFILE_CHANGED
from profiles.identity.addresses import Suppressed, suppress
from profiles.identity.mergers import Merger
from profiles.identity.person import Key
from profiles.tables import events
from tests.support.counting import statements
from tests.support.shop import MONDAY, House, described

SEGMENTS = {
    one.name: one
    for one in (
        Segment("vip", "VIPs", attribute("plan") == "gold"),
        Segment("buyers", "Bought lately", did("bought", within=days(30))),
        Segment("regulars", "Bought twice", did("bought", at_least=2)),
        Segment("texts", "Gets texts", consented("sms") & has_address("sms")),
        Segment("premium", "At a premium company", group("plan") == "premium"),
        Segment("not-vip", "Others", ~(attribute("plan") == "gold")),
        Segment("gb", "In Great Britain", attribute("country") == "GB"),
    )
}
ANN: Key = ("user_id", "ann")


def view(
    house: House, *fields: ProfileField, key: Key = ANN, most: int = 10
) -> dict[str, Any] | Unverified | None:
    with house.db.transaction(write=False) as tx:
        views = ProfileViews(house.segue.catalog)
        return views.read(tx, key, fields or PROFILE_FIELDS, most)


def field(house: House, name: ProfileField, **options: Any) -> Any:
    found = view(house, name, **options)
    assert isinstance(found, dict)
    assert list(found) == [name]
    return found[name]


def call(house: House, kind: CallKind, **said: Any) -> None:
    with house.db.transaction() as tx:
        take_calls(tx, [read_call(kind, said, None)], merge)


def test_a_new_profile_has_every_field_and_nothing_in_most(house: House) -> None:
    house.open()
    call(house, "track", userId="ann", event="bought", messageId="m1")
    assert view(house) == {
        "attributes": {},
        "consents": [],
        "events": [
            {"event": "bought", "occurred_at": "2026-03-02T10:00:00Z", "properties": {}},
        ],
        "group": None,
        "identifiers": [{"kind": "user_id", "value": "ann", "suppressed": False}],
        "journeys": [],
        "segments": ["everyone"],
    }


def test_attributes_have_country_zone_and_language_as_conditions_read_them(house: House) -> None:
    house.open()
    stated = {"plan": "gold", "tags": ["a", {"b": None}], "cents": 2**53 + 1}
    ann = house.customer("ann", attributes=stated, country="GB", language="en")
    assert field(house, "attributes") == {
        **stated,
        "country": "GB",
        "timezone": "UTC",
        "language": "en",
    }
    with house.db.transaction() as tx:
        chosen = read_chosen(tx, ann, lock=True)
        assert chosen is not None
        save(tx, chosen, Changes(choices={"timezone": "Europe/Paris"}), "page")
    assert field(house, "attributes")["timezone"] == "Europe/Paris"


def test_consents_are_the_current_ones(house: House) -> None:
    house.open()
    ann = house.customer("ann", consent={("sms", "*"): True, ("email", "news"): False})
    house.say(ann, "push", "*", granted=True)
    house.db.now = MONDAY + HOUR
    house.say(ann, "push", "*", granted=False)
    at, later = format_instant(MONDAY), format_instant(MONDAY + HOUR)
    assert field(house, "consents") == [
        {"channel": "email", "topic": "news", "granted": False, "changed_at": at},
        {"channel": "push", "topic": "*", "granted": False, "changed_at": later},
        {"channel": "sms", "topic": "*", "granted": True, "changed_at": at},
    ]


def test_the_last_events_come_newest_first(house: House) -> None:
    house.open()
    ann, bob = house.customer("ann"), house.customer("bob")
    for number in range(5):
        house.did(ann, "viewed", MONDAY - number * HOUR, number=number, within={"list": [1, "ü"]})
    house.did(ann, "viewed", MONDAY, number=5)
    house.did(ann, PROFILE_CHANGED)
    house.did(bob, "viewed", MONDAY, number=6)
    last = field(house, "events", most=3)
    assert [one["properties"]["number"] for one in last] == [5, 0, 1]
    assert last[1] == {
        "event": "viewed",
        "occurred_at": "2026-03-02T10:00:00Z",
        "properties": {"number": 0, "within": {"list": [1, "ü"]}},
    }
    assert len(field(house, "events", most=100)) == 6


def test_the_group_is_the_latest_company(house: House) -> None:
    house.open(segments=SEGMENTS)
    house.customer("ann", attributes={"group_id": "g1"})
    assert field(house, "group") == {"id": "g1", "traits": {}}
    with house.db.transaction() as tx:
        stated = CompanyStatement("g1", {"plan": "premium", "seats": [1]}, MONDAY)
        record_companies(tx, [stated], 1000)
    assert field(house, "group") == {"id": "g1", "traits": {"plan": "premium", "seats": [1]}}
    assert "premium" in field(house, "segments")


def test_identifiers_are_those_in_use(house: House) -> None:
    house.open()
    house.customer("ann")
    call(house, "identify", userId="ann", anonymousId="a1", traits={"email": "new@example.com"})
    with house.db.transaction() as tx:
        suppress(tx, [Suppressed("sms", "+447700900001", "bounced")])
    assert field(house, "identifiers") == [
        {"kind": "anonymous_id", "value": "a1", "suppressed": False},
        {"kind": "email", "value": "new@example.com", "suppressed": False},
        {"kind": "phone", "value": "+447700900001", "suppressed": True},
        {"kind": "push_token", "value": "token-ann", "platform": "ios", "suppressed": False},
        {"kind": "user_id", "value": "ann", "suppressed": False},
    ]


def test_journeys_are_those_that_the_profile_is_in(house: House) -> None:
    house.open(
        described(Wait("2d"), name="long"),
        described(Wait("1h"), name="short"),
    )
    house.customer("ann")
    house.launch("long")
    house.launch("short")
    assert [one["journey"] for one in field(house, "journeys")] == ["long", "short"]
    house.later("2h")
    [enrollment] = field(house, "journeys")
    assert enrollment == {
        "journey": "long",
        "entry_key": None,
        "entered_at": format_instant(MONDAY),
        "step": "wait 2d",
        "arrived_at": format_instant(MONDAY),
        "due_at": format_instant(MONDAY + 2 * DAY),
    }


def test_segments_are_evaluated_now(house: House) -> None:
    house.open(segments=SEGMENTS)
    ann = house.customer("ann", country="GB")
    house.customer("bob", attributes={"plan": "gold"})
    assert field(house, "segments") == ["everyone", "gb", "not-vip", "texts"]
    house.did(ann, "bought")
    assert field(house, "segments") == ["buyers", "everyone", "gb", "not-vip", "texts"]
    house.did(ann, "bought", MONDAY - 90 * DAY)
    assert "regulars" in field(house, "segments")
    call(house, "identify", userId="ann", traits={"plan": "gold"})
    assert {"vip", "not-vip"} & {*field(house, "segments")} == {"vip"}
    house.db.now = MONDAY + 31 * DAY
    assert "buyers" not in field(house, "segments")
    assert field(house, "segments", key=("user_id", "bob")) == ["everyone", "texts", "vip"]


def test_a_segment_may_name_others(house: House) -> None:
    both = Segment("both", "VIPs who bought", in_segment("vip") & in_segment("buyers"))
    segments, faults = nest({**SEGMENTS, "both": both})
    assert not faults
    house.open(segments=segments)
    ann = house.customer("ann", attributes={"plan": "gold"})
    assert "both" not in field(house, "segments")
    house.did(ann, "bought")
    with statements(house.db) as executed:
        assert "both" in field(house, "segments")
    assert "ANY (" not in executed[1]  # PostgreSQL would plan it anew at each execution


def test_a_segment_that_is_added_or_changed_counts_from_the_next_call(house: House) -> None:
    house.open(segments=SEGMENTS)
    house.customer("ann", attributes={"plan": "gold"})
    views, catalog = ProfileViews(house.segue.catalog), house.segue.catalog
    with house.db.transaction(write=False) as tx:
        assert views.read(tx, ANN, ["segments"], 1) == {"segments": ["everyone", "texts", "vip"]}
        catalog.segments["vip"] = Segment("vip", "VIPs", attribute("plan") == "platinum")
        catalog.segments["new"] = Segment("new", "New", attribute("plan") == "gold")
        assert views.read(tx, ANN, ["segments"], 1) == {"segments": ["everyone", "new", "texts"]}


@pytest.mark.parametrize(
    "fields", [PROFILE_FIELDS, *([name] for name in PROFILE_FIELDS)], ids="+".join
)
def test_any_fields_cost_two_statements(house: House, fields: Sequence[ProfileField]) -> None:
    house.open(segments=SEGMENTS)
    house.customer("ann")
    house.db.now = None
    with statements(house.db) as executed:
        found = view(house, *fields)
    assert isinstance(found, dict)
    assert list(found) == [*fields]
    assert len(executed) == 2


def test_other_tables_are_read_only_for_their_fields(house: House) -> None:
    house.open(segments=SEGMENTS)
    house.customer("ann")
    with statements(house.db) as executed:
        view(house, "attributes")
    for table in ("event", "enrollment", "consent", "company"):
        assert f" {table} " not in executed[1].replace("\n", " ")


def test_of_many_events_the_last_are_read(house: House) -> None:
    """More than fit into one row of a result, as they would together."""
    house.open()
    ann = house.customer("ann")
    rows = [
        {
            "profile_id": ann,
            "name": "viewed",
            "occurred_at": MONDAY - number,
            "received_at": MONDAY,
            "properties": {"number": number, "text": "x" * 1000},
            "dedupe_key": f"k{number}",
        }
        for number in range(2000)
    ]
    with house.db.transaction() as tx:
        tx.conn.execute(insert(events), rows)
    last = field(house, "events", most=100)
    assert [one["properties"]["number"] for one in last] == [*range(100)]


# Whose identifier it is ---------------------------------------------------------------------------


def test_an_unknown_identifier_has_no_profile(house: House) -> None:
    house.open()
    house.customer("ann")
    assert view(house, key=("user_id", "bob")) is None
    assert view(house, key=("anonymous_id", "ann")) is None


def test_a_merged_profile_is_found_as_part_of_the_other(house: House) -> None:
    house.open()
    call(house, "identify", userId="ann", traits={"plan": "gold"})
    call(house, "track", anonymousId="a1", event="viewed", messageId="m1")
    call(house, "identify", anonymousId="a2", traits={"color": "red"})
    call(house, "identify", userId="ann", anonymousId="a1")
    call(house, "alias", userId="ann", previousId="a2")
    expected = view(house)
    assert isinstance(expected, dict)
    assert expected["attributes"] == {"plan": "gold", "color": "red"}
    assert [one["event"] for one in expected["events"]] == ["viewed"]
    assert view(house, key=("anonymous_id", "a1")) == expected
    assert view(house, key=("anonymous_id", "a2")) == expected


def test_two_customers_joined_in_turn_are_found_by_both_ids(house: House) -> None:
    house.open()
    for name in ("ann", "bea", "cat"):
        call(house, "identify", userId=name, traits={name: 1})
    call(house, "alias", userId="bea", previousId="ann")
    call(house, "alias", userId="cat", previousId="bea")
    found = [view(house, "attributes", key=("user_id", name)) for name in ("ann", "bea", "cat")]
    assert found == [{"attributes": {"ann": 1, "bea": 1, "cat": 1}}] * 3


def test_a_profile_that_is_merged_while_it_is_read_is_found(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL each statement sees what was committed before it."""
    house.open()
    ann, bob = house.customer("ann"), house.customer("bob", attributes={"plan": "gold"})
    views = ProfileViews(house.segue.catalog)
    with house.db.transaction() as tx:
        rows = tx.rows
        executed = 0

        def then_merge(statement: Any, given: Any) -> list[Any]:
            nonlocal executed
            found = rows(statement, given)
            executed += 1
            if executed == 1:
                merge(tx, [Merger(from_id=ann, into_id=bob, why="test")])
            return found

        monkeypatch.setattr(type(tx), "rows", lambda _tx, *given: then_merge(*given))
        found = views.read(tx, ANN, ["attributes"], 1)
    assert found == {"attributes": {"plan": "gold", "timezone": "UTC"}}


def test_a_retired_address_belongs_to_no_profile(house: House) -> None:
    house.open()
    house.customer("ann")
    old: Key = ("email", "ann@example.com")
    assert isinstance(view(house, key=old), dict)
    call(house, "identify", userId="ann", traits={"email": "new@example.com"})
    assert view(house, key=old) is None
    assert isinstance(view(house, key=("email", "new@example.com")), dict)
    call(house, "identify", userId="bob", traits={"email": "ann@example.com"})
    identifiers = field(house, "identifiers", key=old)
    assert {"kind": "user_id", "value": "bob", "suppressed": False} in identifiers


def test_an_id_that_joined_by_an_unverified_address_shows_nothing(house: House) -> None:
    """Anyone can type another person's address."""
    house.open()
    house.customer("ann", attributes={"plan": "gold"})
    call(house, "identify", anonymousId="a1", traits={"email": "ann@example.com"})
    assert view(house, key=("anonymous_id", "a1")) == Unverified()
    call(house, "identify", userId="ann", anonymousId="a1")
    assert view(house, key=("anonymous_id", "a1")) == view(house)
