"""Pages of other sites in a real browser, against the servers that `segue up` starts.

The other site is served from another port of this machine, under the name evil.example, which the
browser resolves to this machine. So only our own servers can refuse its requests.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from flows.local.sandbox_api import SandboxAPI
from flows.local.stack import Stack
from flows.orchestration.names import deployment_name
from tests.support.http.chromium import chromium, needs_chromium

pytestmark = [
    needs_chromium,
    pytest.mark.long,
    pytest.mark.xdist_group("prefect"),
]

JOURNEY = "win-back"
RUNS_CODE = {"pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": "true"}}]}

# What a page can try; each gives "refused" where the browser keeps the answer from the page.
TRY = """async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    return answer.type === "opaque" ? "sent" : await answer.text();
  } catch { return "refused"; }
}"""
OPEN_SOCKET = """(url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
})"""
SUBMIT = """([url, kind]) => {
  const form = document.createElement("form");
  Object.assign(form, {method: "POST", action: url, enctype: kind});
  const field = document.createElement("input");
  Object.assign(field, {name: '{"parameters": {"audience": "lapsed"}, "x": "', value: '"}'});
  form.append(field);
  document.body.append(form);
  form.submit();
}"""


@pytest.fixture(scope="module")
def other_port() -> Iterator[int]:
    """The other site: an empty page on a port of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/", lambda _request: HTMLResponse("<body></body>"))])
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--host-resolver-rules=MAP evil.example 127.0.0.1") as browser:
        yield browser


class Site(NamedTuple):
    """A page of the other site, and what our servers answered it."""

    page: Page
    statuses: list[int]

    def tries(self, url: str, **options: Any) -> str:
        """What a fetch from the page gives it."""
        return str(self.page.evaluate(TRY, [url, options]))


@pytest.fixture(params=["127.0.0.1", "localhost", "evil.example"])
def site(browser: Browser, other_port: int, request: pytest.FixtureRequest) -> Iterator[Site]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{request.param}:{other_port}/")
    statuses: list[int] = []
    page.on("response", lambda response: statuses.append(response.status))
    yield Site(page, statuses)
    context.close()


def deployment(stack: Stack) -> dict[str, Any]:
    url = f"{stack.settings.prefect_url}/api/deployments/name/{deployment_name(JOURNEY)}"
    found = httpx.get(url, trust_env=False).raise_for_status().json()
    return {name: found[name] for name in ("id", "paused", "pull_steps", "entrypoint")}


def runs(stack: Stack) -> int:
    """The number of runs that were started, without those of a schedule."""
    url = f"{stack.settings.prefect_url}/api/flow_runs/filter"
    found = httpx.post(url, json={}, trust_env=False).raise_for_status().json()
    return sum(not run["auto_scheduled"] for run in found)


def test_another_sites_page_changes_and_starts_nothing_in_prefect(stack: Stack, site: Site) -> None:
    found, before = deployment(stack), runs(stack)
    url = f"{stack.settings.prefect_url}/api/deployments/{found['id']}"
    as_json = {"Content-Type": "application/json"}
    body = str(RUNS_CODE).replace("'", '"')
    assert site.tries(url, method="PATCH", headers=as_json, body=body) == "refused"
    assert site.tries(url, method="DELETE") == "refused"
    start = f"{url}/create_flow_run"
    assert site.tries(start, method="POST", headers=as_json, body="{}") == "refused"
    # What a browser sends without asking first: the page does not see that it is refused.
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        simple = {"method": "POST", "mode": "no-cors", "headers": {"Content-Type": kind}}
        assert site.tries(start, **simple, body="{}") == "sent"
    assert site.tries(f"{url}/pause_deployment", method="POST", mode="no-cors") == "sent"
    assert set(site.statuses) == {403}
    assert deployment(stack) == found
    assert runs(stack) == before


