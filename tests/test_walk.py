"""The number of files that one event crosses from HTTP to the provider.

`pytest -s tests/test_walk.py` prints them in the order in which they are entered.
"""

import sys

from tests.support.shop import House
from tests.support.structure.walk import walk


def test_an_event_crosses_few_files(sqlite_house: House) -> None:
    found = walk(sqlite_house)
    sys.stdout.write(f"\n{found}\n")
    assert next(iter(found.files)).startswith("flows/http/")
    assert "channels/providers/sendgrid.py" in found.files
    assert len(found.files) <= 75  # docs/decisions/0034-what-an-event-crosses.md
