"""`segue up`: start and stop it as a user does, on its own ports and data."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from sqlalchemy import func, select

from config.access.login import basic, own_login
from config.clock.times import DAY, format_instant, parse_instant
from config.database.engine import Database
from config.errors import SegueError
from config.settings import Settings
from flows.app import open_segue
from flows.local.sandbox_api import SandboxAPI
from flows.local.stack import Stack, check_ports, environment, on_free_ports
from flows.local.up import FirstStart, only_one, up
from flows.orchestration.names import deployment_name
from journeys.definition.catalog import LIBRARY
from profiles.sample.shop import load_sample_shop
from profiles.tables import events, profiles
from tests.support.http.chromium import chromium, needs_chromium
from tests.support.patience import PATIENCE
from tests.support.prefect_server import give_database


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    ours = {"data_dir": tmp_path / "data", "database_url": ""}
    return on_free_ports(Settings().model_copy(update=ours))


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[str]"]]:
    """Kills processes that a test has started and not stopped."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(settings: Settings, processes: list["subprocess.Popen[str]"]) -> "subprocess.Popen[str]":
    """As a shell starts it in the background, deaf to Ctrl-C until it listens by itself."""
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$0" -m flows.cli.main up', sys.executable],
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    processes.append(process)
    return process


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """The output, up to these words."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    pytest.fail(f"it ended without saying {words!r}:\n{text}")


def wait_for_free_ports(settings: Settings) -> None:
    """Each process holds a port, so free ports show that the processes have ended."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return check_ports(settings)
        except SegueError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def number_of(settings: Settings, what: str) -> int:
    with closing(Database(settings.database)) as db, db.transaction(write=False) as tx:
        return int(tx.conn.exec_driver_sql(f"SELECT count(*) FROM {what}").scalar_one())


def wants_login(settings: Settings) -> None:
    """Prefect refuses requests without its login, and its pages open with it."""
    api = f"{settings.prefect_url}/api"
    for url in (f"{api}/version", f"{api}/deployments/name/{deployment_name('win-back')}"):
        for auth in (None, ("segue", "wrong"), ("", "")):
            assert httpx.get(url, trust_env=False, auth=auth).status_code == 401
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"{settings.prefect_url}/v2/deployments")
        field = page.locator("input")
        expect(field).to_be_visible(timeout=60_000)
        field.fill(own_login(settings))
        page.get_by_role("button", name="Login").click()
        expect(page.get_by_text("win-back").first).to_be_visible(timeout=60_000)


def leaves_a_cart(settings: Settings) -> None:
    """A click on the sample shop's page becomes a message, now or when the window opens."""
    hers = "message JOIN identifier USING (profile_id) WHERE value = 'mara@example.com'"
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"{settings.sandbox_url}/shop")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("You are signed in as Mara.")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Add to cart").first.click()
        expect(page.get_by_text("cart_abandoned: accepted")).to_be_visible(timeout=60_000)
    deadline = time.monotonic() + PATIENCE
    while not number_of(settings, hers):
        assert time.monotonic() < deadline, "the cart has no message"
        time.sleep(0.1)


@needs_chromium
@pytest.mark.long
@pytest.mark.xdist_group("prefect")
def test_the_whole_day_of_segue_up(
    settings: Settings, processes: list["subprocess.Popen[str]"], prefect_database: Path
) -> None:
    """A first start, a second one beside it, Ctrl-C, another start on the same data, kill -9."""
    give_database(settings, prefect_database)
    first = start(settings, processes)
    said = read_until(first, "Ctrl-C stops everything")
    assert f"{settings.prefect_url}\n" in said
    assert f"{settings.sandbox_url}/inbox\n" in said
    assert f"{settings.staff_url}\n" in said
    name, password = basic(own_login(settings))
    assert f"{name}, password {password}\n" in said
    signed_in = httpx.post(
        f"{settings.staff_url}/sign-in",
        data={"name": name, "password": password},
        headers={"Origin": settings.staff_url},
        trust_env=False,
        timeout=PATIENCE,
    )
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/")
    assert f"{settings.sandbox_url}/shop\n" in said
    assert f"{settings.public_url}/docs\n" in said
    assert httpx.get(f"{settings.public_url}/docs", trust_env=False, timeout=PATIENCE).is_success
    with closing(SandboxAPI(settings)) as sandbox:
        callbacks = sandbox.callbacks()
    assert callbacks["behaviour"] is not None, "the sandbox's customers answer"
    page = next(line.strip() for line in said.splitlines() if "/runs/flow-run/" in line)
    assert httpx.get(f"{settings.sandbox_url}/inbox", trust_env=False, timeout=PATIENCE).is_success
    assert httpx.get(
        page, trust_env=False, timeout=PATIENCE, headers={"Accept": "text/html"}
    ).is_success
    assert number_of(settings, "profile") == 3000
    leaves_a_cart(settings)
    for path in (settings.data_dir, *settings.data_dir.rglob("*")):
        assert not path.lstat().st_mode & 0o077 or path.is_symlink(), path

    second = start(settings, processes)
    told, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert f"Segue is already running on {settings.data_dir} (process {first.pid})" in told
    assert httpx.get(f"{settings.sandbox_url}/inbox", trust_env=False, timeout=PATIENCE).is_success

    first.send_signal(signal.SIGINT)
    # Up itself ends its children within 5 s; a machine that does much else takes longer.
    assert first.wait(timeout=PATIENCE) == 0
    check_ports(settings)
    launched = number_of(settings, "launch")

    again = start(settings.model_copy(update={"prefect_login": True}), processes)
    said = read_until(again, "Ctrl-C stops everything")
    assert f"its login                           {own_login(settings)}\n" in said
    wants_login(settings)
    assert "sample shop" not in said
    assert "/runs/flow-run/" not in said
    assert number_of(settings, "profile") == 3001
    assert number_of(settings, "launch") == launched

    again.kill()
    again.wait()
    wait_for_free_ports(settings)
    with only_one(settings.data_dir):
        pass


