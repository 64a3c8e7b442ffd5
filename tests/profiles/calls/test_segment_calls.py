"""Parsing Segment's calls, and the errors of invalid ones."""

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config.clock.times import HOUR, Instant, format_instant, parse_instant
from profiles.calls.segment_calls import (
    MODELS,
    CallKind,
    CallRefused,
    SegmentCall,
    read_call,
    read_item,
)
from profiles.events import PROFILE_CHANGED
from profiles.identity.phones import Phone

NOW: Instant = parse_instant("2026-03-02T10:00:00Z")


def read(kind: CallKind, **said: Any) -> SegmentCall:
    return read_call(kind, {"userId": "u1", **said})


def at(offset: int) -> str:
    return format_instant(NOW + offset)


# What a call says ---------------------------------------------------------------------------------


def test_identify_reads_ids_and_traits() -> None:
    call = read_call(
        "identify",
        {
            "userId": " u-1 ",
            "anonymousId": "a-1",
            "traits": {
                "email": "Ann@Example.com",
                "phone": "07700 900123",
                "firstName": "Ann",
                "lastName": "Lee",
                "createdAt": "2025-01-01T00:00:00Z",
                "plan": "premium",
                "gone": None,
                "address": {"city": "Leeds", "country": "UK"},
            },
            "context": {
                "timezone": "Europe/London",
                "locale": "en_GB",
                "device": {"token": "t-1", "type": "iOS"},
            },
        },
    )
    person = call.person
    assert (call.event, call.properties) == (PROFILE_CHANGED, {})
    assert (person.user_id, person.anonymous_id) == ("u-1", "a-1")
    assert person.email == "ann@example.com"
    assert person.phone == Phone("+447700900123", "GB")
    assert person.push_tokens == {"t-1": "ios"}
    assert (person.country, person.timezone, person.language) == ("GB", "Europe/London", "en-GB")
    assert person.attributes == {
        "first_name": "Ann",
        "last_name": "Lee",
        "created_at": "2025-01-01T00:00:00Z",
        "plan": "premium",
        "gone": None,
        "address": {"city": "Leeds", "country": "UK"},
    }
    assert call.warnings == ()


def test_a_trait_overrides_the_context() -> None:
    traits = {"timezone": "Asia/Tokyo", "language": "ja", "country": "JP"}
    context = {"timezone": "Europe/London", "locale": "en-GB"}
    person = read("identify", traits=traits, context=context).person
    assert (person.country, person.timezone, person.language) == ("JP", "Asia/Tokyo", "ja")
    assert person.attributes == {}


@pytest.mark.parametrize(
    ("traits", "context", "warning"),
    [
        ({"email": "no address"}, {}, "traits.email is left out: 'no address' is not an e-mail"),
        ({"email": {"a": 1}}, {}, "traits.email is left out: the value is not text"),
        ({"phone": "12"}, {}, "traits.phone is left out: '12' is not a possible phone number"),
        ({"phone": "07700 900123"}, {}, "(without a known country it must start with +)"),
        ({"address": {"country": "Atlantis"}}, {}, "'Atlantis' is not a country"),
        ({"timezone": "Mars/Base"}, {}, "'Mars/Base' is not a time zone"),
        ({}, {"timezone": "Mars/Base"}, "context.timezone is left out"),
        ({}, {"locale": "not a language"}, "context.locale is left out"),
        ({}, {"device": {"token": "x" * 2000}}, "context.device.token is left out"),
        ({}, {"device": {"token": "0a" * 32, "type": "iOS"}}, "it is an APNs token"),
    ],
)
def test_invalid_values_are_ignored_and_the_others_kept(
    traits: dict[str, Any], context: dict[str, Any], warning: str
) -> None:
    call = read("identify", traits={"plan": "premium", **traits}, context=context)
    assert call.person.attributes["plan"] == "premium"
    assert [one for one in call.warnings if warning in one] == list(call.warnings)
    assert len(call.warnings) == 1
    assert call.person.keys == [("user_id", "u1")]


def test_hex_is_refused_only_where_it_is_a_token_of_apns() -> None:
    for device in (
        {"token": "0a" * 32, "type": "android"},
        {"token": "0a" * 32, "type": "ios", "removed": True},
        {"token": "0a" * 20 + ":APA91b" + "0a" * 20, "type": "ios"},
    ):
        assert read("track", event="x", context={"device": device}).warnings == ()


