"""Files with personal data and secrets are readable only by their owner."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.access.login import is_loopback, own_login, prefect_login
from config.access.private_files import make_private_folder, tighten_database, tighten_folder
from config.database.engine import Database
from config.errors import SegueError
from config.settings import Settings
from flows.app import open_segue
from flows.local.stack import environment
from flows.local.up import only_one
from profiles.imports.importer import import_file
from sandbox.store import Store
from tests.support.shop import House


@pytest.fixture(autouse=True)
def _loose() -> Iterator[None]:
    """A umask under which new files are readable by all users."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def readable_by_others(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): oct(mode(path))
        for path in folder.rglob("*")
        if mode(path) & 0o077 and not path.is_symlink()
    }


def test_a_database_is_private_with_the_files_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "segue.db"
    with closing(Database(f"sqlite:///{file}")) as db:
        with db.transaction() as tx:
            tx.conn.exec_driver_sql("CREATE TABLE t (x)")
        assert {path.name for path in file.parent.iterdir()} >= {"segue.db", "segue.db-wal"}
        assert readable_by_others(tmp_path) == {}


def test_a_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    file = tmp_path / "segue.db"
    with closing(Database(f"sqlite:///{file}")) as db, db.transaction() as tx:
        tx.conn.exec_driver_sql("CREATE TABLE t (x)")
        for path in tmp_path.iterdir():
            path.chmod(0o666)
        with closing(Database(f"sqlite:///{file}")):
            assert readable_by_others(tmp_path) == {}


def test_a_second_database_object_takes_no_lock_from_the_first(sqlite_url: str) -> None:
    """POSIX drops a process's locks on a file when it closes the file once."""
    file = sqlite_url.removeprefix("sqlite:///")
    write = f"import sqlite3; sqlite3.connect({file!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    first = sqlite3.connect(file, isolation_level=None)
    first.execute("PRAGMA journal_mode = DELETE")
    first.execute("BEGIN IMMEDIATE")
    tighten_database(Path(file))
    done = subprocess.run(
        [sys.executable, "-c", write], capture_output=True, text=True, check=False
    )
    first.close()
    assert "database is locked" in done.stderr


def test_the_sandboxs_database_is_private(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "sandbox" / "sandbox.db")):
        assert readable_by_others(tmp_path) == {}


def test_an_existing_file_of_refused_rows_becomes_private(
    sqlite_house: House, tmp_path: Path
) -> None:
    source, columns = tmp_path / "people.csv", tmp_path / "map.toml"
    source.write_text("email\nnonsense\n")
    columns.write_text('[columns]\nemail = "email"\n')
    refused = tmp_path / "people.csv.refused.csv"
    refused.write_text("older\n")
    assert import_file(sqlite_house.db, source, map_file=columns).refused == 1
    assert mode(refused) == 0o600
    assert "nonsense" in refused.read_text()


def test_files_in_the_data_folder_become_private_at_the_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("segue.db-journal", "sandbox.db", "first-start", "logs/the-worker.log"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    (data / "prefect" / "storage").mkdir(parents=True)
    (data / "prefect" / "prefect.db").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (data / "link").symlink_to(outside)
    with closing(open_segue(Settings(data_dir=data)).db):
        assert mode(data) == 0o700
        assert readable_by_others(data) == {}
    assert mode(outside) == 0o777, "links are not followed"


def test_rights_of_the_owner_stay(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.touch()
    script.chmod(0o755)
    tighten_folder(tmp_path)
    assert mode(script) == 0o700


def test_a_folder_for_everybody_is_refused(tmp_path: Path) -> None:
    """Closing /tmp would lock out all other users."""
    tmp_path.chmod(0o1777)
    with pytest.raises(SegueError, match=f"{tmp_path} is a shared folder.* SEGUE_DATA_DIR"):
        make_private_folder(tmp_path)
    assert mode(tmp_path) == 0o1777


def test_the_lock_is_private(tmp_path: Path) -> None:
    with only_one(tmp_path / "data"):
        assert mode(tmp_path / "data") == 0o700
        assert readable_by_others(tmp_path / "data") == {}


def test_commands_make_private_files(tmp_path: Path) -> None:
    """All files that the processes write, by our code or by a library."""
    code = "from flows.cli import main as m; m.app = lambda **_: open('made', 'w'); m.main()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=_with_path())
    assert mode(tmp_path / "made") == 0o600


def _with_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


# The login ----------------------------------------------------------------------------------------


def test_the_login_is_made_once_and_is_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    login = own_login(settings)
    user, _, password = login.partition(":")
    assert user == "segue"
    assert len(password) >= 32
    assert own_login(settings) == login
    assert own_login(Settings(data_dir=tmp_path / "other")) != login
    assert readable_by_others(tmp_path) == {}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["login"]


def test_processes_that_start_together_have_one_login(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(own_login(Settings(data_dir=tmp_path))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("text", ["", "segue", "segue:", "segue:short", ":" + "x" * 32])
def test_an_unreadable_login_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "login").write_text(text)
    with pytest.raises(SegueError, match=r"has no login .*; delete it"):
        own_login(Settings(data_dir=tmp_path))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.5", False), ("segue.internal", False)),
        ("localhost.evil.example", False),
    ],
)
def test_prefect_needs_a_login_wherever_it_listens_beyond_this_machine(
    tmp_path: Path, host: str, loopback: bool
) -> None:
    assert is_loopback(host) == loopback
    settings = Settings(data_dir=tmp_path, host=host)
    variables = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
    expected = None if loopback else own_login(settings)
    assert prefect_login(settings) == expected
    given = environment(settings)
    assert [given.get(name) for name in variables] == [expected, expected]


def test_a_setting_asks_for_the_login_on_this_machine_too(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, prefect_login=True)
    assert prefect_login(settings) == own_login(settings)
    assert environment(settings)["SEGUE_PREFECT_LOGIN"] == "True"


def test_prefect_allows_only_its_own_origin(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, prefect_port=4711)
    assert environment(settings)["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4711"
