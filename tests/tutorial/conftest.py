"""The start of every chapter: an empty library, a policy, and a shop without customers."""

from pathlib import Path
from textwrap import dedent

import pytest

from config.database.engine import Database
from config.policy import Policy
from tests.support.shop import House

POLICY = Policy.model_validate(
    {
        "timezone": "Europe/London",
        "topics": {"news": "News", "promotions": "Offers"},
        "channels": {
            "email": {"windows": [{"days": "mon-sun", "from": "08:00", "to": "21:00"}]},
            "sms": {"windows": [{"days": "mon-fri", "from": "09:00", "to": "17:00"}]},
            "push": {"windows": [{"days": "mon-sun", "from": "08:00", "to": "21:00"}]},
        },
        "caps": [{"channels": ["email"], "limit": 1, "per": "day"}],
    }
)


class Library:
    """A folder of journeys, one folder each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, file: str, text: str) -> None:
        """Write a file, as a marketer would with an editor."""
        target = self.path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dedent(text).lstrip(), encoding="utf-8")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


@pytest.fixture
def shop(db: Database) -> House:
    """A shop on a Monday morning, 10:00 in London."""
    return House(db)


@pytest.fixture
def policy() -> Policy:
    return POLICY
