"""Commands on the test's shop."""

import pytest

from tests.support.commands import Segue, commands
from tests.support.shop import House


@pytest.fixture
def segue(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Segue:
    """Run a command on the shop's database, at its time, with its journeys."""
    return commands(house, monkeypatch, capsys)
