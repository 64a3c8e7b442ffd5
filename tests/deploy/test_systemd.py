"""The units of deploy/systemd: systemd accepts them, and they stop and restart as Segue needs."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.providers.registry import unmet_needs
from config.settings import ROOT, Settings, load_settings
from config.timing import TIMING
from flows.http.serving import GRACE
from tests.deploy.units import BIN, COMMON, SYSTEMD, Unit, read_env, read_unit, services
from tests.deploy.variables import known_variables

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="no systemd-analyze here: apt-get install systemd",
)
ENV_FILES = [ROOT / "deploy" / "segue.env", SYSTEMD / "secrets.env", SYSTEMD / "prefect.env"]
RUNNING = ["segue-worker@", "segue-prefect", "segue-pool", "segue-staff"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as installed, with this checkout in place of /opt/segue."""
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(SYSTEMD, folder, dirs_exist_ok=True)
    for file in folder.glob("*.service"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("/opt/segue/.venv", str(ROOT / ".venv")), encoding="utf-8")
    return folder


def analyze(*arguments: str, folder: Path) -> str:
    """The output of systemd-analyze for the units; empty if it finds nothing."""
    done = subprocess.run(
        ["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def names() -> Iterator[str]:
    yield "./segue.target"
    for unit in services():
        yield f"./{unit.name}8080.service" if unit.name.endswith("@") else f"./{unit.name}.service"


@needs_systemd
def test_systemd_accepts_the_units(installed: Path) -> None:
    assert analyze("verify", "--man=no", *names(), folder=installed) == ""


@needs_systemd
@pytest.mark.parametrize("unit", [name for name in names() if name.endswith(".service")])
def test_a_service_is_exposed_little(installed: Path, unit: str) -> None:
    """At most 2.0 of 10 by systemd's own scale; a service without hardening has 9.6."""
    found = analyze("security", "--offline=yes", "--threshold=20", unit, folder=installed)
    assert "exposure level" in found


def test_the_target_starts_what_runs_all_the_time() -> None:
    wanted = [unit.name for unit in services() if unit.all("WantedBy") == ["segue.target"]]
    assert sorted(wanted) == sorted(RUNNING)
    assert ("Unit", "PartOf", "segue.target") in read_unit(COMMON)


@pytest.mark.parametrize("name", RUNNING)
def test_what_runs_all_the_time_is_restarted_for_ever(name: str) -> None:
    assert Unit(name).one("Restart") == "always"
    assert ("Unit", "StartLimitIntervalSec", "0") in read_unit(COMMON)


@pytest.mark.parametrize("name", ["segue-worker@", "segue-pool"])
def test_a_stop_waits_for_posts_and_open_requests(name: str) -> None:
    assert int(Unit(name).one("TimeoutStopSec")) >= TIMING.post_within + GRACE + 10


@pytest.mark.parametrize("name", ["segue-worker@", "segue-pool", "segue-staff"])
def test_the_upgrade_comes_first_and_its_failure_prevents_no_retry(name: str) -> None:
    unit = Unit(name)
    assert "segue-upgrade.service" in unit.one("After").split()
    assert "segue-upgrade.service" in unit.one("Wants").split()
    assert unit.all("Requires") == []
    upgrade = Unit("segue-upgrade")
    assert upgrade.one("Type") == "oneshot"
    assert upgrade.all("RemainAfterExit") == [], "each start of the target runs it again"


def test_secrets_are_in_files_that_systemd_alone_reads() -> None:
    for unit in services():
        assert not [name for name in unit.environment() if re.search("KEY|SECRET|TOKEN|PASS", name)]
        files = unit.all("EnvironmentFile")
        own = "prefect.env" if unit.name == "segue-prefect" else "secrets.env"
        assert f"/etc/segue/{own}" in files, unit.name
    for file in ENV_FILES:
        read_env(file)
    for file in (SYSTEMD / "secrets.env", SYSTEMD / "prefect.env"):
        assert "mode 0600, owner root" in file.read_text(encoding="utf-8")


def test_each_variable_is_a_setting() -> None:
    for unit in services():
        assert unit.environment().keys() <= known_variables(), unit.name
    for file in ENV_FILES:
        assert read_env(file).keys() <= known_variables(), file.name


def test_prefects_server_gets_none_of_segues_secrets() -> None:
    unit = Unit("segue-prefect")
    assert unit.all("EnvironmentFile") == ["/etc/segue/prefect.env"]
    assert unit.one("User") != Unit("segue-worker@").one("User")


def test_each_user_of_a_unit_is_created() -> None:
    users = (SYSTEMD / "segue.sysusers").read_text(encoding="utf-8")
    created = set(re.findall(r"^u (\S+)", users, re.MULTILINE))
    assert {unit.one("User") for unit in services()} == created


def test_the_programs_are_in_the_environment_that_make_builds() -> None:
    for unit in services():
        for line in unit.all("ExecStart"):
            program = Path(line.removeprefix("-").split()[0])
            assert str(program.parent) == BIN
            assert (ROOT / ".venv" / "bin" / program.name).is_file()


def test_segue_names_the_settings_that_are_not_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each empty line of the files, and nothing else."""
    given: dict[str, Any] = {}
    for file in ENV_FILES[:2]:
        given |= read_env(file)
    for name, value in given.items():
        if value:
            monkeypatch.setenv(name, value)
    told = {line.split()[0] for line in unmet_needs(load_settings())}
    empty = {name for name, value in given.items() if not value and name.startswith("SEGUE_")}
    assert told == empty
    assert given["SEGUE_BRAND"] != Settings.model_fields["brand"].default
