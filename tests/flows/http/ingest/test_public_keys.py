"""What a public key can do over HTTP, and that no call with one changes a known person."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Row, select
from sqlmodel import SQLModel

from config.access.user_tokens import user_token
from config.clock.times import DAY
from config.database.engine import Database
from config.policy import Policy
from profiles.calls.segment_calls import MODELS
from profiles.events import PROFILE_CHANGED
from profiles.tables import events, identifiers, merges, profiles
from tests.support.http.receiving import (
    WRITE_KEY,
    Receiving,
    happened,
    made_key,
    names,
    problem,
    receiving,
)
from tests.support.proof import cases
from tests.support.shop import MONDAY, House

SECRET = "the-secret-of-the-user-tokens"
POLICY = Policy.model_validate(
    {
        "topics": {"news": "News"},
        "consent_traits": [
            {"trait": "unsubscribed", "value": True, "channel": "email", "granted": False},
            {"trait": "news", "value": True, "channel": "email", "topic": "news", "granted": True},
        ],
    }
)


def token(user_id: str, expiry: int = MONDAY + 60) -> str:
    return user_token(SecretStr(SECRET), user_id, expiry)


class Page:
    """A page of the shop, which has a public key."""

    def __init__(self, house: House, receiver: Receiving, key: str) -> None:
        self.house = house
        self.receiver = receiver
        self._key = key

    def say(self, kind: str, **said: Any) -> list[str]:
        """Send a call; returns the warnings."""
        answer = self.receiver.post(f"/v1/{kind[0]}", json=said, auth=(self._key, ""))
        assert answer.status_code == 200, answer.text
        warnings: list[str] = answer.json().get("warnings", [])
        return warnings

    def post(self, path: str, said: Any) -> Any:
        return self.receiver.post(path, json=said, auth=(self._key, ""))

    def server(self, kind: str, **said: Any) -> None:
        """A call of the shop's server."""
        answer = self.receiver.post(f"/v1/{kind}", json=said, auth=(WRITE_KEY, ""))
        assert answer.status_code == 200, answer.text


@pytest.fixture
def page(house: House) -> Iterator[Page]:
    house.open(policy=POLICY, user_token_secret=SECRET)
    key = made_key(house)
    with receiving(house.segue) as receiver:
        yield Page(house, receiver, key)


def people(house: House) -> dict[int, dict[str, Any]]:
    """The attributes of each profile."""
    with house.db.transaction(write=False) as tx:
        return {row.id: row.attributes for row in tx.conn.execute(select(profiles))}


def owners(house: House) -> dict[tuple[str, str], int]:
    with house.db.transaction(write=False) as tx:
        return {
            (row.kind, row.value): row.profile_id for row in tx.conn.execute(select(identifiers))
        }


def test_an_anonymous_visitor_becomes_a_profile_with_events_and_attributes(page: Page) -> None:
    assert page.say("identify", anonymousId="a1", traits={"plan": "b"}) == []
    assert page.say("track", anonymousId="a1", event="cart_abandoned") == []
    [(profile_id, attributes)] = people(page.house).items()
    assert attributes == {"plan": "b"}
    assert owners(page.house) == {("anonymous_id", "a1"): profile_id}
    assert names(page.house) == ["cart_abandoned"]


def test_events_of_a_user_need_the_token(page: Page) -> None:
    ann = page.house.customer("ann")
    signed = {"userToken": token("ann")}
    assert page.say("track", userId="ann", anonymousId="a1", event="x", context=signed) == []
    assert [event.profile_id for event in happened(page.house)] == [ann]
    for wrong in (None, token("bob"), token("ann", MONDAY), "x"):
        context = {"userToken": wrong}
        [warning] = page.say("track", userId="ann", anonymousId="a1", event="y", context=context)
        assert warning.startswith("userId is left out: ")
    stranger = owners(page.house)["anonymous_id", "a1"]
    assert stranger != ann
    assert {e.profile_id for e in happened(page.house) if e.name == "y"} == {stranger}
    answer = page.post("/v1/t", {"userId": "ann", "event": "z"})
    assert problem(answer, 400, "invalid")["field"] == "userId"


def test_the_token_of_a_new_user_makes_a_profile_that_the_server_describes(page: Page) -> None:
    signed = {"userToken": token("new")}
    traits = {"email": "new@example.com", "plan": "gold"}
    page.say("identify", userId="new", anonymousId="a1", traits=traits, context=signed)
    assert people(page.house) == {1: {}}
    assert owners(page.house) == {("user_id", "new"): 1}
    page.server("identify", userId="new", traits={"plan": "silver"})
    page.say("identify", userId="new", traits=traits, context=signed)
    assert people(page.house) == {1: {"plan": "silver"}}


