"""deploy/compose.yaml: valid, complete, closed to the outside, and the same as the systemd units.

compose_spec.json is the compose specification's schema from docker-compose 1.29.2 on PyPI
(Apache License 2.0). It lacks the key `name`, which came later.
"""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from channels.providers.registry import unmet_needs
from config.settings import load_settings
from config.timing import TIMING
from flows.http.serving import GRACE
from tests.deploy.containers import COMPOSE, DEPLOY, SERVICES, Service
from tests.deploy.units import Unit
from tests.deploy.variables import known_variables

SCHEMA = json.loads((Path(__file__).parent / "compose_spec.json").read_text(encoding="utf-8"))
DOCS = (DEPLOY.parent / "docs" / "operate" / "deploy.md").read_text(encoding="utf-8")
WORKERS = ["worker-1", "worker-2"]
every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=lambda one: one.name)
segues = pytest.mark.parametrize(
    "service", [one for one in SERVICES.values() if one.is_segue], ids=lambda one: one.name
)


def test_the_file_follows_the_compose_specification() -> None:
    plain = {name: part for name, part in COMPOSE.items() if name != "name"}
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(plain)] == []
    broken = plain | {"services": {"a": {"imagee": "x"}}}
    assert list(Draft7Validator(SCHEMA).iter_errors(broken)) != []


def used(part: str) -> set[str]:
    """What the services name of the top-level networks, volumes or secrets."""
    found: set[str] = set()
    for service in SERVICES.values():
        if part == "secrets":
            found |= set(service.secrets.values())
        else:
            names = {str(one).partition(":")[0] for one in service.described.get(part, ())}
            found |= {name for name in names if not name.startswith(".")}
    return found


@pytest.mark.parametrize("part", ["networks", "volumes", "secrets"])
def test_what_services_name_exists_and_the_other_way_round(part: str) -> None:
    assert used(part) == set(COMPOSE[part])


def test_each_mounted_file_exists() -> None:
    mounted = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.described.get("volumes", ())
        if volume.startswith(".")
    }
    made_by_the_operator = {"./tls", "./acme"}
    assert made_by_the_operator <= mounted
    for path in mounted - made_by_the_operator:
        assert (DEPLOY / path).is_file(), path


@every_service
def test_a_service_waits_for_others_that_exist(service: Service) -> None:
    for name, condition in service.after.items():
        other = SERVICES[name]
        if condition == "service_completed_successfully":
            assert other.described["restart"] == "no", "a job"
        elif condition == "service_healthy":
            assert other.healthcheck, name
        else:
            assert name in (*WORKERS, "staff"), "the proxy answers 502 until they are there"


def test_the_upgrade_comes_before_whatever_uses_the_database() -> None:
    for name in (*WORKERS, "pool", "staff"):
        assert SERVICES[name].after["upgrade"] == "service_completed_successfully"
    assert SERVICES["upgrade"].after == {"postgres": "service_healthy"}
    assert SERVICES["deploy"].after == {"prefect": "service_healthy"}
    assert SERVICES["pool"].after["deploy"] == "service_completed_successfully"


def test_only_the_proxy_is_public() -> None:
    published = {
        name: service.described["ports"]
        for name, service in SERVICES.items()
        if "ports" in service.described
    }
    assert published == {"proxy": ["80:80", "443:443"], "prefect": ["127.0.0.1:4200:4200"]}
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert set(SERVICES["postgres"].described["networks"]) == {"database"}


def test_the_workers_trust_the_proxy_alone() -> None:
    address = SERVICES["proxy"].described["networks"]["front"]["ipv4_address"]
    for name in WORKERS:
        assert json.loads(SERVICES[name].given["SEGUE_TRUSTED_PROXIES"]) == [address]


@every_service
def test_a_container_has_few_rights(service: Service) -> None:
    given = service.described
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert not given.get("privileged")
    assert service.name == "proxy" or "cap_add" not in given


@every_service
def test_no_password_or_key_is_in_the_file(service: Service) -> None:
    for name, value in service.given.items():
        assert not re.search(r"//[^/@]*:[^/@]*@", value), name
        secret = re.search(r"PASSWORD|SECRET|KEY|TOKEN|AUTH_STRING", name)
        assert not secret or value.startswith("/run/secrets/"), name


def test_secrets_are_files_that_git_ignores_and_the_docs_describe() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"secrets/{name}"}
        assert f"`{name}`" in DOCS, name
    ignored = (DEPLOY.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"deploy/secrets/", "deploy/tls/"} <= set(ignored)


@segues
def test_each_variable_is_a_setting(service: Service) -> None:
    given = {*service.given, *(name for name in service.secrets if name.isupper())}
    assert given <= known_variables()


def test_with_its_settings_and_secrets_a_worker_lacks_what_the_operator_fills_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = SERVICES["worker-1"]
    for name, value in worker.given.items():
        if value:
            monkeypatch.setenv(name, value)
    for name in worker.secrets:
        monkeypatch.setenv(name, "a secret of at least sixteen characters")
    told = {line.split()[0] for line in unmet_needs(load_settings())}
    assert told == {name for name, value in worker.given.items() if not value}


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


@pytest.mark.parametrize("name", [*WORKERS, "pool"])
def test_a_stop_waits_for_posts_and_open_requests(name: str) -> None:
    given = SERVICES[name].described
    assert seconds(given["stop_grace_period"]) >= TIMING.post_within + GRACE + 10


# The services of compose.yaml that are units too.
SAME = {
    "worker-1": "segue-worker@",
    "upgrade": "segue-upgrade",
    "prefect": "segue-prefect",
    "pool": "segue-pool",
    "deploy": "segue-deploy",
    "staff": "segue-staff",
}
# Where a container listens, and what only a container has.
OF_CONTAINERS = {"--host=0.0.0.0": "--host=127.0.0.1"}


@pytest.mark.parametrize("name", SAME)
def test_a_unit_runs_the_same_commands(name: str) -> None:
    command = SERVICES[name].command
    if command[:2] == ["sh", "-c"]:
        expected = [part.removeprefix("exec ").split() for part in command[2].split("; ")]
    else:
        expected = [[OF_CONTAINERS.get(one, one) for one in command if one != "--with-healthcheck"]]
    assert Unit(SAME[name]).commands() == expected
