"""Read deploy/compose.yaml and deploy/Containerfile."""

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any, NamedTuple

from openapi_spec_validator.readers import read_from_filename

from config.settings import ROOT
from tests.deploy.units import read_env

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = dict(read_from_filename(str(DEPLOY / "compose.yaml"))[0])


class Instruction(NamedTuple):
    """A line of the Containerfile: RUN, COPY ... and what follows."""

    word: str
    rest: str

    def arguments(self) -> list[str]:
        """As exec form (a JSON list) or words, without options such as --interval=30s."""
        plain = re.sub(r"^(--\S+ )+(CMD )?", "", self.rest)
        if plain.startswith("["):
            return list(json.loads(plain))
        return shlex.split(plain)


def stages() -> list[list[Instruction]]:
    """The instructions of each stage of the Containerfile, its FROM first."""
    found: list[list[Instruction]] = []
    for line in (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        instruction = Instruction(*line.split(" ", 1))
        if instruction.word == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def image(word: str) -> list[Instruction]:
    """The instructions of one kind in the stage that becomes the image."""
    return [instruction for instruction in stages()[-1] if instruction.word == word]


def image_environment() -> dict[str, str]:
    """What ENV sets in the image."""
    pairs = [pair for env in image("ENV") for pair in env.rest.split()]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


@dataclass(frozen=True, slots=True)
class Service:
    """A service of compose.yaml, with what its image adds if that is Segue's."""

    name: str

    @property
    def described(self) -> dict[str, Any]:
        found: dict[str, Any] = COMPOSE["services"][self.name]
        return found

    @property
    def is_segue(self) -> bool:
        return bool(self.described["image"] == "segue")

    @property
    def command(self) -> list[str]:
        return list(self.described["command"])

    @property
    def healthcheck(self) -> list[str]:
        """The command of its health check; empty if it is disabled."""
        check = self.described.get("healthcheck")
        if check is None:
            return image("HEALTHCHECK")[0].arguments()
        return list(check.get("test", ()))[1:]

    @property
    def given(self) -> dict[str, str]:
        """The variables that compose.yaml sets, with those of its env_file."""
        found: dict[str, str] = {}
        for file in self.described.get("env_file", ()):
            found |= read_env(DEPLOY / file)
        found.update(self.described.get("environment", {}))
        return found

    @property
    def secrets(self) -> dict[str, str]:
        """Each secret by the name of its file in /run/secrets."""
        listed = self.described.get("secrets", ())
        return {
            one if isinstance(one, str) else one["target"]: (
                one if isinstance(one, str) else one["source"]
            )
            for one in listed
        }

    @property
    def after(self) -> dict[str, str]:
        """The services that it waits for, each with the condition."""
        listed = self.described.get("depends_on", {})
        return {name: one["condition"] for name, one in listed.items()}


SERVICES = {name: Service(name) for name in COMPOSE["services"]}
