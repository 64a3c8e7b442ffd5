"""Files beside the checkout: a real year of orders, and experiments that gbstats has compared.

They are not part of the project; tests that need them are skipped where they are absent.
"""

from typing import Any

import orjson
import pytest

from config.settings import ROOT

_SHARED = ROOT.parent / "shared"
DATA = _SHARED / "data"
_EXPERIMENTS = _SHARED / "experiments.jsonl"

needs_orders = pytest.mark.skipif(
    not (DATA / "orders.csv").is_file(), reason=f"put customers.csv and orders.csv into {DATA}"
)
needs_experiments = pytest.mark.skipif(
    not _EXPERIMENTS.is_file(), reason=f"put experiments.jsonl into {_EXPERIMENTS.parent}"
)


def experiments() -> list[dict[str, Any]]:
    """Cases with the results of gbstats 0.8.0 (GrowthBook's package)."""
    return [orjson.loads(line) for line in _EXPERIMENTS.read_bytes().splitlines()]