def test_another_sites_page_reads_nothing_of_prefect(stack: Stack, site: Site) -> None:
    api = f"{stack.settings.prefect_url}/api"
    assert site.tries(f"{api}/deployments/name/{deployment_name(JOURNEY)}") == "refused"
    assert site.page.evaluate(OPEN_SOCKET, f"ws{api.removeprefix('http')}/events/out") == "refused"
    assert set(site.statuses) <= {403}


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data"])
def test_another_sites_form_starts_no_run(stack: Stack, site: Site, kind: str) -> None:
    before = runs(stack)
    url = f"{stack.settings.prefect_url}/api/deployments/{deployment(stack)['id']}/create_flow_run"
    with site.page.expect_navigation():
        site.page.evaluate(SUBMIT, [url, kind])
    expect(site.page.locator("body")).to_contain_text(
        "Requests from pages of other origins are refused"
    )
    assert runs(stack) == before


def test_a_name_that_resolves_to_this_machine_opens_nothing(stack: Stack, browser: Browser) -> None:
    """DNS rebinding: to the browser the page is of the same origin as the server."""
    for port in (stack.settings.prefect_port, stack.settings.sandbox_port):
        page = browser.new_page()
        answer = page.goto(f"http://evil.example:{port}/inbox")
        assert answer is not None
        assert answer.status == 400
        assert page.evaluate(TRY, ["/api/admin/version", {}]) == "Invalid host header"
        socket_url = f"ws://evil.example:{port}/api/events/out"
        assert page.evaluate(OPEN_SOCKET, socket_url) == "refused"
        page.close()


def test_another_sites_page_neither_reads_nor_controls_the_sandbox(
    stack: Stack, site: Site
) -> None:
    url = stack.settings.sandbox_url
    with closing(SandboxAPI(stack.settings)) as sandbox:
        before = sandbox.stats(), sandbox.callbacks()
    for path in ("/inbox", "/stats", "/behaviour", "/message/1"):
        assert site.tries(url + path) == "refused"
        # Asked without CORS the inbox says that it is for its own origin; the others want a login.
        blind = site.tries(url + path, mode="no-cors")
        assert blind == ("refused" if path == "/inbox" else "sent")
    body = '{"provider": "sendgrid", "answer": 500, "count": 1000}'
    for path in ("/faults", "/behaviour", "/replies", "/clock", "/v3/mail/send"):
        assert site.tries(url + path, method="POST", mode="no-cors", body=body) == "sent"
        assert site.tries(url + path, method="DELETE") == "refused"
    assert set(site.statuses) <= {200, 401, 403}
    with closing(SandboxAPI(stack.settings)) as sandbox:
        assert (sandbox.stats(), sandbox.callbacks()) == before
    # No frame holds the inbox.
    site.page.evaluate(
        "(url) => { const frame = document.createElement('iframe'); frame.src = url;"
        "  document.body.append(frame); }",
        f"{url}/inbox",
    )
    expect(site.page.frame_locator("iframe").get_by_text("Latest messages")).to_have_count(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_our_own_pages_work(stack: Stack, browser: Browser, host: str) -> None:
    settings = stack.settings
    page = browser.new_page()
    page.goto(f"http://{host}:{settings.prefect_port}/api/version")
    as_json = {"Content-Type": "application/json"}
    asked = ["/api/deployments/filter", {"method": "POST", "headers": as_json, "body": "{}"}]
    assert f'"name":"{JOURNEY}"' in page.evaluate(TRY, asked)
    page.goto(f"http://{host}:{settings.sandbox_port}/inbox")
    expect(page.get_by_role("heading", name="Latest messages")).to_be_visible(timeout=60_000)
    page.close()


def test_prefects_pages_work(stack: Stack, browser: Browser) -> None:
    """On 127.0.0.1 tests/flows/local/test_up.py opens them."""
    page = browser.new_page()
    page.goto(f"http://localhost:{stack.settings.prefect_port}/v2/deployments")
    expect(page.get_by_text(JOURNEY).first).to_be_visible(timeout=60_000)
    page.close()
