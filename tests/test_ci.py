"""CI besides the tests: the audit, the public workflow, the versions in .venv."""

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator.readers import read_from_filename

from config.settings import ROOT

LOCK = "idna==3.20 --hash=sha256:" + "0" * 64 + "\npip==26.3 --hash=sha256:" + "1" * 64 + "\n"
CANARY = "jinja2"


@contextmanager
def advisories(answers: dict[str, Any]) -> Iterator[str]:
    """A copy of the OSV query API that answers so by package; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = answers.get(asked["package"]["name"], {})
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def bad(package: str) -> dict[str, Any]:
    affected = {
        "package": {"name": package, "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
    }
    return {"vulns": [{"id": "PYSEC-2026-1", "summary": "bad", "affected": [affected]}]}


def audit(tmp_path: Path, url: str, lock: str = LOCK) -> tuple[int, str]:
    file = tmp_path / "requirements.lock"
    file.write_text(lock)
    environment = os.environ | {"ADVISORIES_URL": url, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py", file],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_lock_file_without_known_vulnerabilities_passes(tmp_path: Path) -> None:
    with advisories({CANARY: bad(CANARY)}) as url:
        status, said = audit(tmp_path, url)
    assert (status, said) == (
        0,
        "requirements.lock: 2 packages audited, 0 with known vulnerabilities\n",
    )


def test_a_known_vulnerability_fails_and_is_named(tmp_path: Path) -> None:
    with advisories({CANARY: bad(CANARY), "idna": bad("idna")}) as url:
        status, said = audit(tmp_path, url)
    assert status == 1
    assert "idna 3.20: PYSEC-2026-1, fixed in 99.1\n" in said
    assert "2 packages audited, 1 with known vulnerabilities" in said


@pytest.mark.parametrize("answer", [{}, b"<html>", b"", b"[]", {"vulns": []}])
def test_a_source_that_has_no_advisories_is_never_taken_for_good_news(
    tmp_path: Path, answer: Any
) -> None:
    with advisories({CANARY: answer}) as url:
        status, said = audit(tmp_path, url)
    assert status == 0
    assert said.startswith("requirements.lock was NOT AUDITED: no advisories could be had (-s osv")


def test_without_a_network_the_audit_reports_that_it_did_not_run(tmp_path: Path) -> None:
    status, said = audit(tmp_path, "http://127.0.0.1:1/v1/query")
    assert status == 0
    assert "NOT AUDITED" in said
    assert said.count("\n") == 1


def test_ci_runs_the_audit() -> None:
    assert ".ci/audit.py requirements.lock" in (ROOT / ".ci" / "run").read_text()


def test_ci_installs_every_npm_package_of_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    locks = (ROOT / "tests").rglob("package-lock.json")
    folders = [file.parent for file in locks if "node_modules" not in file.parts]
    assert len(folders) >= 2
    for folder in folders:
        assert str(folder.relative_to(ROOT)) in script


@pytest.mark.parametrize("package", ["pip", "setuptools", "hatchling", "editables", "uv"])
def test_the_installers_in_venv_are_those_of_the_lock_file(package: str) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    [locked] = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
    assert Path(sys.prefix) == ROOT / ".venv", "tests run in .venv: make test"
    assert version(package) == locked


def test_make_lists_the_tests_that_it_skips_with_the_reason() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    [pytest_line] = [line for line in done.stdout.splitlines() if "-m pytest" in line]
    assert " -rs" in pytest_line


def test_each_skip_reason_names_the_fix() -> None:
    reasons = [
        (file.name, reason)
        for file in (ROOT / "tests").rglob("*.py")
        for reason in re.findall(r'skip(?:if)?\([^#]*?reason=f?"([^"]*)"', file.read_text("utf-8"))
    ]
    assert len(reasons) >= 3
    for name, reason in reasons:
        assert "apt-get install" in reason or reason.startswith("put "), (name, reason)


def test_the_public_workflow_runs_the_same_script_on_every_python() -> None:
    workflow, _ = read_from_filename(str(ROOT / ".github" / "workflows" / "ci.yml"))
    job = workflow["jobs"]["test"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


def test_the_actions_of_the_workflow_are_pinned() -> None:
    workflow, _ = read_from_filename(str(ROOT / ".github" / "workflows" / "ci.yml"))
    used = [step["uses"] for step in workflow["jobs"]["test"]["steps"] if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", action), action


def test_the_license_is_the_one_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License\n" in (ROOT / "LICENSE").read_text(encoding="utf-8")
