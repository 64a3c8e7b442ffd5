"""Where the key of a request is looked for, which key may do what, and the rates of public keys."""

import logging
from base64 import b64encode
from ipaddress import ip_network
from typing import Any

import orjson
import pytest

from config.access.api_keys import revoke_key
from flows.http.limits.connections import Limits
from flows.http.limits.rates import BURST
from tests.support.http.receiving import (
    SHOP,
    WRITE_KEY,
    Receiving,
    keys,
    made_key,
    names,
    problem,
    receiving,
    track,
)
from tests.support.shop import House

WRONG = "sk_of-somebody-else"


def basic(key: str) -> str:
    return f"Basic {b64encode(f'{key}:'.encode()).decode()}"


def post(receiver: Receiving, **where: Any) -> int:
    """The status of a call with keys in the named places."""
    headers = {}
    if "basic" in where:
        headers["Authorization"] = basic(where["basic"])
    if "bearer" in where:
        headers["Authorization"] = f"Bearer {where['bearer']}"
    body = track() | ({"writeKey": where["body"]} if "body" in where else {})
    query = f"?writeKey={where['query']}" if "query" in where else ""
    content = orjson.dumps(body)
    return receiver.client.post(f"/v1/track{query}", content=content, headers=headers).status_code


@pytest.mark.parametrize("place", ["basic", "bearer", "body", "query"])
def test_a_key_is_found_in_each_place(receiver: Receiving, place: str) -> None:
    assert post(receiver, **{place: WRITE_KEY}) == 200
    assert post(receiver, **{place: WRONG}) == 401
    assert post(receiver) == 401
    if place != "bearer":  # httpx sends no empty one
        assert post(receiver, **{place: ""}) == 401


@pytest.mark.parametrize(
    ("first", "second"), [("basic", "body"), ("bearer", "body"), ("basic", "query")]
)
def test_the_first_of_several_keys_is_used(receiver: Receiving, first: str, second: str) -> None:
    assert post(receiver, **{first: WRITE_KEY, second: WRONG}) == 200
    assert post(receiver, **{first: WRONG, second: WRITE_KEY}) == 401
    assert post(receiver, body=WRONG, query=WRITE_KEY) == 401
    assert post(receiver, body=WRITE_KEY, query=WRONG) == 200


def test_a_batch_has_its_key_in_the_body_too(house: House, receiver: Receiving) -> None:
    batch = {"batch": [track(1), track(2)]}
    answer = receiver.client.post("/v1/b", json=batch | {"writeKey": WRONG})
    problem(answer, 401, "not_signed_in")
    assert names(house) == []
    answer = receiver.client.post("/v1/b", json=batch | {"writeKey": WRITE_KEY})
    assert answer.status_code == 200
    assert keys(house) == ["m1", "m2"]


def test_any_content_type_is_read_as_json(house: House, receiver: Receiving) -> None:
    for number, kind in enumerate(
        ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8")
    ):
        content = orjson.dumps(track(number, writeKey=WRITE_KEY))
        answer = receiver.client.post("/v1/t", content=content, headers={"Content-Type": kind})
        assert answer.status_code == 200
    assert keys(house) == ["m0", "m1", "m2"]


def test_a_made_key_is_accepted_until_it_is_revoked(house: House) -> None:
    house.open()
    house.shorten(keys_every=0)
    key = made_key(house, "crm", public=False)
    with receiving(house.segue) as receiver:
        assert receiver.post("/v1/track", json=track(), auth=(key, "")).status_code == 200
        with house.db.transaction() as tx:
            revoke_key(tx, "crm")
        problem(receiver.post("/v1/track", json=track(), auth=(key, "")), 401, "not_signed_in")
        assert receiver.post("/v1/track", json=track()).status_code == 200


def test_a_public_key_states_no_consent(house: House) -> None:
    house.open()
    key = made_key(house)
    said = {"userId": "u1", "channel": "sms", "granted": False, "source": "form"}
    with receiving(house.segue) as receiver:
        answer = receiver.post("/v1/consent", json=said, auth=(key, ""))
        problem(answer, 403, "public_key")
        assert receiver.post("/v1/consent", json=said).status_code == 200


def test_pages_of_other_origins_may_not_use_a_public_key(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.open()
    web, app = made_key(house), made_key(house, "app", origins=())
    with receiving(house.segue) as receiver:

        def sent(key: str, origin: str | None) -> int:
            headers = {"Origin": origin} if origin else {}
            said = {"anonymousId": "a1", "event": "x"}
            answer = receiver.post("/v1/track", json=said, auth=(key, ""), headers=headers)
            return answer.status_code

        assert [sent(web, origin) for origin in (SHOP, None)] == [200, 200]
        others = ("https://evil.example", f"{SHOP}:8443", "http://shop.example", "null")
        with caplog.at_level(logging.WARNING):
            assert {sent(web, origin) for origin in others} == {403}
        assert [sent(app, origin) for origin in (SHOP, None)] == [403, 200]
    assert "the public key web" in caplog.text
    assert web not in caplog.text


@pytest.mark.parametrize("limited", ["public_key_rate", "public_address_rate"])
def test_a_public_key_is_slowed_above_its_rate(
    house: House, limited: str, caplog: pytest.LogCaptureFixture
) -> None:
    rates: dict[str, Any] = {limited: 1}
    house.open(**rates)
    key = made_key(house)
    with receiving(house.segue) as receiver:

        def send(number: int, auth: str) -> Any:
            call = {"type": "track", "anonymousId": "a1", "event": "x"}
            return receiver.post("/v1/b", json={"batch": [call] * number}, auth=(auth, ""))

        assert send(BURST + 90, key).status_code == 200
        answer = send(1, key)
        problem(answer, 429, "too_many")
        assert 1 <= int(answer.headers["Retry-After"]) <= 91
        in_body = {"batch": [], "writeKey": key}
        problem(receiver.client.post("/v1/b", json=in_body), 429, "too_many")
        assert send(100, WRITE_KEY).status_code == 200, "a server key is not slowed"
    assert "the public key web" in caplog.text


@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
def test_addresses_are_forwarded_only_by_named_proxies(house: House, named: bool) -> None:
    """Otherwise a sender could evade its rate with an address of its own making in each call."""
    house.open(public_address_rate=1)
    key = made_key(house)
    proxies = [ip_network("127.0.0.1")] if named else []
    with receiving(house.segue, Limits(), proxies=proxies) as receiver:

        def send(number: int, address: str) -> int:
            call = {"type": "track", "anonymousId": "a1", "event": "x"}
            headers = {"X-Forwarded-For": address}
            return receiver.post(
                "/v1/b", json={"batch": [call] * number}, auth=(key, ""), headers=headers
            ).status_code

        assert send(BURST + 50, "203.0.113.7") == 200
        assert send(1, "203.0.113.7") == 429
        assert send(1, "203.0.113.8") == (200 if named else 429)
        assert send(BURST + 50, "2001:db8::1") == (200 if named else 429)
        assert send(1, "2001:db8::2") == 429, "a /64 is one sender"


def test_a_public_key_sends_fewer_calls_at_once(house: House) -> None:
    house.open()
    key = made_key(house)
    with receiving(house.segue) as receiver:
        batch = {"batch": [0] * 2501}
        answer = receiver.post("/v1/batch", json=batch, auth=(key, ""))
        assert problem(answer, 413, "too_large")["message"].startswith("batch: more than 2500")
        problem(receiver.post("/v1/batch", json=batch), 400, "invalid")
