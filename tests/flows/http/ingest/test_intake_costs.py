"""How many statements and transactions a call costs, from the request to the commit."""

import time
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import event

from config.access.user_tokens import user_token
from tests.support.counting import statements
from tests.support.http.receiving import WRITE_KEY, Receiving, keys, made_key, receiving, track
from tests.support.shop import House

_PEOPLE = 100
_SERVER = httpx.BasicAuth(WRITE_KEY, "")
_IN_BODY = httpx.Auth()  # no header
SECRET = SecretStr("the-secret-of-the-user-tokens")


@pytest.fixture
def known(house: House) -> House:
    """Customers u1 to u100. The database's clock is read, as in production."""
    house.open(user_token_secret=SECRET)
    for number in range(1, _PEOPLE + 1):
        house.customer(f"u{number}")
    house.db.now = None
    return house


def cost(
    house: House,
    receiver: Receiving,
    path: str,
    said: Any,
    auth: httpx.Auth = _SERVER,
) -> tuple[int, int]:
    """The statements and the transactions of a request."""
    commits = []

    def note(_conn: Any) -> None:
        commits.append(1)

    event.listen(house.db.engine, "commit", note)
    with statements(house.db) as executed:
        assert receiver.client.post(path, json=said, auth=auth).status_code == 200
    event.remove(house.db.engine, "commit", note)
    return len(executed), len(commits)


def batch() -> dict[str, Any]:
    calls = [track(one, messageId=f"again-{one}") for one in range(1, _PEOPLE + 1)]
    return {"batch": calls}


def identified(number: int, plan: str) -> dict[str, Any]:
    return {"type": "identify", "userId": f"u{number}", "traits": {"plan": plan}}


def test_a_call_of_a_known_profile(known: House) -> None:
    """Resolve and lock with the clock, insert the event. The backlog is counted once a second."""
    known.shorten(backlog_every=3600)
    with receiving(known.segue) as receiver:
        cost(known, receiver, "/v1/track", track(1))
        assert cost(known, receiver, "/v1/track", track(1, messageId="m")) == (2, 1)
        assert cost(known, receiver, "/v1/track", track(1, messageId="m")) == (2, 1)
        both = track(2, messageId="n", properties={"a": 1}, context={"ip": "203.0.113.7"})
        assert cost(known, receiver, "/v1/track", both) == (2, 1)
    assert keys(known) == ["m1", "m", "n"]


def test_a_made_key_and_a_user_token_cost_no_statement(known: House) -> None:
    """The keys are read once a second, with the time for the tokens."""
    known.shorten(backlog_every=3600, keys_every=3600)
    web, crm = made_key(known), made_key(known, "crm", public=False)
    with receiving(known.segue) as receiver:
        known.db.now = None
        cost(known, receiver, "/v1/track", track(1))
        visitor = {"anonymousId": "a1", "event": "x"}
        cost(known, receiver, "/v1/t", visitor | {"writeKey": web}, auth=_IN_BODY)
        for key in (web, crm):
            said = visitor | {"messageId": key, "writeKey": key}
            assert cost(known, receiver, "/v1/t", said, auth=_IN_BODY) == (2, 1)
        token = user_token(SECRET, "u1", int(time.time()) + 3600)
        signed = track(1, messageId="t", writeKey=web, context={"userToken": token})
        assert cost(
            known, receiver, "/v1/b", {"batch": [signed], "writeKey": web}, auth=_IN_BODY
        ) == (
            2,
            1,
        )
    assert keys(known)[-3:] == [web, crm, "t"]


def test_a_call_that_changes_a_known_profile(known: House) -> None:
    """And: look for a repetition, read the profile and its identifiers, update both."""
    known.shorten(backlog_every=3600)
    with receiving(known.segue) as receiver:
        cost(known, receiver, "/v1/track", track(1))
        assert cost(known, receiver, "/v1/identify", identified(1, "gold")) == (7, 1)
        located = track(2, messageId="m", context={"locale": "de-DE"})
        assert cost(known, receiver, "/v1/track", located) == (7, 1)


def test_the_backlog_is_counted_by_one_statement(known: House) -> None:
    known.shorten(backlog_every=0)
    with receiving(known.segue) as receiver:
        assert cost(known, receiver, "/v1/track", track(1)) == (3, 2)


def test_a_batch_costs_as_much_as_a_call(known: House) -> None:
    """A transaction takes at least 200 calls, and up to 2,000 while that takes little time."""
    known.shorten(backlog_every=3600)
    with receiving(known.segue) as receiver:
        cost(known, receiver, "/v1/track", track(1))
        assert cost(known, receiver, "/v1/batch", batch()) == (2, 1)
        few = [identified(number, "gold") for number in range(1, 26)]
        assert cost(known, receiver, "/v1/batch", {"batch": few}) == (7, 1)