def test_a_port_in_use_is_named_with_its_setting(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind((settings.host, settings.sandbox_port))
        other.listen()
        with pytest.raises(SegueError) as told:
            up(settings)
    assert f"the sandbox can't use port {settings.sandbox_port}" in str(told.value)
    assert f"SEGUE_SANDBOX_PORT={settings.sandbox_port + 1}" in str(told.value)


@pytest.mark.parametrize("half", [b"", b"SQLite format 3\0" + bytes(2000), b"not a database" * 99])
def test_a_damaged_database_is_reported_before_anything_starts(
    settings: Settings, half: bytes
) -> None:
    settings.data_dir.mkdir()
    file = settings.data_dir / "segue.db"
    file.write_bytes(half)
    if not half:
        # An empty file is an empty database: it is filled.
        with closing(open_segue(settings).db):
            assert number_of(settings, "profile") == 0
        return
    with pytest.raises(SegueError, match="can't be read") as told:
        up(settings)
    assert str(file) in str(told.value)
    assert file.read_bytes() == half
    check_ports(settings)


def test_a_process_that_ends_is_reported_with_the_end_of_its_log(settings: Settings) -> None:
    (settings.data_dir / "sandbox.db").mkdir(parents=True)
    with Stack(settings) as stack:
        stack.start_servers()
        with pytest.raises(SegueError, match="the sandbox has stopped") as told:
            stack.wait_for_servers()
    assert "unable to open database file" in str(told.value)
    check_ports(settings)


def test_time_and_providers_are_real_or_sandboxed(settings: Settings) -> None:
    with pytest.raises(SegueError, match="SEGUE_NOW"):
        up(settings.model_copy(update={"now": parse_instant("2026-03-02T09:00:00Z")}))
    with pytest.raises(SegueError, match="SEGUE_PROVIDERS"):
        up(settings.model_copy(update={"providers": "live"}))


def test_a_first_start_that_was_killed_is_done_over_as_of_the_same_moment(
    settings: Settings,
) -> None:
    segue = open_segue(settings)
    with closing(segue.db):
        first = FirstStart(settings, segue.db)
        assert first.is_now
        # Killed half-way: some of the customers are there, and it is tomorrow.
        moment = parse_instant((settings.data_dir / "first-start").read_text())
        load_sample_shop(segue.db, moment, customers=100)
        segue.db.now = moment + DAY
        again = FirstStart(settings, segue.db)
        assert again.load_shop()
        with segue.db.transaction(write=False) as tx:
            people = tx.conn.execute(select(func.count()).select_from(profiles)).scalar_one()
            latest = tx.conn.execute(select(func.max(events.c.occurred_at))).scalar_one()
        assert people == 3000
        assert latest < moment, format_instant(latest)
        again.finish()
        assert not FirstStart(settings, segue.db).load_shop()


def test_data_of_ones_own_are_left_alone(settings: Settings) -> None:
    segue = open_segue(settings)
    with closing(segue.db):
        load_sample_shop(segue.db, parse_instant("2026-03-02T09:00:00Z"), customers=1)
        assert not FirstStart(settings, segue.db).load_shop()
    assert number_of(settings, "profile") == 1


def test_journeys_of_ones_own_get_no_invented_customers(settings: Settings, tmp_path: Path) -> None:
    shutil.copytree(LIBRARY / "welcome", tmp_path / "library" / "welcome")
    ours = settings.model_copy(update={"library": tmp_path / "library"})
    segue = open_segue(ours)
    with closing(segue.db):
        first = FirstStart(ours, segue.db)
        assert not first.load_shop()
        assert not first.is_now
    assert number_of(ours, "profile") == 0
