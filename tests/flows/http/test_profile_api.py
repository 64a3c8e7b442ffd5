"""`GET /v1/profiles/{kind}:{value}`: identifiers in any spelling, and an answer to each fault."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from config.access.user_tokens import user_token
from config.policy import Policy
from flows.http.profile_api import PREFIX
from journeys.dsl import Segment, attribute, days, did
from journeys.explain.profile_view import PROFILE_FIELDS
from profiles.identity.person import normalise_email
from profiles.identity.phones import normalise_phone
from tests.support.counting import statements
from tests.support.http.receiving import (
    WRITE_KEY,
    Receiving,
    made_key,
    problem,
    receiving,
)
from tests.support.shop import House

SECRET = "the-secret-of-the-user-tokens"
SEGMENTS = {
    one.name: one
    for one in (
        Segment("vip", "VIPs", attribute("plan") == "gold"),
        Segment("buyers", "Bought lately", did("bought", within=days(30))),
    )
}


class Caller:
    """A system of the shop that reads profiles."""

    def __init__(self, house: House, receiver: Receiving) -> None:
        self.house = house
        self.receiver = receiver

    def ask(self, identifier: str, key: str = WRITE_KEY, **query: str) -> httpx.Response:
        """Ask with the path as it is given."""
        return self.receiver.client.get(f"{PREFIX}{identifier}", params=query, auth=(key, ""))

    def read(self, kind: str, value: str, **query: str) -> dict[str, Any]:
        answer = self.ask(f"{kind}:{quote(value, safe='')}", **query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def refused(self, identifier: str, **query: str) -> tuple[str, str]:
        """The field and the message of a 400."""
        said = problem(self.ask(identifier, **query), 400, "invalid")
        return said["field"], said["message"]

    def say(self, kind: str, **said: Any) -> None:
        answer = self.receiver.post(f"/v1/{kind}", json=said)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def caller(house: House) -> Iterator[Caller]:
    policy = Policy(meaningless=("Guest",))
    house.open(segments=SEGMENTS, policy=policy, user_token_secret=SECRET)
    with receiving(house.segue) as receiver:
        yield Caller(house, receiver)


def test_every_field_is_shown_unless_some_are_named(caller: Caller) -> None:
    caller.house.customer("ann", attributes={"plan": "gold"})
    everything = caller.read("user_id", "ann")
    assert list(everything) == [*PROFILE_FIELDS]
    assert everything["segments"] == ["everyone", "vip"]
    for name in PROFILE_FIELDS:
        assert caller.read("user_id", "ann", fields=name) == {name: everything[name]}
    some = caller.read("user_id", "ann", fields=" segments,attributes,segments ")
    assert list(some) == ["attributes", "segments"]
    twice = caller.receiver.client.get(
        f"{PREFIX}user_id:ann?fields=events&fields=group", auth=(WRITE_KEY, "")
    )
    assert list(twice.json()) == ["events", "group"]


def test_an_event_is_shown_once_its_post_was_answered(caller: Caller) -> None:
    caller.house.db.now = None
    for number in range(3):
        caller.say("track", userId="ann", event="bought", properties={"number": number})
        found = caller.read("user_id", "ann", fields="events,segments", events="1")
        assert [one["properties"] for one in found["events"]] == [{"number": number}]
        assert found["segments"] == ["buyers", "everyone"]
        caller.say("identify", userId="ann", traits={"number": number})
        assert caller.read("user_id", "ann")["attributes"]["number"] == number


@pytest.mark.parametrize(
    ("kind", "spelling", "query"),
    [
        ("email", "Ann.Lee@EXAMPLE.com", {}),
        ("email", " mailto:ann.lee@example.com. ", {}),
        ("phone", "+44 (7700) 900-123", {}),
        ("phone", "0044 7700 900123", {}),
        ("phone", "tel:+447700900123", {}),
        ("phone", "07700 900123", {"country": "GB"}),
        ("phone", "07700/900123", {"country": "United Kingdom"}),
        ("user_id", " 1042.0 ", {}),
        ("user_id", "1042", {"country": "GB"}),
    ],
)
def test_any_spelling_finds_the_profile(
    caller: Caller, kind: str, spelling: str, query: dict[str, str]
) -> None:
    caller.house.customer(
        "1042",
        email=normalise_email("ann.lee@example.com"),
        phone=normalise_phone("+447700900123", None),
    )
    assert {"kind": "user_id", "value": "1042", "suppressed": False} in caller.read(
        kind, spelling, **query
    )["identifiers"]


@pytest.mark.parametrize(
    "value",
    ["a:b", "a/b", "/", "a//../b", "a?b=c&d", "50%", "%2F", "a b", "a+b", "ü😀", "#", "x" * 1000],
)
def test_an_id_may_contain_anything(caller: Caller, value: str) -> None:
    caller.say("identify", userId=value, traits={"is": "it"})
    assert caller.read("user_id", value, fields="attributes") == {"attributes": {"is": "it"}}
    assert caller.ask(f"user_id:{quote(value + 'y', safe='')}").status_code in (400, 404)


def test_an_id_that_needs_no_encoding_may_stand_as_it_is(caller: Caller) -> None:
    for value in ("a:b", "a/b", "ann@example.com", "+1"):
        caller.say("identify", userId=value)
        assert caller.ask(f"user_id:{value}").status_code == 200


def test_values_of_any_depth_and_size_are_shown(caller: Caller) -> None:
    """As deep and as large as calls may be."""
    deep: Any = "x"
    for _ in range(245):
        deep = [deep]
    large = "ü" * 15_000
    caller.say("track", userId="ann", event="viewed", properties={"deep": deep, "large": large})
    caller.say("identify", userId="ann", traits={"deep": deep, "large": large})
    caller.say("group", userId="ann", groupId="g1", traits={"deep": deep, "large": large})
    found = caller.read("user_id", "ann")
    for shown in (found["events"][0]["properties"], found["attributes"], found["group"]["traits"]):
        assert (shown["deep"], shown["large"]) == (deep, large)


# What identifies nobody ---------------------------------------------------------------------------


def test_an_unknown_person_is_not_found(caller: Caller) -> None:
    caller.house.customer("ann")
    strangers = ("user_id:bob", "anonymous_id:ann", "email:bob@example.com", "phone:+4930123456")
    for identifier in strangers:
        answer = caller.ask(identifier)
        assert problem(answer, 404, "not_found")["message"] == "no profile uses this identifier"


@pytest.mark.parametrize(
    ("identifier", "part"),
    [
        ("", "write the kind, a colon and the value, such as user_id:u-1042"),
        ("ann", "write the kind, a colon and the value"),
        (
            "userId:ann",
            "there is no kind 'userId'; the kinds are user_id, anonymous_id, email, phone, "
            "push_token",
        ),
        (":ann", "there is no kind ''"),
        ("x" * 5000 + ":ann", "there is no kind 'xxx"),
        ("user_id:", "the value is empty"),
        ("user_id:%20%20", "the value is empty"),
        ("email:", "the value is empty"),
        ("user_id:undefined", "'undefined' is a placeholder"),
        ("user_id:GUEST", "'GUEST' is a placeholder"),
        ("user_id:%00", "NUL"),
        ("user_id:%FF", "percent-encode its UTF-8"),
        ("user_id:1e%2B20", "may be a rounded number"),
        ("user_id:" + "x" * 1001, "longer than 1000"),
        ("email:ann", "is not an e-mail address"),
        ("phone:0770", "is not a possible phone number"),
        ("phone:07700900123", "it must start with +"),
    ],
)
def test_a_fault_in_the_identifier_is_named(caller: Caller, identifier: str, part: str) -> None:
    field, message = caller.refused(identifier)
    assert field == "identifier"
    assert message.startswith("identifier: ")
    assert part in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("query", "part"),
    [
        (
            {"fields": "attributes,traits"},
            "there is no field 'traits'; the fields are attributes, ",
        ),
        ({"fields": ""}, "a name is missing; the fields are "),
        ({"fields": "events,"}, "a name is missing"),
        ({"events": "0"}, "write a number from 1 to 100"),
        ({"events": "101"}, "write a number"),
        ({"events": "²"}, "write a number"),
        ({"events": ""}, "write a number"),
        ({"country": "Atlantis"}, "'Atlantis' is not a country"),
        ({"country": ""}, "'' is not a country"),
    ],
)
def test_a_fault_in_a_parameter_is_named(caller: Caller, query: dict[str, str], part: str) -> None:
    field, message = caller.refused("user_id:ann", **query)
    assert field in query
    assert part in message


def test_a_person_who_was_joined_is_found_by_each_identifier(caller: Caller) -> None:
    caller.say("track", anonymousId="a1", event="viewed")
    caller.say("identify", userId="ann", traits={"email": "ann@example.com"})
    caller.say("identify", userId="bea", traits={"plan": "gold"})
    caller.say("identify", userId="ann", anonymousId="a1")
    caller.say("alias", previousId="bea", userId="ann")
    one = caller.read("user_id", "ann")
    assert one["attributes"] == {"plan": "gold"}
    for kind, value in (
        ("user_id", "bea"),
        ("anonymous_id", "a1"),
        ("email", "ann@example.com"),
    ):
        assert caller.read(kind, value) == one


def test_an_id_that_joined_by_an_unverified_address_is_refused(caller: Caller) -> None:
    caller.say("identify", userId="ann", traits={"email": "ann@example.com"})
    caller.say("identify", anonymousId="a1", traits={"email": "ann@example.com"})
    said = problem(caller.ask("anonymous_id:a1"), 403, "unverified")
    assert "ann" not in said["message"].replace("another", "")
    caller.say("identify", userId="ann", anonymousId="a1")
    assert caller.ask("anonymous_id:a1").status_code == 200


# Keys, rates and headers --------------------------------------------------------------------------


def test_only_a_server_key_may_read(house: House) -> None:
    house.open(user_token_secret=SECRET)
    house.customer("ann")
    web, crm = made_key(house), made_key(house, "crm", public=False)
    token = user_token(SecretStr(SECRET), "ann", house.now + 60)
    with receiving(house.segue) as receiver:
        caller = Caller(house, receiver)
        assert caller.ask("user_id:ann", key=crm).status_code == 200
        problem(caller.ask("user_id:ann", key=web), 403, "public_key")
        problem(caller.ask("user_id:ann", key=web, userToken=token), 403, "public_key")
        problem(caller.ask("user_id:ann", key="wrong"), 401, "not_signed_in")
        for query in ({}, {"writeKey": crm}):
            answer = receiver.client.get(f"{PREFIX}user_id:ann", params=query)
            problem(answer, 401, "not_signed_in")
        bearer = {"Authorization": f"Bearer {crm}"}
        answer = receiver.client.get(f"{PREFIX}user_id:ann", headers=bearer)
        assert answer.status_code == 200


def test_nobody_may_store_an_answer(caller: Caller) -> None:
    caller.house.customer("ann")
    for answer in (caller.ask("user_id:ann"), caller.ask("user_id:bob"), caller.ask("x")):
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers
        assert answer.headers["content-type"] == "application/json"


def test_each_key_has_a_rate(house: House) -> None:
    house.open(profile_rate=1)
    house.customer("ann")
    crm = made_key(house, "crm", public=False)
    with receiving(house.segue) as receiver:
        caller = Caller(house, receiver)
        read = 0
        while (said := caller.ask("user_id:ann")).status_code == 200:
            read += 1
        assert read >= 10
        problem(said, 429, "too_many")
        assert 1 <= int(said.headers["retry-after"]) <= 300
        assert caller.ask("user_id:ann", key=crm).status_code == 200


def test_other_methods_are_refused(caller: Caller) -> None:
    for method in ("POST", "PUT", "DELETE"):
        answer = caller.receiver.client.request(method, f"{PREFIX}user_id:a/b")
        assert answer.headers["Allow"] == "GET, HEAD"
        problem(answer, 405, "wrong_method")
    caller.house.customer("ann")
    head = caller.receiver.client.head(f"{PREFIX}user_id:ann", auth=(WRITE_KEY, ""))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == caller.ask("user_id:ann").headers["content-length"]


def test_a_request_costs_two_statements(caller: Caller) -> None:
    caller.house.customer("ann")
    caller.house.db.now = None
    caller.ask("user_id:ann")
    with statements(caller.house.db) as executed:
        assert caller.ask("user_id:ann").status_code == 200
    assert len(executed) == 2