def test_a_public_key_cannot_claim_a_user_id(page: Page) -> None:
    page.say("identify", userId="future", anonymousId="a1", traits={"plan": "evil"})
    page.server("identify", userId="future", traits={})
    everybody = people(page.house)
    assert everybody[owners(page.house)["user_id", "future"]] == {}
    assert len(everybody) == 2


def test_the_server_joins_a_visitor_whose_page_then_only_adds_events(page: Page) -> None:
    page.say("track", anonymousId="a1", event="viewed")
    page.say("identify", anonymousId="a1", traits={"plan": "b"})
    page.server("identify", userId="ann", anonymousId="a1", traits={"plan": "gold"})
    [(ann, attributes)] = people(page.house).items()
    assert attributes == {"plan": "gold"}
    assert page.say("identify", anonymousId="a1", traits={"plan": "c", "more": 1}) == []
    assert page.say("track", anonymousId="a1", event="bought", context={"locale": "fr"}) == []
    assert people(page.house) == {ann: {"plan": "gold"}}
    assert {event.profile_id for event in happened(page.house)} == {ann}
    with page.house.db.transaction(write=False) as tx:
        assert tx.conn.execute(select(profiles.c.language)).scalar_one() is None


def test_an_address_that_a_page_states_is_unconfirmed(page: Page) -> None:
    ann = page.house.customer("ann", email="ann@example.com")
    for traits in ({"email": "ann@example.com"}, {"email": "new@example.com"}):
        assert page.say("identify", anonymousId="a1", traits=traits) == []
    assert owners(page.house)["email", "ann@example.com"] == ann
    assert ("email", "new@example.com") not in owners(page.house)
    visitor = people(page.house)[owners(page.house)["anonymous_id", "a1"]]
    assert visitor == {"unconfirmed_email": "new@example.com"}


def test_a_fault_does_not_affect_the_rest_of_a_batch(page: Page) -> None:
    batch = [
        {"type": "track", "anonymousId": "a1", "event": "one"},
        {"type": "alias", "userId": "u1", "previousId": "a1"},
        {"type": "track", "userId": "u1", "event": "two"},
        {"type": "track", "anonymousId": "a1", "event": "email_confirmation_requested"},
        {"type": "track", "anonymousId": "a1", "event": "three"},
    ]
    said = problem(page.post("/v1/b", {"batch": batch}), 400, "invalid")
    assert [one["field"] for one in said["errors"]] == [
        "batch.1.type",
        "batch.2.userId",
        "batch.3.event",
    ]
    assert (said["accepted"], names(page.house)) == (2, ["one", "three"])


def test_a_message_is_the_same_days_later(page: Page) -> None:
    """A phone that was offline sends a batch again whose response it did not get."""
    said = {"anonymousId": "a1", "event": "bought", "messageId": "m1"}
    page.say("track", **said)
    page.house.db.now = MONDAY + 3 * DAY
    page.say("track", **said)
    assert names(page.house) == ["bought"]


def test_the_no_in_a_refused_call_does_not_count(page: Page) -> None:
    """With a server key it does, for whoever a readable identifier names."""
    page.house.customer("ann")
    said = {"userId": "ann", "anonymousId": {}, "traits": {"unsubscribed": True}}
    before = known_rows(page.house, 1)
    for path, body in (
        ("/v1/i", said),
        ("/v1/b", {"batch": [{"type": "identify", **said}]}),
    ):
        answer = problem(page.post(path, body), 400, "invalid")
        assert "recorded" not in answer["message"]
    assert known_rows(page.house, 1) == before


@pytest.mark.parametrize("kind", ["identify", "track", "group", "page"])
def test_a_response_does_not_reveal_stored_data(page: Page, kind: str) -> None:
    """The same call about somebody known and about somebody unknown."""
    page.house.customer("ann", email="ann@example.com")
    page.server("identify", userId="ann", anonymousId="known-1")
    # an anonymous id that joined through an address that is not verified
    page.server("identify", anonymousId="known-2", traits={"email": "ann@example.com"})

    def answers(number: int, user_id: str, email: str) -> list[tuple[int, bytes]]:
        return [
            (answer.status_code, answer.content)
            for anonymous_id in (f"known-{number}", f"new-{user_id}-{number}")
            for signed in (None, token("ann"))
            for answer in [
                page.post(
                    f"/v1/{kind[0]}",
                    {
                        "anonymousId": anonymous_id,
                        "userId": user_id,
                        "event": "x",
                        "groupId": "g",
                        "traits": {"email": email, "unsubscribed": True},
                        "context": {"locale": "fr", "userToken": signed if number else None},
                    },
                )
            ]
        ]

    for user_id in ("ann", "bob"):
        for number in (1, 2):
            known = answers(number, user_id, "ann@example.com")
            unknown = answers(number, user_id, "nobody@example.com")
            assert known == unknown
    same = answers(0, "ann", "ann@example.com")
    assert len(set(same)) == 1
    assert same == answers(0, "bob", "nobody@example.com")


