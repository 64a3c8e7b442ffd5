"""Work that a program does once, done once for all tests of a process.

A test has a database of its own and connects the providers in each run. SQLAlchemy compiles the
same statements again for each engine, and pydantic reads the same settings again, which together
take a quarter of the time of a test of rows.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from pydantic_settings import BaseSettings
from sqlalchemy import create_engine
from sqlalchemy.util import LRUCache

from config.settings import read_environment

_STATEMENTS = 2000


class _ByDialectName(LRUCache[Any, Any]):
    """The keys begin with a dialect object, of which each engine has one; they equal by name."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((key[0].name, *key[1:]), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((key[0].name, *key[1:]), value)


def _environment() -> frozenset[tuple[str, str]]:
    """All variables but the one in which pytest writes the name of each test."""
    return frozenset(one for one in os.environ.items() if one[0] != "PYTEST_CURRENT_TEST")


class _Read:
    """Settings by model, prefix and the whole environment; a wrong value raises every time."""

    def __init__(self) -> None:
        self._known: dict[Any, BaseSettings] = {}

    def __call__(self, model: type[BaseSettings], prefix: str | None = None) -> BaseSettings:
        key = model, prefix, _environment()
        if key not in self._known:
            self._known[key] = read_environment(model, prefix)
        return self._known[key].model_copy()


@contextmanager
def done_once() -> Iterator[None]:
    """Share compiled statements among engines, and the providers' settings that are read."""
    shared = {"compiled_cache": _ByDialectName(_STATEMENTS)}
    create = partial(create_engine, execution_options=shared)
    with (
        patch("config.database.engine.create_engine", create),
        patch("channels.providers.registry.read_environment", _Read()),
    ):
        yield
