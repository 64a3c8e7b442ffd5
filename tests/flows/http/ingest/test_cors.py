"""CORS: which pages may send, with the headers of each client, and what they may read."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from config.access.api_keys import revoke_key
from tests.support.http.receiving import SHOP, Receiving, leave_unworked, made_key, receiving
from tests.support.shop import House

OTHER = "https://evil.example"
# As Chromium sends them for analytics-next 1.84 and RudderStack JS 3.34, first tries and retries.
ASKED = [
    ("/v1/t", "authorization"),
    ("/v1/b", "authorization,x-retry-count"),
    ("/v1/track", "anonymousid,authorization,content-type,sentat"),
    ("/v1/batch", "anonymousid,authorization,content-type,rsa-retry-attempt,sentat"),
    ("/sourceConfig/", "authorization,content-type"),
    ("/v1/projects/k/settings", ""),
    ("/beacon/v1/batch", "content-type"),
]


@pytest.fixture
def page(house: House) -> Iterator[Receiving]:
    """A receiver with one public key, for the pages of SHOP."""
    house.open()
    made_key(house)
    with receiving(house.segue) as receiver:
        yield receiver


def preflight(receiver: Receiving, path: str, origin: str, asked: str = "") -> httpx.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    if asked:
        headers["Access-Control-Request-Headers"] = asked
    return receiver.client.options(path, headers=headers)


def cors(answer: httpx.Response) -> dict[str, str]:
    start = "access-control-"
    return {
        name.removeprefix(start): value
        for name, value in answer.headers.items()
        if name.startswith(start)
    }


@pytest.mark.parametrize(("path", "asked"), ASKED)
def test_a_preflight_gets_what_the_client_asks_for(page: Receiving, path: str, asked: str) -> None:
    answer = preflight(page, path, SHOP, asked)
    assert answer.status_code == 204
    found = cors(answer)
    assert (found["allow-origin"], found["allow-credentials"]) == (SHOP, "true")
    assert found["allow-headers"].replace(" ", "") == asked
    assert {"GET", "POST"} <= set(found["allow-methods"].split(", "))
    assert int(found["max-age"]) >= 600
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("origin", [OTHER, "null", "https://shop.example.evil.example"])
def test_other_origins_are_refused(page: Receiving, origin: str) -> None:
    answer = preflight(page, "/v1/t", origin, "authorization")
    assert (answer.status_code, cors(answer)) == (403, {})
    answer = page.post("/v1/t", json={}, headers={"Origin": origin})
    assert cors(answer) == {}


def test_nothing_is_allowed_without_a_live_public_key(house: House) -> None:
    house.open()
    house.shorten(keys_every=0)
    with receiving(house.segue) as receiver:
        assert preflight(receiver, "/v1/t", SHOP).status_code == 403
        made_key(house)
        assert preflight(receiver, "/v1/t", SHOP).status_code == 204
        with house.db.transaction() as tx:
            revoke_key(tx, "web")
        assert preflight(receiver, "/v1/t", SHOP).status_code == 403


def test_other_headers_and_other_paths_are_not_allowed(page: Receiving) -> None:
    asked = "authorization,x-evil,cookie"
    assert cors(preflight(page, "/v1/t", SHOP, asked))["allow-headers"] == "authorization"
    for path in ("/hooks/journeys/j", "/metrics", "/preferences/x", "/docs"):
        assert cors(preflight(page, path, SHOP)) == {}
        assert cors(page.client.get(path, headers={"Origin": SHOP})) == {}


def test_pages_may_read_every_response_and_its_retry_after(house: House) -> None:
    """A refusal without these headers looks to a page as if the network was down."""
    house.open(backlog_limit=1)
    key = made_key(house)
    said = {"anonymousId": "a1", "event": "x"}
    with receiving(house.segue) as receiver:

        def send(status: int, **options: Any) -> httpx.Response:
            given: dict[str, Any] = {
                "auth": (key, ""),
                "json": said,
                "headers": {"Origin": SHOP},
                **options,
            }
            answer = receiver.client.post("/v1/t", **given)
            assert answer.status_code == status
            assert cors(answer) == {
                "allow-origin": SHOP,
                "allow-credentials": "true",
                "expose-headers": "Retry-After",
            }
            assert answer.headers["Vary"] == "Origin"
            return answer

        send(200)
        send(400, json={"anonymousId": "a1"})
        answer = send(401, auth=("wrong", ""))
        assert "WWW-Authenticate" not in answer.headers, "a browser would ask for a password"
        send(413, json=said | {"properties": {"text": "x" * 40_000}})
        leave_unworked(house, 3)
        house.shorten(backlog_every=0)
    with receiving(house.segue) as receiver:
        assert int(send(429).headers["Retry-After"]) > 0


def test_a_database_error_is_readable_too(
    house: House, page: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of the last read count while the database fails."""
    assert preflight(page, "/v1/t", SHOP).status_code == 204

    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    house.shorten(keys_every=0)
    monkeypatch.setattr("flows.http.ingest.segment.take_calls", fail)
    monkeypatch.setattr("flows.http.ingest.key_cache.live_keys", fail)
    said = {"userId": "u", "event": "x"}
    answer = page.post("/v1/t", json=said, headers={"Origin": SHOP})
    assert (answer.status_code, cors(answer)["allow-origin"]) == (503, SHOP)
