"""The shop's side of the demo: a customer abandons a cart, gets a reminder, and buys.

The shop uses Segment's own client library with another host. The library posts each call at once
(`sync_mode`); by default it collects calls for half a second.
"""

import time

from segment.analytics.client import Client
from sqlalchemy import select

from channels.messages import messages
from config.database.engine import Database, Tx
from config.settings import Settings
from flows.local.sandbox_api import SandboxAPI
from flows.local.stack import Stack
from journeys.engine.exits import EXITED
from journeys.enrollments import enrollments
from journeys.operations.report import SENT, summarise

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
    left = time.monotonic()
    client.track(_ADA, LEAVES, _CART)
    stack.wait_until(lambda: bool(_reminders(db)), "the reminder of a cart")
    [reminder] = _reminders(db)
    client.track(_ADA, BUYS, {"total_gbp": _CART["total"]})
    stack.wait_until(lambda: _ended(db), "the end of the journey by the purchase")
    return (sandbox.arrived(reminder) - left) * 1000


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
