"""deploy/Containerfile: built from the lock's files alone, and without root, pip or compilers."""

import re
import tomllib

from config.settings import ROOT, Settings
from tests.deploy.containers import COMPOSE, DEPLOY, SERVICES, image, image_environment, stages
from tests.deploy.variables import known_variables

BUILD = stages()[0]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_what_the_two_stages_are_built_from_is_the_same() -> None:
    assert [[line.rest for line in stage if line.word == "FROM"] for stage in stages()] == [
        ["${PYTHON} AS build"],
        ["${PYTHON}"],
    ]
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    [version] = re.findall(r"^ARG PYTHON=.*python:(\d\.\d+)-slim", text, re.MULTILINE)
    assert (
        f"<{version.split('.')[0]}.{int(version.split('.')[1]) + 1}"
        in (PROJECT["project"]["requires-python"])
    )


def test_packages_come_from_the_lock_and_are_checked_by_their_hashes() -> None:
    download, _venv, install = [line.arguments() for line in BUILD if line.word == "RUN"]
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(download)
    assert download[-2:] == ["-r", "/build/requirements.lock"]
    wheels = download[download.index("--dest") + 1]
    assert "--no-index" in install
    assert install[install.index("--find-links") + 1] == wheels
    assert install[-1] == "/build", "Segue without its extras: no tools of development"


def test_the_build_copies_what_the_package_is_made_of() -> None:
    copied = {path for line in BUILD if line.word == "COPY" for path in line.arguments()[:-1]}
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = {PROJECT["project"]["readme"], "pyproject.toml", "requirements.lock", "LICENSE"}
    assert copied == {*packages, *files}
    for line in BUILD:
        if line.word == "COPY" and len(line.arguments()) == 2:
            source, target = line.arguments()
            assert target in (f"/build/{source}", "/build/")
    ignore = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignore if line.startswith("!")} == copied | {"deploy/entrypoint"}


def test_the_image_has_no_tools_and_is_not_root() -> None:
    assert [line.rest for line in image("USER")] == ["10001"]
    copies = [line.arguments() for line in image("COPY")]
    assert copies == [
        ["/opt/segue", "/opt/segue"],
        ["deploy/entrypoint", "/opt/segue/bin/entrypoint"],
    ]
    runs = [line.arguments() for line in image("RUN")]
    assert [run[0] for run in runs] == ["python", "useradd", "install"]
    assert runs[0][:4] == ["python", "-m", "pip", "uninstall"]
    without_pip = [line.rest for line in BUILD if "-m venv" in line.rest]
    assert without_pip == ["python -m venv --without-pip /opt/segue"]


def test_the_image_runs_a_worker() -> None:
    assert image("CMD")[0].arguments() == SERVICES["worker-1"].command
    assert image("ENTRYPOINT")[0].arguments() == ["entrypoint"]
    assert image_environment().keys() <= known_variables()
    folder = image_environment()["SEGUE_DATA_DIR"]
    assert f"segue:{folder}" in COMPOSE["services"]["worker-1"]["volumes"]


def test_its_health_is_that_of_the_receiver() -> None:
    """test_processes.py runs the check."""
    [expose] = image("EXPOSE")
    assert expose.rest == str(Settings.model_fields["receiver_port"].default)
    assert f"http://127.0.0.1:{expose.rest}/healthz" in SERVICES["worker-1"].healthcheck[-1]
