"""Fixtures: the processes that `segue up` starts, one set for all tests of this package.

They stop when pytest goes on to another package: the runner asks Prefect for work all the time.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.clock.times import parse_instant
from config.settings import Settings
from flows.app import Segue, open_segue
from flows.local.stack import Stack, on_free_ports
from profiles.sample.shop import load_sample_shop
from tests.support.prefect_server import keep_database

# Of the sample shop's 400 customers.
MOST_WITHOUT_APPROVAL = 350
_MONDAY = parse_instant("2026-03-02T09:00:00Z")


@pytest.fixture(scope="package")
def segue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segue]:
    """The sample shop on a Monday morning."""
    ours = {"data_dir": tmp_path_factory.mktemp("segue"), "now": _MONDAY}
    found = open_segue(on_free_ports(Settings().model_copy(update=ours)))
    load_sample_shop(found.db, _MONDAY, customers=400)
    with closing(found.db):
        yield found


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a copy of Prefect's database without runs is, once `stack` has made it."""
    return tmp_path_factory.mktemp("prefect") / "prefect.db"


@pytest.fixture(scope="package")
def approval_policy(segue: Segue) -> Path:
    """A policy file by which launches for more people wait."""
    policy = segue.settings.data_dir / "policy.toml"
    policy.write_text(
        f"{segue.settings.policy_file.read_text()}\n[approval]\npeople = {MOST_WITHOUT_APPROVAL}\n"
    )
    return policy


@pytest.fixture(scope="package")
def stack(segue: Segue, approval_policy: Path, prefect_database: Path) -> Iterator[Stack]:
    """Its servers and the runner, in which launches for more people wait."""
    with Stack(segue.settings) as stack:
        # Only while they start: other tests of this process have the usual policy.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEGUE_POLICY_FILE", str(approval_policy))
            stack.start_servers()
            stack.wait_for_servers()
            keep_database(segue.settings, prefect_database)
            stack.start_runner(segue.catalog.current)
        yield stack
