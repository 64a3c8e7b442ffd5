"""The inbox: the latest recipients, and all messages of one customer on one timeline.

Rendered on the server, without JavaScript. All data is escaped, and mails are shown in a sandboxed
frame in which no script runs.
"""

from collections import defaultdict
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from liquid import CachingFileSystemLoader, Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from config.errors import SegueError
from sandbox.inbox.inbox_card import card, moment, shown_channel
from sandbox.inbox.timeline import Customer, Timeline
from sandbox.store import Received, Store

PAGE = 25
_READ_AT_ONCE = 500  # addresses in one query for a page's customers
_TEMPLATES = Path(__file__).parent / "templates"
# Mails need styles and images, and a mail's frame inherits the page's policy.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; "
    "img-src http: https: data:; font-src https: data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    # Pages of other sites may not open, embed or measure these pages.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_Item = TypeVar("_Item")


class Entry(NamedTuple):
    """One line of the list: a customer, or an unknown address, with the last message."""

    customer: Customer | None
    address: str
    latest: Received | None

    @property
    def path(self) -> str:
        return _path(self.customer.id if self.customer else self.address)

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "path": self.path,
            "name": self.customer.name if self.customer else self.address,
            "contact": next(iter(_addresses(self.customer)), ""),
            "channel": "",
        }
        if self.latest:
            shown |= {
                "channel": self.latest.channel,
                **shown_channel(self.latest.channel),
                "title": self.latest.title,
                **moment(self.latest.accepted_at, "UTC"),
            }
        return shown


class Pages:
    """The pages for one store and, if given, a timeline with the customers."""

    def __init__(self, store: Store, timeline: Timeline | None) -> None:
        self._store = store
        self._timeline = timeline
        self._templates = Environment(
            autoescape=True,
            undefined=StrictUndefined,
            loader=CachingFileSystemLoader(_TEMPLATES, ext=".html"),
        )
        self._css = (_TEMPLATES / "inbox.css").read_bytes()

    def routes(self) -> list[Route]:
        return [
            Route("/", lambda _request: RedirectResponse("/inbox")),
            Route("/inbox", self.inbox),
            Route("/inbox.css", lambda _request: Response(self._css, media_type="text/css")),
            Route("/inbox/{customer:path}", self.customer),
        ]

    def inbox(self, request: Request) -> Response:
        """The list of customers, newest message first, or the result of a search."""
        text, page = request.query_params.get("q", "").strip()[:100], _page(request)
        try:
            entries = (
                self._found(text, self._timeline)
                if text and self._timeline
                else self._latest(text, page)
            )
        except SegueError as error:
            return self._notice(503, "The inbox can’t be read", str(error))
        counts = self._store.stats()["accepted"].items()
        return self._html(
            "inbox",
            {
                "title": "Inbox",
                "search": text,
                "entries": [entry.shown() for entry in _cut(entries, page)],
                "counts": [
                    {"channel": shown_channel(channel)["channel_name"], "number": f"{number:,}"}
                    for channel, number in counts
                ],
                **_neighbours("/inbox", page, len(entries), q=text),
            },
        )

    def customer(self, request: Request) -> Response:
        """All sent and planned messages of one customer, newest first."""
        key, page = request.path_params["customer"], _page(request)
        try:
            customer = self._timeline.customer(key) if self._timeline else None
            cards = self._of_customer(customer, page) if customer else self._of_address(key, page)
        except SegueError as error:
            return self._notice(503, "The inbox can’t be read", str(error))
        if not customer and not cards:
            return self._notice(404, "Not found", "There is no such customer or address.")
        return self._html(
            "customer",
            {
                "title": customer.name if customer else key,
                "contact": " · ".join(_addresses(customer)),
                "days": [
                    {"day": day, "cards": list(of_day)}
                    for day, of_day in groupby(_cut(cards, page), key=lambda one: one["day"])
                ],
                **_neighbours(_path(key), page, len(cards)),
            },
        )

    def _latest(self, text: str, page: int) -> list[Entry]:
        """The entries up to the end of this page and at least one more; one for each customer."""
        entries: dict[str, Entry] = {}
        for start in range(0, 2**31, _READ_AT_ONCE):
            received = self._store.latest(text, offset=start, limit=_READ_AT_ONCE)
            ids = [one.message_id for one in received if one.message_id]
            owners = self._timeline.customers(ids) if self._timeline else {}
            for one in received:
                entry = Entry(owners.get(one.message_id or ""), one.address, one)
                entries.setdefault(entry.path, entry)
            if len(received) < _READ_AT_ONCE or len(entries) > page * PAGE:
                break
        return list(entries.values())

    def _found(self, text: str, timeline: Timeline) -> list[Entry]:
        """The customers that a search finds, with or without messages."""
        found = timeline.search(text)
        latest = self._store.latest_to([one for who in found for one in _addresses(who)])
        entries = []
        for who in found:
            got = [latest[one] for one in _addresses(who) if one in latest]
            entries.append(Entry(who, "", max(got, key=lambda one: one.seq, default=None)))
        return entries

    def _of_customer(self, customer: Customer, page: int) -> list[dict[str, Any]]:
        assert self._timeline
        planned = self._timeline.for_customer(customer.id)
        accepted: dict[str | None, list[Received]] = defaultdict(list)
        for one in self._store.with_ids([message.id for message in _cut(planned, page)]):
            accepted[one.message_id].append(one)
        return [card(accepted[message.id], message) for message in planned]

    def _of_address(self, address: str, page: int) -> list[dict[str, Any]]:
        received = self._store.to_address(address, offset=0, limit=page * PAGE + 1)
        return [card([one], None) for one in received]

    def _notice(self, status: int, title: str, text: str) -> Response:
        return self._html("notice", {"title": title, "text": text}, status)

    def _html(self, template: str, values: dict[str, Any], status: int = 200) -> Response:
        html = self._templates.get_template(template).render(values)
        return Response(html, status, headers=_HEADERS, media_type="text/html")


def _page(request: Request) -> int:
    text = request.query_params.get("page", "1")
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 7 else 1


def _cut(items: list[_Item], page: int) -> list[_Item]:
    return items[(page - 1) * PAGE : page * PAGE]


def _neighbours(path: str, page: int, number: int, **query: str) -> dict[str, str]:
    """The links to the previous and next page; empty if there is none."""

    given = {name: text for name, text in query.items() if text}

    def link(to: int) -> str:
        return f"{path}?{urlencode({**given, 'page': to})}"

    return {
        "newer": link(page - 1) if page > 1 else "",
        "older": link(page + 1) if number > page * PAGE else "",
    }


def _path(key: str) -> str:
    return "/inbox/" + quote(key, safe="")


def _addresses(customer: Customer | None) -> list[str]:
    return [one for one in (customer.email, customer.phone) if one] if customer else []
