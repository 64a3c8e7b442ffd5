"""The staff site on a port of its own, with the sample shop or without customers."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import uvicorn

from config.clock.times import HOUR
from config.database.engine import Database
from config.policy import ApprovalRule, load_policy
from config.settings import Settings
from flows.http.staff.app import create_app
from journeys.definition.catalog import LIBRARY
from journeys.operations.heartbeat import record_heartbeat
from profiles.sample.shop import load_sample_shop
from tests.support.http.staff import insert_user
from tests.support.shop import MONDAY, House

BRAND = "Segue Sample Shop"


def sample_house(db: Database, url: str, customers: int, **settings: Any) -> House:
    """The sample shop an hour after a launch, with another launch that waits for approval.

    Without customers nothing is launched. `zoe` is an admin.
    """
    house = House(db)
    policy = load_policy(Settings().policy_file)
    house.open_library(LIBRARY, policy, staff_url=url, brand=BRAND, **settings)
    with db.transaction() as tx:
        insert_user(tx, "zoe", "admin")
    if customers:
        load_sample_shop(db, MONDAY, customers=customers)
        with ThreadPoolExecutor(1) as apart:  # Playwright's loop may run in this thread
            apart.submit(_work, house).result()
        policy = policy.model_copy(update={"approval": ApprovalRule(people=1)})
        house.open_library(LIBRARY, policy, staff_url=url, brand=BRAND, **settings)
        with ThreadPoolExecutor(1) as apart:
            apart.submit(house.launch, "win-back", "regulars").result()
    return house


def _work(house: House) -> None:
    house.launch("win-back", "lapsed")
    house.db.now = MONDAY + HOUR
    house.run()
    with house.db.transaction() as tx:
        record_heartbeat(tx, "worker:1")


@contextmanager
def staff_site(db: Database, customers: int, **settings: Any) -> Iterator[str]:
    """Serve it until the block ends; yields its URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        app = create_app(sample_house(db, url, customers, **settings).segue)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield url
        server.should_exit = True
        thread.join()
