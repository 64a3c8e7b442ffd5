"""A new channel and a new provider work, each as one file in an external folder.

The product runs in its own process, in which both folders belong to the packages; a server on this
machine plays the provider.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest

from config.database.engine import Database

CHANNEL = """
from dataclasses import dataclass

from config.channels import Channel, Content, Masked, Header


@dataclass(frozen=True, slots=True)
class PagerContent(Content):
    number: str
    body: str

    def excess(self, settings):
        return "it is too long for a pager" if len(self.body) > 40 else None


CHANNEL = Channel(
    name="pager",
    step="Pager",
    order=9,
    title="Pager",
    plural="pages",
    short="pager",
    icon="M3 6h18v11H3z",
    address_kind="phone",
    address="pager number",
    no_address="We have no pager number of yours.",
    masked=lambda number: Masked("to the pager {shown}", number[-2:]),
    consent="opt-in",
    consent_fixed=True,
    has_stop=True,
    stop_label="No pages at all",
    content=PagerContent,
    formats=("txt",),
    headers=(Header("Number", required=True, one_line=True),),
    evidence={"delivered": "the provider"},
)
"""

PROVIDER = """
import orjson
from pydantic_settings import SettingsConfigDict

from channels.providers.base import Provider, ProviderSettings
from channels.providers.sending import ProviderRequest, SendOutcome, result_of
from channels.providers.webhook import Feedback, Refused, Webhook, check_basic_auth


class BeeperSettings(ProviderSettings):
    model_config = SettingsConfigDict(env_prefix="SEGUE_BEEPER_")

    url: str = "https://beeper.example"


class Beeper:
    batch_size = 2
    auth = None

    def __init__(self, own, settings):
        self._url = f"{own.url}/pages"

    def prepare(self, batch):
        pages = [
            {"id": str(one.message_id), "to": one.to, "n": one.content.number,
             "text": one.content.body}
            for one in batch
        ]
        return ProviderRequest("POST", self._url, headers={}, content=orjson.dumps(pages))

    def read(self, status, headers, body, batch):
        result = result_of(status)
        return [
            SendOutcome(
                one.message_id, result, reason=None if result == "sent" else f"beeper {status}"
            )
            for one in batch
        ]


def webhooks(own, settings, policy):
    def admit(headers):
        check_basic_auth("beeper:secret", headers)

    def read(request):
        admit(request.headers)
        return [
            Feedback(
                id=f"beeper {one['event']} {one['id']}",
                source=f"beeper {one['event']}",
                channel="pager",
                kind=one["event"],
                message_id=int(one["id"]),
                address=one["to"],
            )
            for one in orjson.loads(request.body)
        ]

    about = "What became of pages"
    return [Webhook("/hooks/beeper", about=about, admit=admit, read=read, limit=1000)]


PROVIDER = Provider(
    name="beeper",
    channel="pager",
    settings=BeeperSettings,
    connect=Beeper,
    webhooks=webhooks,
)
"""

JOURNEY = """
from journeys.dsl import Journey, OnLaunch, Pager, Send, Wait, consented, has_address, when, Split

journey = Journey(
    "alarm",
    entry=OnLaunch(),
    topic="news",
    steps=[
        Split("can be paged?", when(consented("pager") & has_address("pager"), [
            Send("first", Pager("wake_up")),
            Wait("1h"),
            Send("second", Pager("wake_up"), kind="transactional"),
        ])),
    ],
)
"""

POLICY = """
[topics]
news = "News"

[channels.pager]
windows = [{ days = "mon-sun", from = "08:00", to = "20:00" }]

[[caps]]
channels = ["pager"]
limit = 5
per = "day"
"""

# What runs in the other process: argv has the two folders, the library, the policy, the database.
PROGRAM = """
import sys

import channels.kinds
import channels.providers

kinds, providers, library, policy, url = sys.argv[1:]
channels.kinds.__path__.append(kinds)
channels.providers.__path__.append(providers)

