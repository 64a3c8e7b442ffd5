"""A sandbox with an empty store, and a client of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.app import create_app
from sandbox.store import Store
from tests.support.providers.sandbox_requests import (
    LOGIN,
    client_of,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "sandbox.db")
    yield store
    store.close()


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(store, login=LOGIN)) as client:
        yield client