@pytest.mark.parametrize("offset", ["GMT+0000", "GMT-0330", "UTC+01:00"])
def test_an_offset_is_neither_a_time_zone_nor_an_error(offset: str) -> None:
    """RudderStack's clients send it with every call."""
    call = read("track", event="x", context={"timezone": offset})
    assert (call.person.timezone, call.warnings) == (None, ())


def test_traits_in_the_context_are_traits() -> None:
    """Where RudderStack's clients put those of identify."""
    said = {"context": {"traits": {"email": "ann@example.com", "plan": "premium"}}}
    person = read("identify", **said).person
    assert (person.email, person.attributes) == ("ann@example.com", {"plan": "premium"})


def test_track_is_an_event() -> None:
    call = read("track", event="cart_abandoned", properties={"cart_id": "c1"})
    assert (call.event, call.properties) == ("cart_abandoned", {"cart_id": "c1"})
    assert not call.describes_person


@pytest.mark.parametrize(("kind", "event"), [("page", "page_viewed"), ("screen", "screen_viewed")])
def test_page_and_screen_calls_are_events(kind: CallKind, event: str) -> None:
    call = read(kind, name="Cart", category="Shop", properties={"url": "https://shop.example"})
    assert call.event == event
    assert call.properties == {"url": "https://shop.example", "name": "Cart", "category": "Shop"}
    assert read(kind).properties == {}
    page = {"page": {"url": "https://shop.example/cart", "title": "Cart"}}
    assert read(kind, context=page).properties == {"url": "https://shop.example/cart"}
    own = read(kind, properties={"url": "https://shop.example"}, context=page)
    assert own.properties == {"url": "https://shop.example"}
    for odd in (None, 7, {"url": 7}, {"url": ""}):
        assert read(kind, context={"page": odd}).properties == {}


def test_group_sets_attributes() -> None:
    call = read("group", groupId="g1", traits={"plan": "team", "name": "Acme"})
    assert call.person.attributes == {
        "group_id": "g1",
        "group_plan": "team",
        "group_name": "Acme",
    }
    assert call.company_traits == {"plan": "team", "name": "Acme"}
    assert call.event == PROFILE_CHANGED


def test_alias_names_the_previous_id() -> None:
    call = read("alias", previousId="a1")
    assert (call.previous_id, call.person.user_id) == ("a1", "u1")


def test_numbers_serve_as_ids() -> None:
    assert read_call("track", {"userId": 42, "event": "x"}).person.user_id == "42"


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said", "field"),
    [
        ("track", {"userId": None, "event": "x"}, "userId"),
        ("track", {"userId": "", "anonymousId": "", "event": "x"}, "userId"),
        ("track", {"userId": True, "event": "x"}, "userId"),
        ("track", {"userId": ["u1"], "event": "x"}, "userId"),
        ("track", {"userId": "x" * 2000, "event": "x"}, "userId"),
        ("track", {}, "event"),
        ("track", {"event": ""}, "event"),
        ("track", {"event": "x" * 256}, "event"),
        ("track", {"event": 7}, "event"),
        ("track", {"event": "x", "properties": []}, "properties"),
        ("track", {"event": "x", "context": "no"}, "context"),
        ("track", {"event": "x", "timestamp": "yesterday"}, "timestamp"),
        ("track", {"event": "x", "timestamp": "2026-03-02T10:00:00"}, "timestamp"),
        ("track", {"event": "x", "timestamp": 1772445600}, "timestamp"),
        ("track", {"event": "x", "sentAt": {}}, "sentAt"),
        ("identify", {"traits": "no"}, "traits"),
        ("page", {"name": 7}, "name"),
        ("group", {}, "groupId"),
        ("alias", {}, "previousId"),
        ("alias", {"userId": None, "anonymousId": "a", "previousId": "b"}, "userId"),
    ],
)
def test_an_invalid_call_is_refused_with_its_field(
    kind: CallKind, said: dict[str, Any], field: str
) -> None:
    with pytest.raises(CallRefused) as refused:
        read(kind, **said)
    assert refused.value.field == field
    assert len(refused.value.why) > 10


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (None, ""),
        ([], ""),
        ({}, "type"),
        ({"type": "buy"}, "type"),
        ({"type": []}, "type"),
        ({"type": "track"}, "event"),
    ],
)
def test_an_item_of_a_batch_has_a_type(item: object, field: str) -> None:
    with pytest.raises(CallRefused) as refused:
        read_item(item, None)
    assert refused.value.field == field


