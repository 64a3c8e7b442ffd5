"""Work that a program does once, done once for all tests of a process.

A test has a database and a receiver of its own and connects the providers in each run. SQLAlchemy
compiles the same statements again for each engine, pydantic reads the same settings again, and
FastAPI builds the same response models again. Together this takes a quarter of the CPU time of a
test of rows, and half of that of a request.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from fastapi.utils import create_model_field
from pydantic_settings import BaseSettings
from sqlalchemy import create_engine
from sqlalchemy.util import LRUCache

from config.database.execution import CompiledForDriver
from config.settings import read_environment

_STATEMENTS = 2000


class _ByDialectName(LRUCache[Any, Any]):
    """The keys begin with a dialect object, of which each engine has one; they equal by name."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((key[0].name, *key[1:]), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((key[0].name, *key[1:]), value)


def environment() -> frozenset[tuple[str, str]]:
    """All variables but the one in which pytest writes the name of each test."""
    return frozenset(one for one in os.environ.items() if one[0] != "PYTEST_CURRENT_TEST")


class _Read:
    """Settings by model, prefix and the whole environment; a wrong value raises every time."""

    def __init__(self) -> None:
        self._known: dict[Any, BaseSettings] = {}

    def __call__(self, model: type[BaseSettings], prefix: str | None = None) -> BaseSettings:
        key = model, prefix, environment()
        if key not in self._known:
            self._known[key] = read_environment(model, prefix)
        return self._known[key].model_copy()


class _ResponseModels:
    """FastAPI's models of responses, which only describe a type and do not change."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(self, **what: Any) -> Any:
        key = frozenset(what.items())
        if key not in self._known:
            self._known[key] = create_model_field(**what)
        return self._known[key]


class _Compiled:
    """The statements that the driver executes itself, by the name of the dialect too."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(self, statement: Any, dialect: Any) -> Any:
        key = statement, dialect.name
        if key not in self._known:
            self._known[key] = CompiledForDriver(statement, dialect)
        return self._known[key]


@contextmanager
def done_once() -> Iterator[None]:
    """Share compiled statements among engines, settings that are read, and response models."""
    shared = {"compiled_cache": _ByDialectName(_STATEMENTS)}
    create = partial(create_engine, execution_options=shared)
    with (
        patch("config.database.engine.create_engine", create),
        patch("config.database.execution.compiled_for", _Compiled()),
        patch("channels.providers.registry.read_environment", _Read()),
        patch("fastapi.routing.create_model_field", _ResponseModels()),
    ):
        yield
