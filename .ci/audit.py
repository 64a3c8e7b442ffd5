"""Audit a lock file against the known advisories, or say that it could not be audited.

    python .ci/audit.py requirements.lock

Exit status 1 only for a known vulnerability. Without the advisories, as without a network, it is 0
and the output says NOT AUDITED. pip-audit asks PyPI and then osv.dev, or, where ADVISORIES_URL is
set, the copy of the OSV query API at that address.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# It has had advisories for years. A source that knows of none has no advisories: PyPI mirrors often
# leave them out, and pip-audit then reports that all is well.
_KNOWN_BAD = "jinja2==2.4.1\n"
_SECONDS = 600


class Unavailable(Exception):
    """The advisories can't be had; the text says why."""


def main(lock: Path) -> int:
    """Gives the exit status."""
    copy = os.environ.get("ADVISORIES_URL")
    sources = [["-s", "osv", "--osv-url", copy]] if copy else [["-s", "pypi"], ["-s", "osv"]]
    reasons = []
    for source in sources:
        try:
            _check_source(source)
            return _report(lock, _audit(lock, [*source, "--require-hashes"]))
        except Unavailable as reason:
            reasons.append(f"{' '.join(source)}: {reason}")
    _say(f"{lock.name} was NOT AUDITED: no advisories could be had ({'; '.join(reasons)})")
    return 0


def _check_source(source: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "known-bad.txt"
        file.write_text(_KNOWN_BAD)
        [found] = _audit(file, [*source, "--no-deps"])
    if not found.get("vulns"):
        raise Unavailable(found.get("skip_reason") or "it knows no advisories")


def _audit(file: Path, options: list[str]) -> list[dict[str, Any]]:
    """What pip-audit says of each package: name, version, vulns, or skip_reason."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(file), *options]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(  # noqa: S603  our own arguments, no shell
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        raise Unavailable(f"no answer within {_SECONDS} s") from None
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Unavailable(last[:200]) from None
    return packages


def _report(lock: Path, packages: list[dict[str, Any]]) -> int:
    bad = [package for package in packages if package.get("vulns")]
    for package in bad:
        for one in package["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            _say(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    for package in packages:
        if "skip_reason" in package:
            _say(f"{package['name']} was NOT AUDITED: {package['skip_reason']}")
    audited = sum("skip_reason" not in package for package in packages)
    _say(f"{lock.name}: {audited} packages audited, {len(bad)} with known vulnerabilities")
    return 1 if bad else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