import asyncio
from base64 import b64encode
from pathlib import Path

import httpx
import orjson
from sqlalchemy import select

from channels.links import preferences_url
from config.database.engine import Database
from config.policy import CHANNELS, load_policy
from flows.http.app import create_app
from flows.launch import launch
from profiles.tables import events
from tests.support.shop import MONDAY, House

house = House(Database(url), now=MONDAY)
segue = house.open_library(Path(library), load_policy(Path(policy)))
ann = house.customer("ann", consent={("pager", "*"): True})
bob = house.customer("bob", consent={})
summary = launch(segue, "alarm", "everyone")
[first] = house.rows()


def ask(method, path, **more):
    async def asking():
        transport = httpx.ASGITransport(create_app(segue, lambda _: None))
        async with httpx.AsyncClient(transport=transport, base_url="http://in") as client:
            return await client.request(method, path, **more)

    return asyncio.run(asking())


def reports(event):
    said = [{"event": event, "id": str(first.id), "to": "+447700900001"}]
    login = b64encode(b"beeper:secret").decode()
    headers = {"authorization": f"Basic {login}"}
    answer = ask("POST", "/hooks/beeper", content=orjson.dumps(said), headers=headers)
    assert answer.status_code == 200, answer.text


reports("delivered")
link = preferences_url(segue.settings, ann, "pager", "+447700900001", house.now)
page = ask("GET", link.removeprefix(segue.settings.public_url)).text
reports("stopped")
house.later("2h")
with house.db.transaction(write=False) as tx:
    heard = list(tx.conn.execute(select(events.c.name).where(events.c.profile_id == ann)).scalars())
house.db.close()
print(orjson.dumps({
    "channels": CHANNELS,
    "summary": summary["sent"],
    "messages": [(one.step, one.channel, one.state, one.reason) for one in house.rows()],
    "first": first.state,
    "heard": heard,
    "page": page,
}).decode())
"""


class Pages(BaseHTTPRequestHandler):
    """Takes every page, and keeps it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Beepers)
        self.server.pages += [(self.path, one) for one in orjson.loads(body)]
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class Beepers(ThreadingHTTPServer):
    """The provider."""

    pages: list[tuple[str, dict[str, str]]]


@pytest.fixture
def beepers() -> Iterator[Beepers]:
    with Beepers(("127.0.0.1", 0), Pages) as server:
        server.pages = []
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_channel_and_a_provider_are_one_file_each(
    db: Database, beepers: Beepers, tmp_path: Path
) -> None:
    files = {
        "kinds/pager.py": CHANNEL,
        "providers/beeper.py": PROVIDER,
        "library/alarm/journey.py": JOURNEY,
        "library/alarm/wake_up.pager.txt": "Number: 17\n\nWake up, {{ profile.first_name | "
        'default: "you" }}',
        "policy.toml": POLICY,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    given = [str(tmp_path / name) for name in ("kinds", "providers", "library", "policy.toml")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *given, db.url],
        env={**os.environ, "SEGUE_SANDBOX_PORT": str(beepers.server_port)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout.splitlines()[-1])

    # It is a channel like the others, last in their order.
    assert told["channels"][-1] == "pager"
    assert told["summary"]["pager"] == 1

    # The provider got one page, of Ann's; nobody asked Bob.
    [(path, page)] = beepers.pages
    assert path == "/pages"
    assert (page["to"], page["n"], page["text"]) == ("+447700900001", "17", "Wake up, you")

    # Its webhook delivered it, and a STOP there binds transactional messages too.
    assert told["first"] == "sent"
    assert told["messages"] == [
        ["first", "pager", "delivered", None],
        ["second", "pager", "skipped", "no_consent"],
    ]
    assert {"pager_delivered", "pager_stopped"} <= set(told["heard"])

    # Ann finds it on her page.
    assert "<legend>Pager</legend>" in told["page"]
    assert "To the pager 01" in told["page"]
    assert "No pages at all" in told["page"]
