"""A shop with a receiver, and the pages of its customers as a browser gets them."""

import asyncio
import re
from html import unescape
from typing import Any

import httpx
from httpx import Response
from sqlalchemy import select
from starlette.types import ASGIApp

from channels.links import preferences_url, unsubscribe_url
from config.channels import ChannelName
from config.database.engine import Database
from config.policy import Policy
from config.settings import Settings
from flows.http.app import create_app
from journeys.dsl import SMS, Email, Journey, OnLaunch, Push, Send, Wait
from profiles.tables import consent_records, consents, events, preferences, profiles
from tests.support.shop import House

POLICY = Policy.model_validate(
    {
        "timezone": "Europe/London",
        "topics": {"news": "News & <more>", "offers": "Offers", "orders": "Your orders"},
        "channels": {
            channel: {"windows": [{"days": "mon-sun", "from": "08:00", "to": "21:00"}]}
            for channel in ("email", "sms", "push")
        },
        "caps": [{"channels": "all", "limit": 6, "within": "7d"}],
    }
)
TEXTS = {
    "offer.email.html": "Subject: {{ profile.first_name }}\n\n<p>{{ profile.first_name }}</p>"
    '<a href="{{ links.unsubscribe }}">stop</a> <a href="{{ links.preferences }}">choose</a>',
    "offer.sms.txt": "{{ profile.first_name }} {{ links.preferences }}",
    "offer.push.txt": "Title: {{ profile.first_name }}\n\n{{ profile.first_name }}",
    "receipt.email.html": 'Subject: Thanks\n\n<a href="{{ links.preferences }}">choose</a>',
}
# One message on each channel, one after the other, the first at noon.
JOURNEY = Journey(
    "offers",
    entry=OnLaunch(),
    topic="offers",
    steps=[
        Wait("2h"),
        Send("offer", Email("offer"), SMS("offer", after="1h"), Push("offer", after="2h")),
    ],
)


def one_click(**more: str) -> dict[str, str]:
    return {"List-Unsubscribe": "One-Click", **more}


class Client:
    """Sends requests to an application, each on a new connection, without cookies and redirects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def request(self, method: str, path: str, **said: Any) -> Response:
        return asyncio.run(self._request(method, path, said))

    async def _request(self, method: str, path: str, said: dict[str, Any]) -> Response:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as http:
            return await http.request(method, path, **said)

    def get(self, path: str, **said: Any) -> Response:
        return self.request("GET", path, **said)

    def post(self, path: str, **said: Any) -> Response:
        return self.request("POST", path, **said)


class Shop:
    """A shop with a receiver and one customer."""

    def __init__(self, db: Database) -> None:
        self.house = House(db)
        self.house.open(JOURNEY, policy=POLICY, texts=TEXTS)
        self.ann = self.house.customer("ann", attributes={"first_name": "Ann"})
        self.arrivals = 0
        self.client = Client(create_app(self.house.segue, self._arrived))

    def _arrived(self, _buckets: object) -> None:
        self.arrivals += 1

    @property
    def settings(self) -> Settings:
        return self.house.segue.settings

    def u(
        self,
        channel: ChannelName = "email",
        topic: str = "offers",
        who: int | None = None,
        address: str = "ann@example.com",
    ) -> str:
        url = unsubscribe_url(self.settings, who or self.ann, channel, topic, address)
        return url.removeprefix(self.settings.public_url)

    def p(
        self,
        who: int | None = None,
        channel: ChannelName = "email",
        address: str = "ann@example.com",
    ) -> str:
        now = self.house.now
        url = preferences_url(self.settings, who or self.ann, channel, address, now)
        return url.removeprefix(self.settings.public_url)

    def get(self, path: str) -> str:
        answer = self.client.get(path)
        assert answer.status_code == 200
        return answer.text

    def fill_in(self, page: str, changes: dict[str, str]) -> Response:
        """Submit the form of a page as a browser does, with some fields changed."""
        return self.client.post(self.p(), data={**form_of(page), **changes})

    def choose(self, **changes: str) -> str:
        answer = self.fill_in(
            self.get(self.p()), {name.replace("_on_", "."): to for name, to in changes.items()}
        )
        assert answer.status_code == 200
        return answer.text

    def rows(self, *tables: Any) -> list[Any]:
        with self.house.db.transaction(write=False) as tx:
            return [
                row
                for table in tables
                for row in tx.conn.execute(select(table).order_by(*table.primary_key))
            ]

    def everything(self) -> list[Any]:
        return self.rows(profiles, consents, consent_records, preferences, events)

    def said(self) -> dict[tuple[str, str], bool]:
        return {(row.channel, row.topic): row.granted for row in self.rows(consents)}

    def last_record(self) -> tuple[str, str, bool | None, int, str]:
        row = self.rows(consent_records)[-1]
        assert row.recorded_at == self.house.now
        return row.channel, row.topic, row.granted, row.occurred_at, row.source


def form_of(page: str) -> dict[str, str]:
    """The fields of a page's first form as a browser sends them unchanged."""
    form = page[page.index("<form") : page.index("</form>")]
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form):
        given = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if given["type"] != "checkbox" or " checked" in tag:
            fields[unescape(given["name"])] = unescape(given["value"])
    for name, options in re.findall(r'<select id="\w+" name="(\w+)".*?>(.*?)</select>', form, re.S):
        chosen = re.findall(r'<option value="([^"]*)" selected[^>]*>', options)
        [fields[name]] = [unescape(value) for value in chosen]
    return fields


def shown(text: str) -> str:
    """The text of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text[text.index("<main>") :])).split())
