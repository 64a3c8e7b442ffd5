"""The browser clients of Segment and RudderStack, in Chromium, on a page of another origin."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import Browser, Route
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from config.settings import ROOT
from flows.http.ingest.intake import Intake
from flows.http.limits.rates import Rates
from profiles.calls.record_calls import Outcome, take_calls
from profiles.calls.segment_calls import SegmentCall
from profiles.events import PROFILE_CHANGED
from profiles.tables import identifiers, profiles
from tests.support.http.browser_clients import (
    CLIENTS,
    PACKAGES,
    Client,
    Visit,
    needs_browser_clients,
    visiting,
)
from tests.support.http.receiving import happened, names
from tests.support.proof import cases
from tests.support.shop import House

pytestmark = [needs_browser_clients, pytest.mark.xdist_group("browser clients")]


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]


CALLS = """async () => {
  await client.identify("u-1042", { plan: "gold" }, options());
  await client.page("Shop", "Cart", { items: 2 }, options());
  await client.group("g-5", { size: 9 }, options());
  await client.alias("u-1042", "u-1", options());
  await client.track("cart_abandoned", { cart_id: "c-9" }, options());
}"""
SIGN_OUT = """async () => {
  userToken = undefined;
  await signOut();
  await client.track("after", {}, options());
}"""


def owners(house: House) -> dict[str, set[str]]:
    """The events by the user id of their profile; `anonymous` without one."""
    with house.db.transaction(write=False) as tx:
        users = {
            row.profile_id: row.value
            for row in tx.conn.execute(select(identifiers))
            if row.kind == "user_id"
        }
    found: dict[str, set[str]] = {}
    for event in happened(house):
        if event.name != PROFILE_CHANGED:
            found.setdefault(users.get(event.profile_id, "anonymous"), set()).add(event.name)
    return found


def attributes(house: House) -> list[object]:
    with house.db.transaction(write=False) as tx:
        return list(
            tx.conn.execute(select(profiles.c.attributes).order_by(profiles.c.id)).scalars()
        )


def check_calls(visit: Visit) -> None:
    """What `CALLS` and `SIGN_OUT` store besides the profile."""
    house = visit.house
    visit.do(CALLS)
    visit.wait_until(lambda: "cart_abandoned" in names(house))
    visit.do(SIGN_OUT)
    visit.wait_until(lambda: "after" in names(house) and len(visit.answers) == 6)
    assert sorted(names(house)) == ["after", "cart_abandoned", "page_viewed"]
    by_name = {event.name: event for event in happened(house)}
    assert by_name["cart_abandoned"].properties == {"cart_id": "c-9"}
    viewed = by_name["page_viewed"].properties
    expected = {"category": "Shop", "name": "Cart", "items": 2, "url": f"{visit.url}/"}
    assert viewed.items() >= expected.items()
    assert by_name["after"].profile_id != by_name["cart_abandoned"].profile_id
    statuses = Counter(answer.status for answer in visit.answers)
    assert statuses == {200: 5, 400: 1}, "alias is refused, and not sent again"


def test_calls_of_a_visitor(browser: Browser, house: House, client: Client) -> None:
    """Without a user token, a user id and a group are left out."""
    with visiting(browser, house, client) as visit:
        check_calls(visit)
        assert owners(house) == {"anonymous": {"cart_abandoned", "page_viewed", "after"}}
        assert attributes(house) == [{"plan": "gold"}, {}]


def test_calls_of_a_customer(browser: Browser, house: House, client: Client) -> None:
    """With a user token, the events are the customer's; the traits are the server's to state."""
    with visiting(browser, house, client) as visit:
        stated = {"userId": "u-1042", "traits": {"plan": "silver"}}
        assert visit.receiver.post("/v1/identify", json=stated).status_code == 200
        visit.sign_in("u-1042")
        check_calls(visit)
        assert owners(house) == {
            "u-1042": {"cart_abandoned", "page_viewed"},
            "anonymous": {"after"},
        }
        assert attributes(house) == [{"plan": "silver"}, {}]


def test_the_lines_of_the_docs(browser: Browser, sqlite_house: House, client: Client) -> None:
    """The blocks in their order: a visitor, who signs in and out."""
    house = sqlite_house
    with visiting(browser, house, client, calls=True) as visit:
        # Calls that wait for the client's settings take the user of that moment.
        visit.wait_until(lambda: len(names(house)) == 2)
        visit.sign_in("u-1042")
        visit.do("signIn()")
        visit.wait_until(lambda: len(names(house)) == 3)
        visit.do("signOut()")
        visit.do("client.track('after', {}, options())")
        visit.wait_until(lambda: "after" in names(house))
        assert owners(house) == {
            "anonymous": {"page_viewed", "cart_abandoned", "after"},
            "u-1042": {"order_completed"},
        }
        by_name = {event.name: event.profile_id for event in happened(house)}
        assert by_name["after"] != by_name["cart_abandoned"], "another anonymous id"


# A shared device ----------------------------------------------------------------------------------

USERS = [f"u-{number}" for number in range(1, 51)]


def check_nobody_is_mixed(house: House) -> None:
    assert owners(house) == {user: {f"by {user}"} for user in USERS}
    with house.db.transaction(write=False) as tx:
        assert len(tx.conn.execute(select(profiles.c.id)).all()) == len(USERS)


def test_a_shared_device_with_user_tokens(
    browser: Browser, sqlite_house: House, client: Client
) -> None:
    with visiting(browser, sqlite_house, client) as visit:
        for user in USERS:
            visit.sign_in(user)
            visit.do(f"client.identify('{user}', {{}}, options())")
            visit.do(f"client.track('by {user}', {{}}, options())")
            visit.do("signOut()")
        visit.wait_until(lambda: len(names(sqlite_house)) == len(USERS))
        check_nobody_is_mixed(sqlite_house)


def test_a_shared_device_whose_users_the_server_joins(
    browser: Browser, sqlite_house: House, client: Client
) -> None:
    """Their pages have no token: the events are those of the anonymous id."""
    anonymous_id = """async () => {
        await new Promise((done) => client.ready(done));
        const { getAnonymousId } = client;
        return getAnonymousId ? client.getAnonymousId() : (await client.user()).anonymousId();
    }"""
    with visiting(browser, sqlite_house, client) as visit:
        for user in USERS:
            joined = {"userId": user, "anonymousId": visit.do(anonymous_id)}
            visit.do(f"client.track('by {user}')")
            assert visit.receiver.post("/v1/identify", json=joined).status_code == 200
            visit.do(f"client.track('by {user}')")
            visit.do("signOut()")
        visit.wait_until(lambda: len(names(sqlite_house)) == 2 * len(USERS))
        check_nobody_is_mixed(sqlite_house)


# Refusals, and a network that fails ---------------------------------------------------------------


def statuses(visit: Visit) -> Counter[int]:
    return Counter(answer.status for answer in visit.answers)


def test_calls_over_the_rate_are_sent_again(
    browser: Browser, sqlite_house: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds' worth of calls is accepted at once; the others get 429 with Retry-After."""
    numbers = range(60)
    begun, refused = time.monotonic(), Event()

    def clock() -> float:
        """Stands until a call is refused, however long the browser takes for the calls before."""
        return time.monotonic() if refused.is_set() else begun

    monkeypatch.setattr("flows.http.ingest.keys.Rates", partial(Rates, clock=clock))
    with visiting(browser, sqlite_house, client, public_key_rate=5) as visit:
        visit.track(*numbers)
        visit.wait_until(lambda: statuses(visit)[429] > 0)
        refused.set()
        visit.wait_until(lambda: len(visit.accepted()) == len(numbers))
        assert visit.tracked() == [*numbers]


