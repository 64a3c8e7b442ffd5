"""Data for the benchmarks: generated customers, a journey for them, and the default policy."""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import insert

from channels.messages import messages
from config.clock.times import DAY, HOUR, Instant, parse_instant
from config.database.engine import Database
from config.database.schema import migrate
from config.policy import Policy, load_policy
from config.settings import ROOT
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.definition.steps import MessageSpec
from journeys.dsl import SMS, Email, Journey, OnLaunch, Segment, Send, everyone
from profiles.tables import consents, identifiers, profiles

# A Monday: the e-mail window opens in half an hour in London, is open in Berlin, and opens hours
# later in New York.
MORNING: Instant = parse_instant("2026-03-02T07:30:00Z")
# Every window in the zones below is open.
AFTERNOON: Instant = parse_instant("2026-03-02T15:00:00Z")

_ZONES = ("Europe/London", "Europe/Berlin", "Europe/Madrid", "America/New_York")
_COUNTRIES = ("GB", "DE", "ES", "US")
_NAMES = ("Ada", "Ben", "Chloe", "Deniz", "Emre", "Fatima", "Grete", "Hugo", "Ines", "Jürgen")
_CHUNK = 2000

TEMPLATES = {
    "offer.email.html": "Subject: {{ profile.first_name | default: 'Hello' }}, ten per cent off\n\n"
    "<html><body><h1>Hello {{ profile.first_name | default: 'there' }}</h1>"
    "<p>Ten per cent off everything in {{ profile.favourite | default: 'the shop' }}.</p>"
    '<p><a href="{{ links.unsubscribe }}">Unsubscribe</a></p></body></html>',
    "offer.sms.txt": "{{ brand }}: {{ profile.first_name | default: 'Hello' }}, ten per cent off "
    "{{ profile.favourite | default: 'everything' }} until Sunday. Reply STOP to end.",
}
EVERYBODY = "everyone"
EMAIL = Email("offer")
TEXT = SMS("offer")


def policy() -> Policy:
    """The policy that Segue ships with: windows on every channel and three caps."""
    return load_policy(ROOT / "config" / "policy.toml")


def catalog_of(message: MessageSpec) -> Catalog:
    """A catalog with one journey, `offer`, that sends one message."""
    offer = Journey("offer", entry=OnLaunch(), topic="promotions", steps=[Send("offer", message)])
    version = Version(offer, TEMPLATES)
    return Catalog(
        {"offer": version}, {EVERYBODY: Segment(EVERYBODY, "Every customer", everyone())}
    )


def fill(db: Database, people: int, now: Instant, *, alone: bool = False) -> None:
    """Create the tables and this many customers, numbered from 1.

    alone: if false, every fourth customer also has an e-mail of another journey nearby, so that the
    caps refuse some messages.
    """
    migrate(db)
    chance = random.Random(1)
    numbers = iter(range(1, people + 1))
    while chunk := list(islice(numbers, _CHUNK)):
        with db.transaction() as tx:
            tx.conn.execute(insert(profiles), [_profile(one, now, chance) for one in chunk])
            tx.conn.execute(insert(identifiers), [row for one in chunk for row in _known(one, now)])
            tx.conn.execute(insert(consents), [_consent(one, now) for one in chunk])
            if others := [_another(one, now) for one in chunk if one % 4 == 0 and not alone]:
                tx.conn.execute(insert(messages), others)


def _profile(number: int, now: Instant, chance: random.Random) -> dict[str, Any]:
    return {
        "id": number,
        # Every third customer has only a country. Not in the US: the common window of all its zones
        # is only an hour long.
        "timezone": None if number % 3 == 0 and number % 4 != 3 else _ZONES[number % 4],
        "country": _COUNTRIES[number % 4],
        "language": "en",
        "attributes": {
            "first_name": _NAMES[number % 10],
            "favourite": chance.choice(("Books", "Garden", "Kitchen", "Toys")),
            "lifetime_value": round(chance.expovariate(1 / 200), 2),
        },
        "created_at": now - 300 * DAY,
        "updated_at": now - DAY,
    }


def _known(number: int, now: Instant) -> Iterator[dict[str, Any]]:
    for kind, value, country in (
        ("email", f"customer.{number}@example.com", None),
        ("phone", f"+44770{number:07}", "GB"),
    ):
        yield {
            "kind": kind,
            "value": value,
            "profile_id": number,
            "country": country,
            "seen_at": now - DAY,
        }


def _consent(number: int, now: Instant) -> dict[str, Any]:
    return {
        "profile_id": number,
        "channel": "sms",
        "topic": "*",
        "granted": True,
        "changed_at": now - DAY,
    }


def _another(number: int, now: Instant) -> dict[str, Any]:
    """A message of another journey that uses up a cap: sent yesterday or planned for today."""
    at = now - DAY + (number % 40) * HOUR
    return message_row(number, -number, at, "sent" if at < now else "planned")


def message_row(profile_id: int, enrollment_id: int, at: Instant, state: str) -> dict[str, Any]:
    """A row of the outbox whose enrollment is not in this database."""
    return {
        "profile_id": profile_id,
        "enrollment_id": enrollment_id,
        "journey": "newsletter",
        "version": "0" * 12,
        "step": "news",
        "member": "email:news",
        "channel": "email",
        "kind": "marketing",
        "topic": "promotions",
        "priority": 50,
        "mode": "any",
        "after": 0,
        "on_cap": "skip",
        "wanted_at": at,
        "latest_anchor": at + 7 * DAY,
        "send_at": at,
        "state": state,
        "decision": {"outcome": "send"},
        "attempts": 1,
    }