# A known person keeps what is known ---------------------------------------------------------------

KNOWN = ("ann", "bob", "cid")
ADDRESSES = [f"{name}@example.com" for name in KNOWN]
PHONES = [f"+44770090000{number}" for number in range(1, 5)]
# Rows that calls with a public key may add: events, and profiles of visitors.
GROWING = {"event", "change_counter", "api_key"}


def known_rows(house: House, *profile_ids: int) -> dict[str, list[Row[Any]]]:
    """Everything that is stored about these profiles, except their events."""
    with house.db.transaction(write=False) as tx:
        found: dict[str, list[Row[Any]]] = {}
        for table in SQLModel.metadata.sorted_tables:
            if table.name in GROWING:
                continue
            statement = select(table)
            whose = table.c.get("id") if table is profiles else table.c.get("profile_id")
            if whose is not None:
                statement = statement.where(whose.in_(profile_ids))
            found[table.name] = sorted(tx.conn.execute(statement), key=str)
        return found


ID = st.sampled_from([*KNOWN, "dan", "a-ann", "a-bob", "a-new", "visitor", 7, None])
EMAIL = st.sampled_from([*ADDRESSES, "new@example.com", None])
TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "email": EMAIL,
        "email_verified": st.booleans(),
        "phone": st.sampled_from([*PHONES, None]),
        "plan": st.sampled_from(["gold", None]),
        "first_name": st.just("Eve"),
        "group_id": st.just("g1"),
        "country": st.sampled_from(["FR", None]),
        "timezone": st.sampled_from(["Asia/Tokyo", None]),
        "language": st.sampled_from(["fr", None]),
        "unsubscribed": st.booleans(),
        "news": st.booleans(),
    },
)
TOKEN = st.one_of(
    st.none(),
    st.just("x"),
    st.sampled_from([token(name) for name in KNOWN]),
    st.sampled_from([token(name, MONDAY - 1) for name in KNOWN]),
    st.sampled_from([token("dan"), token("7")]),
)
CONTEXT = st.fixed_dictionaries(
    {},
    optional={
        "userToken": TOKEN,
        "traits": TRAITS,
        "locale": st.just("de"),
        "timezone": st.just("Europe/Berlin"),
        "device": st.fixed_dictionaries(
            {"token": st.sampled_from([*(f"token-{name}" for name in KNOWN), "token-new"])},
            optional={"type": st.just("ios"), "removed": st.booleans()},
        ),
    },
)
CALL = st.fixed_dictionaries(
    {"type": st.sampled_from(list(MODELS))},
    optional={
        "userId": ID,
        "anonymousId": ID,
        "previousId": ID,
        "groupId": ID,
        "event": st.sampled_from(["x", "signed_up", PROFILE_CHANGED, "whatsapp_replied"]),
        "traits": TRAITS,
        "context": CONTEXT,
        "timestamp": st.sampled_from(["2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]),
        "messageId": st.sampled_from(["m1", "m2"]),
    },
)
CALLS = 10  # an example


@pytest.mark.proof
@pytest.mark.parametrize("together", [True, False], ids=["batch", "single"])
def test_no_call_with_a_public_key_changes_a_known_person(db: Database, together: bool) -> None:
    house = House(db)
    house.open(policy=POLICY, user_token_secret=SECRET, public_address_rate=10**6)
    key = made_key(house)
    with receiving(house.segue) as receiver:
        page = Page(house, receiver, key)
        known = [house.customer(name, attributes={"plan": "silver"}) for name in KNOWN]
        for name in KNOWN:
            page.server("identify", userId=name, anonymousId=f"a-{name}")
            page.server("group", userId=name, groupId="g1", traits={"size": 5})
        house.say(known[0], "email", "news", granted=False)
        before = known_rows(house, *known)

        @settings(max_examples=cases(test=12, prove=100), suppress_health_check=list(HealthCheck))
        @given(st.lists(CALL, min_size=CALLS, max_size=CALLS))
        def nothing_changes(calls: list[dict[str, Any]]) -> None:
            if together:
                assert page.post("/v1/b", {"batch": calls}).status_code in (200, 400)
            else:
                for call in calls:
                    answer = page.post(f"/v1/{call['type']}", call)
                    assert answer.status_code in (200, 400)
            after = known_rows(house, *known)
            assert after == before
            with db.transaction(write=False) as tx:
                assert tx.conn.execute(select(merges)).all() == []

        nothing_changes()
        # Only the holders of their tokens became users, and nobody else has an address.
        others = {key for key, owner in owners(house).items() if owner not in known}
        assert {value for kind, value in others if kind == "user_id"} <= {"dan", "7"}
        assert {kind for kind, _ in others} <= {"user_id", "anonymous_id"}
        with db.transaction(write=False) as tx:
            counted = tx.conn.execute(select(events.c.id)).all()
        assert counted, "some calls were accepted"
