"""The deployment `yardstick` writes one artifact with the figures of all journeys."""

import asyncio
from typing import Any

import pytest

from flows.orchestration import yardstick_flow as module
from flows.orchestration.deployments import deployments
from flows.orchestration.names import YARDSTICK
from journeys.dsl import Exit
from tests.support.shop import House, described


def test_the_flow_writes_the_artifact(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []

    async def create(text: str, key: str, _: str) -> None:
        written.append((key, text))

    segue = house.open(described(Exit("out", "over")))
    house.did(house.customer(), "order_completed", total_gbp=12.5)
    monkeypatch.setattr(module, "acreate_markdown_artifact", create)
    monkeypatch.setattr(module, "open_segue", lambda: segue)
    flow: Any = module.yardstick_flow
    state = asyncio.run(flow.fn(since="2026-01-01"))
    assert state.is_completed()
    [(key, text)] = written
    assert key == "yardstick"
    assert "| 2026 Q1 | all | revenue | 12.50 GBP | 12.5 of 1 |" in text


def test_it_has_a_deployment() -> None:
    [found] = [one for one in deployments() if one.name == YARDSTICK]
    assert found.entrypoint == "flows.orchestration.library.yardstick"
