"""Read deploy/systemd: units with their drop-in, and environment files."""

import shlex
from pathlib import Path

from config.settings import ROOT

SYSTEMD = ROOT / "deploy" / "systemd"
COMMON = SYSTEMD / "segue-.service.d" / "common.conf"
BIN = "/opt/segue/.venv/bin"
# Section, directive and value.
Line = tuple[str, str, str]


def read_unit(file: Path) -> list[Line]:
    """The lines of a unit in their order."""
    section, found = "", []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            directive, _, value = line.partition("=")
            found.append((section, directive, value))
    return found


class Unit:
    """A service: deploy/systemd/NAME.service."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines = read_unit(SYSTEMD / f"{name}.service")

    def all(self, directive: str) -> list[str]:
        """The values of a directive."""
        return [value for _, name, value in self.lines if name == directive]

    def one(self, directive: str) -> str:
        """The value of a directive that occurs once."""
        [value] = self.all(directive)
        return value

    def commands(self) -> list[list[str]]:
        """Each ExecStart as arguments, without the folder of the programs."""
        return [
            shlex.split(line.removeprefix("-").removeprefix(f"{BIN}/"))
            for line in self.all("ExecStart")
        ]

    def environment(self) -> dict[str, str]:
        """What its Environment= lines set."""
        pairs = [pair for line in self.all("Environment") for pair in line.split()]
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def services() -> list[Unit]:
    """All of them, by name."""
    return [Unit(file.stem) for file in sorted(SYSTEMD.glob("*.service"))]


def read_env(file: Path) -> dict[str, str]:
    """The variables of an environment file. Fails for one without a comment above it."""
    found: dict[str, str] = {}
    described = False
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line:
            described = False
        elif line.startswith("#"):
            described = True
        else:
            name, _, value = line.partition("=")
            assert described, f"{file.name} does not describe {name}"
            found[name] = value
    return found
