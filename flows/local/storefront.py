"""The shop's side of the demo: a customer abandons a cart, gets a reminder, and buys.

The shop's server uses Segment's library for Python with another host, which posts each call at
once (`sync_mode`); by default it collects calls for half a second. The cart is abandoned on the
page of the sample shop (sandbox/shop), in a headless browser with Segment's client for browsers. On
a machine without Chromium or Chrome the server reports it.
"""

import time
from urllib.parse import urlencode

from segment.analytics.client import Client
from sqlalchemy import select

from channels.messages import messages
from config.access.user_tokens import user_token
from config.clock.times import HOUR
from config.database.engine import Database, Tx
from config.settings import Settings
from flows.local.browser import browser, opened_page
from flows.local.sandbox_api import SandboxAPI
from flows.local.stack import Stack, user_token_secret
from journeys.engine.exits import EXITED
from journeys.enrollments import enrollments
from journeys.operations.counts import SENT, summarise
from profiles.tables import events

JOURNEY = "cart-recovery"
LEAVES, BUYS = "cart_abandoned", "order_completed"
_ADA = "ada"
_CART = {
    "cart_id": "cart-ada",
    "items": [{"name": "Tent for Two Nights", "price": 189.0, "quantity": 1}],
    "total": 189.0,
    "url": "https://shop.example/cart/ada",
}


def leave_cart_and_buy(stack: Stack, db: Database, sandbox: SandboxAPI) -> float:
    """Send Ada's events; returns the milliseconds from her cart to its reminder.

    That is the time from just before the call of the client to the arrival of the message at the
    provider, by the monotonic clock, which all processes of a machine share.
    """
    client = _client(stack.settings)
    client.identify(
        _ADA,
        {"email": "ada@example.com", "firstName": "Ada", "timezone": "Europe/London"},
        context={"device": {"token": "demo-ios-ada", "type": "ios"}},
    )
    program = browser()
    if program is None:
        left = time.monotonic()
        client.track(_ADA, LEAVES, _CART)
        reminder = _reminder(stack, db)
    else:
        with opened_page(program, _page(stack.settings, db)):
            reminder = _reminder(stack, db)
        left = _called_at(db)
    client.track(_ADA, BUYS, {"total_gbp": _CART["total"]})
    stack.wait_until(lambda: _ended(db), "the end of the journey by the purchase")
    return (sandbox.arrived(reminder) - left) * 1000


def _page(settings: Settings, db: Database) -> str:
    """The shop's page with Ada signed in. The fragment of a URL stays in the browser."""
    with db.transaction(write=False) as tx:
        token = user_token(user_token_secret(settings), _ADA, tx.now + HOUR)
    signed_in = urlencode({"userId": _ADA, "name": "Ada", "userToken": token})
    return f"{settings.sandbox_url}/shop#{signed_in}"


def _reminder(stack: Stack, db: Database) -> int:
    """The id of the reminder, once it is sent."""
    stack.wait_until(lambda: bool(_reminders(db)), "the reminder of a cart")
    [reminder] = _reminders(db)
    return reminder


def _called_at(db: Database) -> float:
    """When the page called its client, by the monotonic clock."""
    with db.transaction(write=False) as tx:
        cart = tx.conn.execute(_LAST_CART).scalar_one()
    return float(cart["called_at"])


def cart_outcome(tx: Tx) -> dict[str, object]:
    """The journey that the cart started: what it sent so far, and what stopped the rest."""
    [reason] = tx.conn.execute(_END_REASON).scalars()
    return {
        "journey": JOURNEY,
        "started_by": LEAVES,
        "sent": dict(summarise(tx, JOURNEY).sent),
        "stopped_by": BUYS if reason == EXITED else None,
    }


def _client(settings: Settings) -> Client:
    return Client(
        settings.write_key.get_secret_value(),
        host=f"http://{settings.host}:{settings.receiver_port}",
        sync_mode=True,
        # on this machine, so without a proxy
        proxies={"no_proxy": settings.host},
    )


# The sample shop has older carts of other customers.
_LAST_CART = (
    select(events.c.properties).where(events.c.name == LEAVES).order_by(events.c.id.desc()).limit(1)
)
# Only Ada enters the journey in the demo.
_END_REASON = select(enrollments.c.end_reason).where(enrollments.c.journey == JOURNEY)
_SENT_REMINDERS = select(messages.c.id).where(
    messages.c.journey == JOURNEY, messages.c.state.in_(SENT)
)


def _reminders(db: Database) -> list[int]:
    with db.transaction(write=False) as tx:
        return list(tx.conn.execute(_SENT_REMINDERS).scalars())


def _ended(db: Database) -> bool:
    with db.transaction(write=False) as tx:
        return tx.conn.execute(_END_REASON).scalar_one() is not None
