"""`segue up`: everything on this machine, until Ctrl-C."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import select

from config.access.login import basic, is_loopback, own_login, prefect_login
from config.access.passwords import is_password
from config.access.private_files import make_private_folder, open_private
from config.access.staff_acts import COMMAND_LINE, record_act
from config.access.staff_users import add_user, list_users, stored_hash
from config.clock.times import Instant, format_instant, parse_instant
from config.database.engine import Database, Tx
from config.errors import SegueError
from config.settings import Settings
from flows.app import Segue, open_segue
from flows.cli.output import say
from flows.local.sandbox_api import SandboxAPI
from flows.local.stack import Stack, check_ports
from journeys.definition.catalog import LIBRARY
from profiles.sample.shop import load_sample_shop
from profiles.tables import profiles

# Launched at the first start, as an example.
FIRST_JOURNEY, FIRST_AUDIENCE = "win-back", "lapsed"


def up(settings: Settings) -> int:
    """Start everything, and stop it on Ctrl-C or SIGTERM; returns the exit status.

    Raises SegueError, with nothing left running, if a process can't start or ends.
    """
    if settings.now is not None:
        raise SegueError("`segue up` runs in real time: unset SEGUE_NOW, or use `segue demo`")
    if settings.providers != "sandbox":
        raise SegueError(
            "`segue up` loads invented customers and sends messages to them: unset "
            "SEGUE_PROVIDERS. For real providers run `segue work` and `segue deploy`"
        )
    stop_on_signals()
    try:
        with only_one(settings.data_dir):
            check_ports(settings)
            _run(settings)
    except KeyboardInterrupt:
        pass
    return 0


def stop_on_signals() -> None:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt.

    SIGINT needs it too: a shell starts background processes with SIGINT ignored.
    """
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler)


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory. Raises SegueError when another process holds it.

    The kernel releases the lock when the process ends, even by SIGKILL.
    """
    make_private_folder(data_dir)
    with open(data_dir / "lock", "a+", opener=open_private) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise SegueError(
                f"Segue is already running on {data_dir} (process {file.read().strip()}): use it, "
                "stop it with Ctrl-C, or choose another folder: SEGUE_DATA_DIR=..."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class FirstStart:
    """The work of the first start. A file with its time exists from its begin to its end.

    So a first start that was killed is repeated with the same time, and adds only what is missing.
    The sample shop is for the journeys of the checkout: a library of one's own has its own people.
    """

    def __init__(self, settings: Settings, db: Database) -> None:
        self._mark = settings.data_dir / "first-start"
        self._db = db
        if settings.library.resolve() != LIBRARY.resolve():
            return
        with db.transaction(write=False) as tx:
            if not self._mark.exists() and is_empty(tx):
                written = self._mark.with_suffix(".new")
                written.write_text(format_instant(tx.now))
                written.rename(self._mark)

    @property
    def is_now(self) -> bool:
        return self._mark.exists()

    def load_shop(self) -> bool:
        """Load the sample shop if this is the first start. Returns whether it is."""
        if self.is_now:
            load_sample_shop(self._db, self._moment())
        return self.is_now

    def _moment(self) -> Instant:
        return parse_instant(self._mark.read_text().strip())

    def finish(self) -> None:
        self._mark.unlink()


def is_empty(tx: Tx) -> bool:
    """Whether there is no customer yet."""
    return tx.conn.scalar(select(profiles.c.id).limit(1)) is None


def _run(settings: Settings) -> None:
    say("Segue is starting; the first time takes half a minute.")
    # Detects a damaged database before any process starts.
    segue = open_segue(settings)
    with closing(segue.db), Stack(settings) as stack:
        try:
            _start(stack, segue)
            while True:
                stack.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            say("")
            say("Stopping ...")


def _staff_login(segue: Segue) -> str:
    """The name and the password of the first admin, whom this adds if there is no user yet."""
    name, password = basic(own_login(segue.settings))
    with segue.db.transaction() as tx:
        if not list_users(tx):
            add_user(tx, name, "admin", password, one_time=False)
            record_act(tx, COMMAND_LINE, "added a user", about=f"{name}, admin")
        is_theirs = is_password(password, stored_hash(tx, name))
    return f"{name}, password {password}" if is_theirs else "as set; segue staff password sets one"


def _start(stack: Stack, segue: Segue) -> None:
    settings, prefect = stack.settings, stack.prefect
    first = FirstStart(settings, segue.db)
    stack.start_servers()
    if first.load_shop():
        say("Loaded the sample shop: 3,000 invented customers and a year of their orders.")
    stack.wait_for_servers()
    with closing(SandboxAPI(settings)) as sandbox:
        sandbox.behave({})
    stack.start_worker()
    stack.start_staff_site()
    stack.start_runner(segue.catalog.current)
    say("")
    say("Segue is up.")
    say(f"  Prefect, where journeys are started   {settings.prefect_url}")
    if login := prefect_login(settings):
        say(f"    its login                           {login}")
    say(f"  Staff site: people and reasons        {settings.staff_url}")
    say(f"    its login                           {_staff_login(segue)}")
    say(f"  Inbox, what customers receive         {settings.sandbox_url}/inbox")
    if not is_loopback(settings.host):
        say(f"    its login                           {own_login(settings)}")
    say(f"  Sample shop, to see an event arrive   {settings.sandbox_url}/shop")
    say(f"  Receiver, the HTTP API for events     {settings.public_url}/docs")
    if first.is_now:
        run_id = prefect.start(FIRST_JOURNEY, {"audience": FIRST_AUDIENCE}, key="first-start")
        first.finish()
        say(f"  {FIRST_JOURNEY} is being sent to {FIRST_AUDIENCE}:")
        say(f"    {prefect.page(run_id)}")
    with segue.db.transaction(write=False) as tx:
        if is_empty(tx):
            say("  There are no customers yet: segue import FILE --map MAP")
    say("  The simulated customers open, click and reply within a minute or two.")
    say("")
    say(f"Ctrl-C stops everything. Data and logs: {settings.data_dir}")
