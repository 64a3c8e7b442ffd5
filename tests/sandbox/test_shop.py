"""The sample shop: its page's key, and what its server does at sign-in."""

import html
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from config.access.api_keys import digest_of, list_keys, live_keys, revoke_key
from config.access.user_tokens import fault_of
from config.settings import Settings
from sandbox.app import create_app
from sandbox.shop.pages import Shop
from sandbox.store import Store
from tests.support.providers.sandbox_requests import LOGIN, client_of
from tests.support.shop import MONDAY, House

pytestmark = pytest.mark.anyio

SECRET = SecretStr("the-secret-of-the-user-tokens")
SIGN_IN = {"name": "Mara", "email": "Mara@example.com", "anonymous_id": "visitor-1"}


class Visit:
    """A visitor of the shop, and the receiver that its server calls."""

    def __init__(self, house: House, data_dir: Path, store: Store) -> None:
        self.house = house
        self.calls: list[httpx.Request] = []
        self.status = 200
        self.settings = Settings(data_dir=data_dir, user_token_secret=SECRET)
        receiver = httpx.AsyncClient(
            base_url=self.settings.public_url, transport=httpx.MockTransport(self._answer)
        )
        shop = Shop(self.settings, house.db, receiver)
        self.app = create_app(store, shop=shop, login=LOGIN)
        self.client: httpx.AsyncClient

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        return httpx.Response(self.status, json={"success": self.status == 200})

    async def key(self) -> str:
        """The key that stands in the page."""
        page = await self.client.get("/shop")
        assert page.status_code == 200, page.text
        [key] = re.findall(r'data-write-key="([^"]+)"', page.text)
        return html.unescape(key)

    def labels(self) -> list[str]:
        with self.house.db.transaction(write=False) as tx:
            return [one.label for one in list_keys(tx)]


@pytest.fixture
async def visit(house: House, tmp_path: Path) -> AsyncIterator[Visit]:
    store = Store(tmp_path / "sandbox.db")
    visit = Visit(house, tmp_path, store)
    async with client_of(visit.app) as client:
        visit.client = client
        yield visit
    store.close()


async def test_the_page_keeps_one_public_key_for_its_own_origins(visit: Visit) -> None:
    key = await visit.key()
    assert await visit.key() == key
    with visit.house.db.transaction(write=False) as tx:
        live = live_keys(tx)
    known = live[digest_of(key)]
    port = visit.settings.sandbox_port
    assert known.is_public
    assert known.origins == {f"http://127.0.0.1:{port}", f"http://localhost:{port}"}
    assert len(live) == 1


async def test_a_revoked_or_lost_key_is_replaced(visit: Visit) -> None:
    first = await visit.key()
    [label] = visit.labels()
    with visit.house.db.transaction() as tx:
        revoke_key(tx, label)
    second = await visit.key()
    (visit.settings.data_dir / "shop-key").unlink()
    third = await visit.key()
    assert len({first, second, third}) == 3
    assert len(visit.labels()) == 3


async def test_the_page_loads_scripts_from_here_alone(visit: Visit) -> None:
    page = await visit.client.get("/shop")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert f"connect-src 'self' {visit.settings.public_url};" in policy
    files = re.findall(r'(?:src|href)="(/shop/[^"]+)"', page.text)
    assert len(files) == 3
    for file in files:
        found = await visit.client.get(file)
        assert found.status_code == 200
        assert found.headers["content-type"].startswith(
            "text/css" if file.endswith(".css") else "text/javascript"
        )


async def test_at_sign_in_the_server_states_the_customer_and_signs_a_token(visit: Visit) -> None:
    answer = await visit.client.post("/shop/sign-in", json=SIGN_IN)
    signed: dict[str, Any] = answer.json()
    assert answer.status_code == 200
    assert fault_of(signed["userToken"], SECRET, signed["userId"], MONDAY) is None
    [call] = visit.calls
    assert call.url.path == "/v1/identify"
    assert call.headers["authorization"].startswith("Basic ")
    assert json.loads(call.content) == {
        "userId": signed["userId"],
        "anonymousId": "visitor-1",
        "traits": {"email": "Mara@example.com", "firstName": "Mara"},
    }
    again = await visit.client.post("/shop/sign-in", json=SIGN_IN | {"email": "mara@EXAMPLE.com"})
    assert again.json()["userId"] == signed["userId"]


@pytest.mark.parametrize(
    "stated",
    [b"", b"[]", b'{"name": "Mara"}', b'{"name": "", "email": "a@b.example"}',
     b'{"name": "Mara", "email": "no address"}'],
)  # fmt: skip
async def test_an_incomplete_sign_in_is_refused(visit: Visit, stated: bytes) -> None:
    answer = await visit.client.post("/shop/sign-in", content=stated)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert visit.calls == []


async def test_a_sign_in_that_segue_does_not_accept_fails(visit: Visit) -> None:
    visit.status = 503
    answer = await visit.client.post("/shop/sign-in", json=SIGN_IN)
    assert answer.status_code == 502
    assert "503" in answer.json()["error"]
