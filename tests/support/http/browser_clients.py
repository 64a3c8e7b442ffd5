"""The shop's page with a real browser client, on another origin than the receiver.

The page runs the lines of docs/start/clients.md. Its globals: `client`; `userToken`, the token of
the customer who is signed in; `options()`, the last argument of each call; `signIn()` and
`signOut()`, the calls of the docs.
"""

import json
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Response
from pydantic import SecretStr

from config.access.user_tokens import user_token
from config.clock.times import HOUR
from config.settings import ROOT
from tests.support.http.receiving import Receiving, happened, made_key, receiving
from tests.support.patience import PATIENCE
from tests.support.shop import House

PACKAGES = ROOT / "tests" / "flows" / "http" / "ingest" / "clients" / "node_modules"
INSTALLED = (
    shutil.which("chromium") is not None and (PACKAGES / "@segment" / "analytics-next").is_dir()
)
needs_browser_clients = pytest.mark.skipif(
    not INSTALLED,
    reason="no browser clients: apt-get install chromium npm; "
    "npm ci --prefix tests/flows/http/ingest/clients",
)
# The receiver, as docs/start/clients.md writes it.
HOST = "https://segue.shop.example"
SECRET = SecretStr("the-secret-of-the-user-tokens")
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript"}


class Lines(NamedTuple):
    """Blocks of code of the docs: to load a client, and then calls."""

    load: str
    of_a_visitor: str
    of_a_customer: str
    sign_out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client for browsers.

    heading: its section of docs/start/clients.md. modules: its packages as `import` finds them.
    script: what the page loads before. globals: the end of the page's module.
    """

    heading: str
    modules: dict[str, str]
    script: str | None = None
    globals: str
    batches: tuple[str, str]

    @property
    def lines(self) -> Lines:
        """The blocks of code of its section."""
        page = (ROOT / "docs" / "start" / "clients.md").read_text(encoding="utf-8")
        section = page.partition(f"## {self.heading}\n")[2].partition("\n## ")[0]
        return Lines(*re.findall(r"```js\n(.*?)```", section, re.DOTALL))


_UMD = "/npm/@segment/analytics-next/dist/umd/index.js"
CLIENTS = {
    "segment": Client(
        heading="Browsers: Segment",
        script=_UMD,
        # The package's modules need a bundler; the file for script tags has the same exports.
        modules={
            "@segment/analytics-next": "data:text/javascript,"
            "export const { AnalyticsBrowser } = window.AnalyticsNext"
        },
        globals="window.client = analytics; window.options = () => ({});",
        batches=(
            f'cdnURL: "{HOST}",\n}}',
            f'cdnURL: "{HOST}",\n}}, {{ integrations: {{ "Segment.io": {{ deliveryStrategy: '
            '{ strategy: "batching" } } } }',
        ),
    ),
    "rudderstack": Client(
        heading="Browsers: RudderStack",
        modules={
            "@rudderstack/analytics-js/bundled": (
                "/npm/@rudderstack/analytics-js/dist/npm/modern/bundled/esm/index.mjs"
            )
        },
        globals="window.client = rudder; window.options = () => ({ context: { userToken } });",
        batches=("{\n  configUrl", "{\n  useBeacon: true,\n  configUrl"),
    ),
}


# The number of calls that RudderStack's client has kept.
_KEPT = """() => Object.entries(localStorage)
  .filter(([key]) => /^rudder_.*(queue|inProgress)$/.test(key))
  // The client encodes its lists twice.
  .map(([, value]) => JSON.parse(value))
  .map((value) => (typeof value === "string" ? JSON.parse(value) : value))
  .reduce((sum, value) => sum + Object.keys(value ?? []).length, 0)"""


_LEAVE = """() => {
  Object.defineProperty(document, "visibilityState", { value: "hidden" });
  document.dispatchEvent(new Event("visibilitychange"));
  window.dispatchEvent(new PageTransitionEvent("pagehide"));
}"""


class _Handler(BaseHTTPRequestHandler):
    server: "_Site"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        file = PACKAGES / path.removeprefix("/npm/")
        if path == "/":
            kind, content = "text/html", self.server.html.encode()
        elif path.startswith("/npm/") and file.is_file():
            kind, content = _TYPES[file.suffix], file.read_bytes()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        return


class _Site(ThreadingHTTPServer):
    """Serves the page at `/` and the packages."""

    html = ""
    daemon_threads = True

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def _serving() -> Iterator[_Site]:
    site = _Site(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(
        target=site.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


def _html(client: Client, calls: bool) -> str:
    script = f'<script src="{client.script}"></script>' if client.script else ""
    lines = client.lines
    return f"""<!doctype html><html lang="en"><title>Cart</title><link rel="icon" href="data:,">