def test_calls_are_sent_again_after_a_database_error(
    browser: Browser, sqlite_house: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    with visiting(browser, sqlite_house, client) as visit:
        with monkeypatch.context() as broken:
            broken.setattr("flows.http.ingest.segment.take_calls", fail)
            visit.track(1, 2, 3)
            visit.wait_until(lambda: statuses(visit)[503] >= 3)
        visit.wait_until(lambda: visit.tracked() == [1, 2, 3])
        visit.wait_until(lambda: statuses(visit)[200] == 3)


def test_a_call_whose_answer_is_lost_counts_once(
    browser: Browser, sqlite_house: House, client: Client
) -> None:
    lost: list[int] = []

    def lose(route: Route) -> None:
        if route.request.method == "POST" and len(lost) < 3:
            lost.append(route.fetch().status)
            route.abort("connectionreset")
        else:
            route.continue_()

    with visiting(browser, sqlite_house, client) as visit:
        visit.context.route("**/v1/*", lose)
        visit.track(1, 2, 3)
        visit.wait_until(lambda: len(visit.accepted()) == 3)
        assert lost == [200, 200, 200]
        assert visit.tracked() == [1, 2, 3]


def test_calls_made_without_a_network_are_sent_later(
    browser: Browser, sqlite_house: House, client: Client
) -> None:
    with visiting(browser, sqlite_house, client) as visit:
        visit.track(0)
        visit.wait_until(lambda: visit.tracked() == [0])
        visit.context.set_offline(True)
        visit.track(1, 2, 3)
        visit.page.wait_for_timeout(300)
        assert visit.tracked() == [0]
        visit.context.set_offline(False)
        visit.wait_until(lambda: visit.tracked() == [0, 1, 2, 3])


def test_a_tab_that_is_closed_while_calls_are_under_way(
    browser: Browser, sqlite_house: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next page of the shop sends the rest, and no call counts twice."""
    closed = Event()
    arrived: list[object] = []
    take = Intake.take

    async def hold(self: Intake, calls: Sequence[SegmentCall]) -> list[Outcome]:
        arrived.append(calls)
        while len(arrived) > 5 and not closed.is_set():
            await asyncio.sleep(0.01)
        return await take(self, calls)

    monkeypatch.setattr(Intake, "take", hold)
    numbers = range(80)
    with visiting(browser, sqlite_house, client) as visit:
        visit.track(*numbers)
        visit.wait_until(lambda: len(arrived) > 5)
        visit.close()
        assert len(visit.tracked()) <= 5
        closed.set()
        visit.open()
        visit.wait_until(lambda: visit.tracked() == [*numbers])


def test_calls_that_wait_for_a_batch_are_sent_when_the_tab_is_closed(
    browser: Browser, sqlite_house: House, client: Client
) -> None:
    """By a keepalive request, or a beacon."""
    with visiting(browser, sqlite_house, client, load=dict([client.batches])) as visit:
        visit.track(*range(4))
        visit.page.wait_for_timeout(200)
        assert visit.tracked() == []
        visit.close()
        visit.wait_until(lambda: visit.tracked() == [*range(4)])


# Many calls, and the limits of the clients --------------------------------------------------------


@pytest.mark.proof
def test_many_calls(
    browser: Browser, sqlite_house: House, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that was answered with 200 is there exactly once, and none without.

    Meanwhile transactions fail. What the client drops is counted. RudderStack's keeps 100 calls,
    and drops the oldest when there are more, also one whose first attempt failed. It logs only the
    calls that it gives up after ten attempts.
    """
    made = cases(test=250, prove=10_000)
    chance = Random(1)

    def fail_sometimes(*args: Any) -> Any:
        if chance.random() < 0.3:
            raise OperationalError("INSERT", {}, Exception("gone"))
        return take_calls(*args)

    monkeypatch.setattr("flows.http.ingest.segment.take_calls", fail_sometimes)
    rate: dict[str, Any] = {"public_key_rate": 10**6, "public_address_rate": 10**6}
    with visiting(browser, sqlite_house, client, **rate) as visit:
        for first in range(0, made, 50):
            visit.track(*range(first, min(first + 50, made)))
            visit.page.wait_for_timeout(50)
        visit.wait_until(
            lambda: (
                len(set(visit.accepted())) == made
                or (client is not CLIENTS["segment"] and not visit.waiting())
            )
        )
        accepted = Counter(visit.accepted())
        stored = [one.dedupe_key for one in happened(sqlite_house) if one.name == "n"]
    assert sorted(accepted) == sorted(stored)
    assert visit.tracked() == sorted(set(visit.tracked()))
    unsent = made - len(visit.sent)
    in_vain = len(visit.sent.keys() - accepted.keys())
    assert len(stored) + unsent + in_vain == made
    given_up = sum("will be dropped" in line for line in visit.logged)
    assert given_up <= in_vain
    if client is CLIENTS["segment"]:
        assert unsent == in_vain == 0
    assert statuses(visit)[503] > 0
    sys.stdout.write(
        f"\n{client.heading}: {made} made, {len(stored)} stored, {unsent} dropped without being "
        f"sent, {in_vain} after failed attempts, of which {given_up} after the last\n"
    )


def test_what_rudderstack_drops_without_a_network(browser: Browser, sqlite_house: House) -> None:
    """Its client keeps 100 calls in a queue and up to 100 that it is trying to send.

    Each of them is stored once when the network is back. Which ones it drops, and whether 100 or
    200, depends on how fast it tries.
    """
    client, made = CLIENTS["rudderstack"], 300
    with visiting(browser, sqlite_house, client) as visit:
        visit.context.set_offline(True)
        visit.track(*range(made))
        visit.wait_until(lambda: visit.failed >= made)
        visit.context.set_offline(False)
        visit.wait_until(lambda: not visit.waiting())
        stored = visit.tracked()
    assert stored == sorted(set(stored))
    dropped = made - len(stored)
    assert 100 <= dropped <= 200
    sys.stdout.write(f"\n{client.heading}: {made} made, {dropped} dropped\n")


def test_the_sample_shop_serves_the_client_of_the_package() -> None:
    served = ROOT / "sandbox" / "shop" / "static" / "analytics-next" / "analytics.js"
    package = PACKAGES / "@segment" / "analytics-next" / "dist" / "umd" / "index.js"
    assert served.read_bytes() == package.read_bytes()
