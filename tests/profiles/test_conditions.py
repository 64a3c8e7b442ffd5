"""Conditions: each on both engines, and all compared with plain Python."""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, insert, literal, select

from config.clock.times import DAY, HOUR, Instant, days, hours
from config.database.engine import Database
from journeys.dsl import attribute, consented, did, everyone, has_address, prop
from journeys.engine.entry import audience_after, audience_size
from profiles.conditions.language import (
    AllOf,
    AnyOf,
    Condition,
    Consented,
    Did,
    Everyone,
    HasAddress,
    InSegment,
    Not,
    Test,
)
from profiles.conditions.sql import Scope, condition_holds
from profiles.identity.addresses import CHANNELS_TO, Suppressed, suppress
from profiles.tables import (
    ADDRESS_KIND,
    IdentifierKind,
    SuppressionState,
    consents,
    events,
    identifiers,
    preferences,
    profiles,
)
from tests.support.proof import cases

NOW: Instant = 1_772_445_600  # 2026-03-02T10:00:00Z


@dataclass(frozen=True)
class Somebody:
    """A profile with what conditions can ask about it."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    country: str | None = None
    language: str | None = None
    chose: Mapping[str, str] = field(default_factory=dict)  # on their own page
    did: Sequence[tuple[str, Instant, Mapping[str, Any]]] = ()
    said: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    # by kind; None: not suppressed
    addresses: Mapping[IdentifierKind, SuppressionState | None] = field(default_factory=dict)


def store(db: Database, people: Sequence[Somebody]) -> None:
    """Write them; ids are 1, 2, 3 ..."""
    for number, person in enumerate(people, 1):
        with db.transaction() as tx:
            tx.conn.execute(
                insert(profiles).values(
                    id=number,
                    country=person.country,
                    language=person.language,
                    attributes=dict(person.attributes),
                    created_at=NOW,
                    updated_at=NOW,
                )
            )
            if person.chose:
                own = {"profile_id": number, "changed_at": NOW, **person.chose}
                tx.conn.execute(insert(preferences).values(own))
            for index, (name, at, properties) in enumerate(person.did):
                tx.conn.execute(
                    insert(events).values(
                        profile_id=number,
                        name=name,
                        occurred_at=at,
                        received_at=at,
                        properties=dict(properties),
                        dedupe_key=str(index),
                    )
                )
            for (channel, topic), granted in person.said.items():
                row = {"profile_id": number, "channel": channel, "topic": topic}
                tx.conn.execute(insert(consents).values(**row, granted=granted, changed_at=NOW))
            for kind, state in person.addresses.items():
                row = {"profile_id": number, "kind": kind, "value": f"{kind}-{number}"}
                tx.conn.execute(insert(identifiers).values(**row, seen_at=NOW))
                if state is not None:
                    on = CHANNELS_TO[kind]
                    suppress(tx, [Suppressed(one, f"{kind}-{number}", state) for one in on])


def chosen(
    db: Database,
    condition: Condition,
    *,
    since: Instant | None = None,
    until: Instant | None = None,
    except_event: int | None = None,
) -> set[int]:
    """The ids of those for whom it holds. Without times, `audience_size` counts as many."""

    def moment(at: Instant | None) -> ColumnElement[int] | None:
        return None if at is None else literal(at)

    db.now = NOW
    with db.transaction(write=False) as tx:
        scope = Scope(
            sqlite=db.is_sqlite,
            profile_id=profiles.c.id,
            since=moment(since),
            until=moment(until),
            except_event=moment(except_event),
        )
        found = select(profiles.c.id).where(condition_holds(condition, scope))
        ids = set(tx.conn.execute(found, {"now": tx.now}).scalars())
        if since is until is except_event is None:
            assert audience_size(tx, condition) == len(ids)
        return ids


def test_values_equal_in_python_are_different_tests(db: Database) -> None:
    """Statements are cached by condition, also for two conditions in turn."""
    store(db, [Somebody({"x": True}), Somebody({"x": 1})])
    yes, one, again = (
        Test(of="trait", name="x", op="in", value=(value,)) for value in (True, 1, True)
    )
    assert yes != one
    assert (yes, hash(yes)) == (again, hash(again))
    with db.transaction(write=False) as tx:
        found = [list(audience_after(tx, which, 0, 9)) for which in (yes, one, yes)]
    assert found == [[1], [2], [1]]


def test_a_cached_statement_is_evaluated_at_each_time(db: Database) -> None:
    store(db, [Somebody(did=[("bought", NOW, {})])])
    lately = did("bought", within=hours(1))
    sizes = []
    for moment in (NOW, NOW + HOUR - 1, NOW + HOUR):
        db.now = moment
        with db.transaction(write=False) as tx:
            sizes.append(audience_size(tx, lately))
    assert sizes == [1, 1, 0]


# One by one --------------------------------------------------------------------------------------

X: Mapping[str, Any] = {
    "seven": 7, "half": 2.5, "zero": 0, "minus": -1, "huge": 10**15,
    "abc": "abc", "B": "B", "é": "é", "digits": "7", "empty": "",
    "yes": True, "no": False, "null": None, "list": [7], "object": {"x": 7},
}  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (attribute("x") == 7, "seven"),
        (attribute("x") == 7.0, "seven"),
        (attribute("x") == "7", "digits"),
        (attribute("x") == True, "yes"),  # noqa: E712 - it makes a condition
        (attribute("x") == False, "no"),  # noqa: E712
        (attribute("x") == 1, ""),
        (attribute("x") == "null", ""),
        (attribute("x") > 1, "seven half huge"),
        (attribute("x") >= 2.5, "seven half huge"),
        (attribute("x") < 0, "minus"),
        (attribute("x") <= 0, "zero minus"),
        (attribute("x") > "B", "abc é"),  # by code point, on every engine
        (attribute("x") >= "B", "abc B é"),
        (attribute("x") < "8", "digits empty"),
        (attribute("x") > False, "yes"),
        (attribute("x").one_of(7, "abc", -1), "seven minus abc"),
        (attribute("x").one_of(), ""),
        (
            attribute("x").exists(),
            "seven half zero minus huge abc B é digits empty yes no list object",
        ),
        (~attribute("x").exists(), "null missing"),
        # the opposites hold for what is missing or of another kind
        (~(attribute("x") > 1), "zero minus abc B é digits empty yes no null list object missing"),
        (
            attribute("x") != 7,
            "half zero minus huge abc B é digits empty yes no null list object missing",
        ),
    ],
    ids=str,
)
def test_comparing(db: Database, condition: Condition, expected: str) -> None:
    store(db, [*(Somebody({"x": value}) for value in X.values()), Somebody()])
    labels = [*X, "missing"]
    assert [labels[number - 1] for number in sorted(chosen(db, condition))] == expected.split()


def test_an_attribute_is_read_from_the_same_profile(db: Database) -> None:
    # "does anybody have it?" would choose both
    store(db, [Somebody({"x": 5}), Somebody({"x": 1})])
    assert chosen(db, attribute("x") > 3) == {1}


def test_a_name_may_hold_dots_spaces_and_digits(db: Database) -> None:
    people = [
        Somebody({"a.b": 1, "a..b": 1, ".a": 1, "0": 1, "last name": 1, "größe": 1}),
        Somebody({"a.b": 2, "a": {"b": 1}}),
    ]
    store(db, people)
    for name in ("a.b", "a..b", ".a", "0", "last name", "größe"):
        assert chosen(db, attribute(name) == 1) == {1}


def test_paths_into_objects_and_lists(db: Database) -> None:
    products = [{"sku": "A1", "price": 5, "tags": ["new"]}, {"sku": "B2", "price": 50}, "gift", 7]
    people = [
        Somebody({"address": {"city": "Berlin", "geo": {"lat": 52.5}}, "products": products}),
        Somebody({"address": {"city": None}, "products": [], "0": {"1": "x"}}),
        Somebody({"address": "Berlin", "products": {"sku": "A1"}}),
        Somebody({"address": [{"city": "Berlin"}], "products": [["A1"], {"sku": ["A1", "C3"]}]}),
    ]
    store(db, people)
    for condition, expected in (
        (attribute("address.city") == "Berlin", {1}),
        (attribute("address.city") != "Berlin", {2, 3, 4}),
        (attribute("address.city").exists(), {1}),
        (attribute("address.geo.lat") > 52, {1}),
        (attribute("address[].city") == "Berlin", {4}),
        (attribute("0.1") == "x", {2}),  # members of objects, never places in a list
        (attribute("address.0.city") == "Berlin", set()),
        (attribute("products[].sku") == "A1", {1}),
        (attribute("products[].sku") == "A", set()),
        (attribute("products[].sku") != "A1", {2, 3, 4}),
        (attribute("products[].price") >= 50, {1}),
        (attribute("products[].price").one_of(1, 5), {1}),
        (attribute("products[].sku").exists(), {1, 4}),
        (attribute("products[].sku").contains("A1"), {1, 4}),
        (attribute("products[].sku").contains("A"), set()),
        (attribute("products[].tags[]") == "new", {1}),
        (attribute("products[].tags").contains("new"), {1}),
        (attribute("products[]") == "gift", {1}),
        (attribute("products").contains("gift"), {1}),
        (attribute("products").contains(7), {1}),
    ):
        assert chosen(db, condition) == expected, condition


def test_containing(db: Database) -> None:
    people = [
        Somebody({"x": ["vip", 7, 1.0, True]}, country="DE"),
        Somebody({"x": "a vip customer"}),
        Somebody({"x": "VIP 100%_"}),
        Somebody({"x": [["vip"], {"vip": "vip"}, None]}),
        Somebody({"x": 7}),
        Somebody({"x": None}),
        Somebody(),
    ]
    store(db, people)
    for condition, expected in (
        (attribute("x").contains("vip"), {1, 2}),
        (~attribute("x").contains("vip"), {3, 4, 5, 6, 7}),
        (attribute("x").contains("%"), {3}),
        (attribute("x").contains("_"), {3}),
        (attribute("x").contains(7), {1}),
        (attribute("x").contains(1), {1}),
        (attribute("x").contains(value=True), {1}),
        (attribute("x").contains(value=False), set()),
        (attribute("country").contains("D"), {1}),
        (attribute("country").contains("d"), set()),
    ):
        assert chosen(db, condition) == expected, condition


def test_a_wait_for_a_member_looks_at_changes_of_its_object() -> None:
    assert set((attribute("address.city") == "x").trait_names()) == {"address.city", "address"}
    assert set((attribute("tags[]") == "x").trait_names()) == {"tags[]", "tags"}
    assert list((attribute("x") == 1).trait_names()) == ["x"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (attribute("country") == "DE", {1}),
        (attribute("country") != "DE", {2, 3}),
        (attribute("country").one_of("DE", "GB", 5), {1, 2}),
        (attribute("country").exists(), {1, 2}),
        (attribute("country") > "DE", {2}),
        # a number is asked of a text column
        (attribute("country") == 5, set()),
        (attribute("country") != 5, {1, 2, 3}),
        (attribute("country") > 5, set()),
        (attribute("country") == True, set()),  # noqa: E712
        (attribute("timezone").exists(), set()),
        (attribute("language").exists(), set()),
    ],
    ids=str,
)
def test_columns_of_the_profile(db: Database, condition: Condition, expected: set[int]) -> None:
    # the attribute of that name is not what is asked
    store(db, [Somebody(country="DE"), Somebody(country="GB"), Somebody({"country": "DE"})])
    assert chosen(db, condition) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (attribute("language") == "de", {1, 3}),
        (attribute("language") != "de", {2, 4}),
        (attribute("language") == "en", {2}),
        (attribute("language").exists(), {1, 2, 3}),
        (attribute("language") == 5, set()),
        (attribute("timezone").one_of("Asia/Tokyo"), {3}),
    ],
    ids=str,
)
def test_preferences_override_profile_columns(
    db: Database, condition: Condition, expected: set[int]
) -> None:
    store(
        db,
        [
            Somebody(language="en", chose={"language": "de"}),
            Somebody(language="en"),
            Somebody(chose={"language": "de", "timezone": "Asia/Tokyo"}),
            Somebody(),
        ],
    )
    assert chosen(db, condition) == expected


def test_did(db: Database) -> None:
    store(
        db,
        [
            Somebody(),
            Somebody(did=[("ordered", NOW - 40 * DAY, {"total": 10})]),
            Somebody(did=[("ordered", NOW - 2 * DAY, {"total": 80}), ("viewed", NOW, {})]),
            Somebody(did=[("ordered", NOW - n * DAY, {"total": "80"}) for n in (3, 2, 1)]),
            # it has not happened yet, whatever the sender's clock says
            Somebody(did=[("ordered", NOW + 1, {"total": 80})]),
        ],
    )
    assert chosen(db, did("ordered")) == {2, 3, 4}
    assert chosen(db, ~did("ordered")) == {1, 5}
    assert chosen(db, did("viewed")) == {3}
    assert chosen(db, did("ordered", at_least=2)) == {4}
    assert chosen(db, did("ordered", at_least=4)) == set()
    assert chosen(db, did("ordered", within=days(30))) == {3, 4}
    assert chosen(db, did("ordered", within=days(2) + hours(1), at_least=2)) == {4}
    assert chosen(db, did("ordered", prop("total") > 50)) == {3}
    assert chosen(db, did("ordered", prop("total") != 80)) == {2, 4}
    assert chosen(db, did("ordered", prop("total") > 5, prop("total") < 50)) == {2}
    assert chosen(db, did("ordered", prop("coupon").exists())) == set()


def test_the_time_range_of_did(db: Database) -> None:
    """`within` ends now and begins after so long ago; since and until are included."""
    moments = (NOW - DAY, NOW - DAY + 1, NOW - HOUR, NOW)
    store(db, [Somebody(did=[("e", at, {})]) for at in moments])
    assert chosen(db, did("e", within="1d")) == {2, 3, 4}
    assert chosen(db, did("e"), since=NOW - HOUR) == {3, 4}
    assert chosen(db, did("e"), since=NOW - HOUR + 1) == {4}
    assert chosen(db, did("e"), until=NOW - HOUR) == {1, 2, 3}
    assert chosen(db, did("e"), since=NOW - DAY + 1, until=NOW - HOUR - 1) == {2}
    # what says `within` does not look back to `since`
    assert chosen(db, did("e", within="1d"), since=NOW) == {2, 3, 4}
    assert chosen(db, did("e"), since=NOW + 1) == set()


def test_the_entry_event_does_not_count(db: Database) -> None:
    store(db, [Somebody(did=[("e", NOW, {})]), Somebody(did=[("e", NOW, {}), ("e", NOW, {})])])
    with db.transaction(write=False) as tx:
        first = tx.conn.execute(select(events.c.id).where(events.c.profile_id == 1)).scalar_one()
    assert chosen(db, did("e"), except_event=first) == {2}
    assert chosen(db, did("e", at_least=2), except_event=first) == {2}


def test_consent_and_addresses(db: Database) -> None:
    store(
        db,
        [
            Somebody(said={("sms", "*"): True}, addresses={"phone": None}),
            Somebody(said={("sms", "*"): False}, addresses={"phone": "bounced"}),
            Somebody(said={("email", "news"): True}, addresses={"email": None}),
            Somebody(addresses={"push_token": None, "user_id": None}),
        ],
    )
    assert chosen(db, consented("sms")) == {1}
    assert chosen(db, ~consented("sms")) == {2, 3, 4}
    assert chosen(db, consented("email", "news")) == {3}
    assert chosen(db, consented("email")) == set()
    assert chosen(db, has_address("sms")) == {1}
    assert chosen(db, has_address("email")) == {3}
    assert chosen(db, has_address("push")) == {4}
    assert chosen(db, everyone()) == {1, 2, 3, 4}


def test_joining(db: Database) -> None:
    store(db, [Somebody({"x": number}) for number in range(1, 5)])
    assert chosen(db, (attribute("x") > 1) & (attribute("x") < 4)) == {2, 3}
    assert chosen(db, (attribute("x") == 1) | (attribute("x") == 4)) == {1, 4}
    assert chosen(db, ~((attribute("x") > 1) & (attribute("x") < 4))) == {1, 4}
    assert chosen(db, AllOf(conditions=())) == {1, 2, 3, 4}
    assert chosen(db, AnyOf(conditions=())) == set()


# Against plain Python ----------------------------------------------------------------------------

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_MISSING = object()


def passes(test: Test, value: Any) -> bool:
    if test.op == "contains":
        if isinstance(value, str) and isinstance(test.value, str):
            return test.value in value
        return isinstance(value, list) and any(equal(one, test.value) for one in value)
    if test.op == "exists":
        return value is not _MISSING and value is not None
    if isinstance(test.value, tuple):
        return any(
            passes(test.model_copy(update={"op": "==", "value": v}), value) for v in test.value
        )
    if test.op == "!=":
        return not passes(test.model_copy(update={"op": "=="}), value)
    return kind(value) == kind(test.value) and _OPERATORS[test.op](value, test.value)


def equal(one: Any, other: Any) -> bool:
    return kind(one) == kind(other) and bool(one == other)


def asked(test: Test, document: Mapping[str, Any]) -> bool:
    """The test of a document, by its own member of that name, else by the path."""
    if test.name in document:
        return passes(test, document[test.name])
    if test.op == "!=":
        return not asked(test.model_copy(update={"op": "=="}), document)
    places: list[Any] = [document]
    for part in re.findall(r"[^.\[\]]+|\[\]", test.name):
        if part == "[]":
            places = [one for place in places if isinstance(place, list) for one in place]
        else:
            places = [place[part] for place in places if isinstance(place, dict) and part in place]
    if "[]" not in test.name:
        return passes(test, places[0] if places else _MISSING)
    if test.op != "contains":
        return any(passes(test, place) for place in places)
    return any(
        equal(place, test.value) or (isinstance(place, list) and passes(test, place))
        for place in places
    )


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else f"incomparable {value!r}"


def holds(condition: Condition, person: Somebody) -> bool:
    match condition:
        case Test():
            if condition.name == "country":
                return passes(condition, _MISSING if person.country is None else person.country)
            return asked(condition, person.attributes)
        case Did():
            found = [
                1
                for name, at, properties in person.did
                if name == condition.event
                and at <= NOW
                and (condition.within is None or at > NOW - condition.within)
                and all(asked(test, properties) for test in condition.where)
            ]
            return len(found) >= condition.at_least
        case Consented():
            return person.said.get((condition.channel, condition.topic), False)
        case HasAddress():
            kind = ADDRESS_KIND[condition.channel]
            return kind in person.addresses and person.addresses[kind] is None
        case Everyone():
            return True
        case InSegment():
            assert condition.condition is not None
            return holds(condition.condition, person)
        case AllOf():
            return all(holds(one, person) for one in condition.conditions)
        case AnyOf():
            return any(holds(one, person) for one in condition.conditions)
        case Not():
            return not holds(condition.condition, person)
    raise AssertionError(condition)


scalars = st.sampled_from(
    [True, False, 0, 1, -1, 7, 2.5, 1.0, 10**15, 0.1, "", "a", "B", "é", "1", "true", "DE", "GB"]
)
texts = st.sampled_from(["", "a", "B", "é", "1", "true", "DE", "GB"])


def any_test(make: Callable[[str], Any], names: Sequence[str]) -> st.SearchStrategy[Test]:
    named = st.sampled_from(names).map(make)
    comparisons = st.sampled_from([*_OPERATORS.values(), operator.ne])
    return st.one_of(
        st.builds(lambda n, compare, value: compare(n, value), named, comparisons, scalars),
        st.builds(lambda n, many: n.one_of(*many), named, st.lists(scalars, max_size=3)),
        st.builds(lambda n: n.exists(), named),
        st.builds(lambda n, value: n.contains(value), named, scalars.filter(lambda v: v != "")),
    )


leaves: st.SearchStrategy[Condition] = st.one_of(
    any_test(attribute, ["x", "y", "country", "a.b", "y.x", "y[]", "y[].x", "y[].x[]", "y.x[].x"]),
    st.builds(
        lambda event, where, within, least: did(event, *where, within=within, at_least=least),
        st.sampled_from(["ordered", "viewed"]),
        st.lists(any_test(prop, ["x", "y", "y.x", "y[].x"]), max_size=2),
        st.sampled_from([None, "1d", "30d"]),
        st.integers(1, 3),
    ),
    st.builds(consented, st.sampled_from(["email", "sms"]), st.sampled_from(["*", "news"])),
    st.builds(has_address, st.sampled_from(["email", "sms", "push"])),
    st.just(everyone()),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda one: ~one),
        inner.map(lambda one: InSegment(segment="other", condition=one)),
        st.builds(lambda many: AllOf(conditions=tuple(many)), st.lists(inner, max_size=3)),
        st.builds(lambda many: AnyOf(conditions=tuple(many)), st.lists(inner, max_size=3)),
    ),
    max_leaves=6,
)


def population() -> Iterator[Somebody]:
    """Every value under every name, and the rest in all sorts of combinations."""
    values = [None, True, False, 0, 1, -1, 7, 2.5, 10**15, 0.1, "", "a", "B", "é", "1", "true", [1]]
    for number, value in enumerate([*values, _MISSING, {"x": 1}]):
        other = values[(number * 5 + 3) % len(values)]
        inner = 1 if value is _MISSING else value
        nested = (
            other,
            {"x": other},
            [other, inner],
            [{"x": inner}, {"x": [other]}],
            {"x": [{"x": 1}]},
        )
        given_ = {"x": value, "y": nested[number % len(nested)], "a.b": value}
        properties = {name: v for name, v in given_.items() if v is not _MISSING and name != "a.b"}
        moments = (NOW - 40 * DAY, NOW - 5 * DAY, NOW - HOUR, NOW, NOW + HOUR)
        yield Somebody(
            {name: v for name, v in given_.items() if v is not _MISSING},
            country=(None, "DE", "GB")[number % 3],
            did=[
                (("ordered", "viewed")[index % 2], at, properties if index % 3 else {})
                for index, at in enumerate(moments * 2)
                if (number >> (index % 5)) & 1
            ],
            said={
                ("email", "*"): number % 2 == 0,
                **({("sms", "news"): True} if number % 3 == 0 else {}),
            },
            addresses={"email": None, "phone": "bounced"} if number % 2 else {"phone": None},
        )


@pytest.mark.proof
def test_sql_agrees_with_python(db: Database) -> None:
    people = list(population())
    store(db, people)

    @settings(max_examples=cases(test=60, prove=3000))
    @given(conditions)
    def same(condition: Condition) -> None:
        expected = {number for number, one in enumerate(people, 1) if holds(condition, one)}
        assert chosen(db, condition) == expected

    same()


@given(conditions)
def test_json_and_back(condition: Condition) -> None:
    adapter: TypeAdapter[Condition] = TypeAdapter(Condition)
    assert adapter.validate_json(adapter.dump_json(condition)) == condition


def test_a_segment_does_not_depend_on_who_asks(db: Database) -> None:
    """`did` in it looks back over all time, also in an exit rule or a wait."""
    store(db, [Somebody(did=[("bought", NOW - 9 * DAY, {})])])
    bought = did("bought")
    buyers = InSegment(segment="buyers", condition=bought)
    assert chosen(db, bought, since=NOW - DAY) == set()
    assert chosen(db, buyers, since=NOW - DAY, until=NOW) == {1}


def test_a_segment_that_was_not_looked_up_is_no_condition(db: Database) -> None:
    with pytest.raises(ValueError, match="'buyers' is not filled in"):
        chosen(db, InSegment(segment="buyers"))


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "mend"),
    [
        (lambda: attribute("x") == None, r"\.exists\(\)"),  # noqa: E711
        (lambda: attribute("x") > None, r"\.exists\(\)"),
        (lambda: attribute("x") == float("nan"), "finite number"),
        (lambda: did("e", attribute("x") > 1), r"prop\('x'\)"),
        (lambda: ~(prop("x") > 1), r"attribute\('x'\)"),
        (lambda: (prop("x") > 1) & everyone(), r"attribute\('x'\)"),
        (lambda: did("e", within="soon"), "not a duration"),
        (lambda: did("e", at_least=0), "greater than or equal to 1"),
        (lambda: attribute('a"b') == 1, "pattern"),
        (lambda: attribute("x").contains(""), "give another text"),
        (lambda: attribute("x").contains(None), r"\.exists\(\)"),
        (
            lambda: attribute("products[]sku") == 1,
            r"write the elements of a list as products\[\]\.sku",
        ),
        (lambda: attribute("[]") == 1, "is not a path"),
    ],
    ids=range(13),
)
def test_an_invalid_condition_raises_where_it_is_written(
    make: Callable[[], object], mend: str
) -> None:
    with pytest.raises(ValidationError, match=mend):
        make()


def test_joining_conditions_with_and_or_or_is_refused() -> None:
    with pytest.raises(TypeError, match=r"join conditions with & \| ~"):
        _ = did("e") and did("f")


def test_the_event_names_of_a_condition() -> None:
    condition = (did("a") & ~did("b")) | (attribute("x") > 1) | did("c", prop("x") > 1)
    assert sorted(condition.event_names()) == ["a", "b", "c"]