# When it was --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "offset"),
    [
        ({}, 0),
        ({"timestamp": at(-90)}, -90),
        # an hour fast, sent 90 s after it happened
        ({"timestamp": at(HOUR - 90), "sentAt": at(HOUR)}, -90),
        # a day slow
        ({"timestamp": at(-24 * HOUR - 90), "sentAt": at(-24 * HOUR)}, -90),
        # what the client said first counts
        ({"originalTimestamp": at(-90), "timestamp": at(-7), "sentAt": at(0)}, -90),
        # nothing has happened in the future
        ({"timestamp": at(500)}, 0),
        ({"timestamp": at(500), "sentAt": at(0)}, 0),
        # a fraction of a second rounds up
        ({"timestamp": "2026-03-02T09:59:58.001Z"}, -1),
        ({"timestamp": "2026-03-02T10:59:50+01:00"}, -10),
        ({"timestamp": "1970-01-02T00:00:00Z", "sentAt": "2999-11-30T00:00:00Z"}, -NOW),
    ],
)
def test_the_senders_clock_is_corrected(said: dict[str, str], offset: int) -> None:
    call = read("track", event="x", **said)
    assert call.occurred_at(NOW) == NOW + offset
    # received is not yet written down
    assert call._replace(waited=40).occurred_at(NOW + 40) == NOW + offset


def test_the_time_of_a_batch_applies_to_all_its_calls() -> None:
    item = {"type": "track", "userId": "u1", "event": "x", "timestamp": at(HOUR - 5)}
    assert read_item(item, NOW + HOUR).occurred_at(NOW) == NOW - 5
    assert read_item({**item, "sentAt": at(HOUR - 3)}, NOW + HOUR).occurred_at(NOW) == NOW - 2


# Which call it is ---------------------------------------------------------------------------------


def test_the_message_id_is_the_key() -> None:
    assert read("track", event="x", messageId="m1").dedupe_key(NOW) == "m1"
    assert read("track", event="x", messageId=7).dedupe_key(NOW) == "7"


def test_without_a_message_id_equal_calls_are_one_call() -> None:
    def key(when: Instant = NOW, kind: CallKind = "track", **said: Any) -> str:
        return read(kind, **{"event": "x", "timestamp": at(-5)} | said).dedupe_key(when)

    assert key() == key(when=NOW + 30 * HOUR)
    assert key() == key(sentAt=at(9))  # a retry
    different = [
        key(event="y"),
        key(userId="u2"),
        key(timestamp=at(-6)),
        key(properties={"a": 1}),
        key(kind="page"),
    ]
    assert len({key(), *different}) == 6


def test_without_a_time_equal_calls_an_hour_apart_are_two_calls() -> None:
    call = read("track", event="renewed")
    assert call.dedupe_key(NOW) == call.dedupe_key(NOW + 60)
    assert call.dedupe_key(NOW) != call.dedupe_key(NOW + HOUR)


# Whatever comes -----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (
    "userId",
    "anonymousId",
    "messageId",
    "timestamp",
    "originalTimestamp",
    "sentAt",
    "event",
    "properties",
    "name",
    "groupId",
    "previousId",
)
TRAITS = st.dictionaries(
    st.sampled_from(
        ["email", "phone", "firstName", "address", "timezone", "country", "language", "plan"]
    ),
    JSON,
)
CONTEXT = st.dictionaries(st.sampled_from(["timezone", "locale", "device"]), JSON)
ITEMS = st.builds(
    lambda kind, fields, traits, context: {
        "type": kind,
        "userId": "u1",
        "event": "x",
        "groupId": "g",
        "previousId": "p",
        "traits": traits,
        "context": context,
        **fields,
    },
    st.sampled_from([*MODELS, "buy"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
    TRAITS | JSON,
    CONTEXT | JSON,
)


@given(ITEMS)
@example({"type": "track", "userId": 1e400, "event": "x"})
@example({"type": "identify", "userId": "u", "traits": {"email": "a@" + "x" * 9000}})
@example({"type": "identify", "userId": "u", "traits": {"phone": "+" + "9" * 5000}})
@example({"type": "identify", "userId": "u", "traits": {"email": "a@xn--a"}})
def test_any_call_is_accepted_or_refused(item: dict[str, Any]) -> None:
    try:
        call = read_item(item, None)
    except CallRefused:
        return
    assert 0 <= call.occurred_at(NOW) <= NOW
    assert 0 < len(call.dedupe_key(NOW).encode()) <= 1000
    assert 0 < len(call.event) <= 255
    assert call.person.user_id or call.person.anonymous_id
    for _, value in call.person.keys:
        assert 0 < len(value.encode()) <= 1000
    orjson.dumps([call.properties, call.person.attributes])  # what the database keeps
    assert read_item(item, None) == call
