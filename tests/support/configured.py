"""Settings for a test, including those of providers."""

import os
from collections.abc import Hashable
from functools import cache
from typing import Any

from config.settings import Settings
from tests.support.once import environment


def configured(**values: Any) -> Settings:
    """Settings with these values. Those that providers read are set in the environment.

    `tests/conftest.py` restores the environment after each test.
    """
    ours = {name: value for name, value in values.items() if name in Settings.model_fields}
    for name in values.keys() - ours.keys():
        os.environ[f"SEGUE_{name.upper()}"] = str(values[name])
    hashable = all(isinstance(value, Hashable) for value in ours.values())
    return _read(environment(), **ours).model_copy() if hashable else Settings(**ours)


@cache
def _read(_environment: frozenset[tuple[str, str]], **ours: Any) -> Settings:
    """Once for each environment and values: pydantic takes 2 ms."""
    return Settings(**ours)