<script>var userToken</script>{script}
<script type="importmap">{json.dumps({"imports": client.modules})}</script>
<script type="module">{lines.load}
{lines.of_a_visitor if calls else ""}
window.signIn = () => {{ {lines.of_a_customer} }};
window.signOut = async () => {{ {lines.sign_out} }};
{client.globals}</script>"""


class Answer(NamedTuple):
    """A response of the receiver to calls of the page; `ids`: of the calls' messages."""

    path: str
    status: int
    ids: list[str]


@dataclass
class Visit:
    """A visitor of the shop, with the receiver behind it."""

    house: House
    receiver: Receiving
    context: BrowserContext
    _: KW_ONLY
    url: str
    page: Page

    def __post_init__(self) -> None:
        self.answers: list[Answer] = []
        self.sent: Counter[str] = Counter()  # messages, by how often they were sent
        self.failed = 0  # messages in requests that failed in the network
        self.outside: list[str] = []
        self.logged: list[str] = []
        self._blank = self.context.new_page()  # a tab that stays open
        self.context.on("response", self._answered)
        self.context.on("request", self._asked)
        self.context.on("requestfailed", self._failed)
        self.context.on("console", lambda message: self.logged.append(message.text))

    def open(self) -> None:
        """Load the page, in a new tab if it was closed."""
        if self.page.is_closed():
            self.page = self.context.new_page()
        self.page.goto(self.url)
        self.page.wait_for_function("window.client !== undefined")

    def do(self, code: str) -> Any:
        """Run code in the page; a promise is awaited."""
        return self.page.evaluate(code)

    def close(self) -> None:
        """Close the tab as a visitor does.

        Chromium ends a closing page after half a second, ready or not. On a busy machine that may
        be before the page's handlers have run, so it gets the events of a closing tab beforehand.
        """
        self.do(_LEAVE)
        self.page.close(run_before_unload=True)
        self.wait_until(self.page.is_closed)

    def track(self, *numbers: int) -> None:
        """Call track with the event `n` and a property `n` for each number, without waiting."""
        code = "for (const n of %s) client.track('n', { n }, options()); null"
        self.do(code % json.dumps(numbers))

    def tracked(self) -> list[int]:
        """The numbers of the stored events, sorted."""
        return sorted(one.properties["n"] for one in happened(self.house) if one.name == "n")

    def sign_in(self, user_id: str) -> None:
        """The shop's server signs a token, and the page has it from now on."""
        token = user_token(SECRET, user_id, int(time.time()) + HOUR)
        self.do(f"userToken = {json.dumps(token)}")

    def wait_until(self, done: Callable[[], bool]) -> None:
        """Wait while the browser works on."""
        limit = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < limit, self.logged
            self._blank.wait_for_timeout(20)

    def accepted(self) -> list[str]:
        """The ids of the messages in requests that were answered with 200."""
        return [one for answer in self.answers if answer.status == 200 for one in answer.ids]

    def kept(self) -> int:
        """The number of calls that RudderStack's client has in the browser's storage."""
        return int(self.do(_KEPT))

    def waiting(self) -> bool:
        """Whether the client has calls that it will still send, or waits for answers."""
        ended = sum(len(one.ids) for one in self.answers) + self.failed
        return self.kept() > 0 or sum(self.sent.values()) > ended

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.outside.append(request.url)
        self.sent.update(self._ids(request))

    def _answered(self, response: Response) -> None:
        request = response.request
        if request.method == "POST" and request.url.startswith(self.receiver.url):
            path = request.url.removeprefix(self.receiver.url)
            self.answers.append(Answer(path, response.status, self._ids(request)))

    def _failed(self, request: Request) -> None:
        self.failed += len(self._ids(request))

    def _ids(self, request: Request) -> list[str]:
        """The messages in a request to the receiver."""
        if request.method != "POST" or not request.url.startswith(self.receiver.url):
            return []
        said = json.loads(request.post_data or "{}")
        return [call["messageId"] for call in said.get("batch", [said]) if "messageId" in call]


@contextmanager
def visiting(
    browser: Browser,
    house: House,
    client: Client,
    *,
    calls: bool = False,
    load: dict[str, str] | None = None,
    **settings: Any,
) -> Iterator[Visit]:
    """Open the page of a shop without journeys until the block ends.

    calls: the page also runs the calls of a visitor in docs/start/clients.md. load: replacements in
    its lines.
    """
    house.open(user_token_secret=SECRET, **settings)
    house.db.now = None  # the browser has a clock of its own
    with _serving() as site:
        key = made_key(house, origins=[site.origin])
        with receiving(house.segue, public=True) as receiver:
            html = _html(client, calls)
            for written, real in {**(load or {}), "pk_…": key, HOST: receiver.url}.items():
                assert written in html
                html = html.replace(written, real)
            site.html = html
            context = browser.new_context()
            context.set_default_timeout(PATIENCE * 1000)
            visit = Visit(house, receiver, context, url=site.origin, page=context.new_page())
            visit.open()
            yield visit
            context.close()
    assert visit.outside == [], "the page needs no other host"
