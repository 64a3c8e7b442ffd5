"""Prefect's server, its deployments and the pool worker, as deploy/compose.yaml starts them.

On Debian's PostgreSQL, by TCP: the embedded one lacks pg_trgm, which Prefect's tables need.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import httpx
import pytest

from config.access.login import basic
from flows.local.stack import free_ports
from tests.deploy.running import Deployment
from tests.support.patience import PATIENCE

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
PROGRAMS = SERVERS[-1].parent if SERVERS else Path()
pytestmark = [
    pytest.mark.skipif(not SERVERS, reason="no PostgreSQL here: apt-get install postgresql"),
    pytest.mark.long,
]


@pytest.fixture
def postgresql() -> Iterator[dict[str, str]]:
    """An empty server that wants passwords by TCP; the variables with which psql reaches it.

    Its folder lies outside pytest's, which only root may enter: PostgreSQL does not run as root.
    """
    folder = Path(mkdtemp(prefix="segue-pg-"))
    user: list[str] = []
    if os.geteuid() == 0:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres", "postgres")
    [port] = free_ports(1)

    def call(program: str, *arguments: str) -> None:
        command = [*user, str(PROGRAMS / program), f"--pgdata={folder / 'data'}", *arguments]
        with (folder / "said").open("ab") as said:
            subprocess.run(command, cwd=folder, check=True, stdout=said, stderr=said)

    try:
        call("initdb", "--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256")
        options = f"--options=-k {folder} -h 127.0.0.1 -p {port} -c fsync=off"
        call("pg_ctl", "--wait", options, f"--log={folder / 'log'}", "start")
        path = f"{PROGRAMS}:{os.environ['PATH']}"
        yield {"PGHOST": str(folder), "PGPORT": str(port), "PATH": path}
        call("pg_ctl", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_a_journey_that_is_started_in_prefect_runs_in_the_pool(
    postgresql: dict[str, str], tmp_path: Path
) -> None:
    host = f"@127.0.0.1:{postgresql['PGPORT']}/%s"
    with Deployment(tmp_path, host, postgresql) as deployment:
        deployment.wait_for(partial(deployment.is_healthy, "postgres"))
        deployment.create_databases()
        # In the order of depends_on.
        deployment.run("upgrade")
        deployment.start("prefect")
        deployment.wait_for(partial(deployment.is_healthy, "prefect"))
        deployment.run("deploy")
        deployment.start("pool")
        deployment.wait_for(partial(deployment.is_healthy, "pool"))

        url = f"http://127.0.0.1:{deployment.ports['prefect']}/api"
        login = basic(deployment.secret("prefect_login"))
        assert httpx.post(f"{url}/flow_runs/filter", json={}, trust_env=False).status_code == 401
        with httpx.Client(base_url=url, auth=login, trust_env=False, timeout=PATIENCE) as api:
            found = api.get("/deployments/name/win-back/win-back").raise_for_status().json()
            started = api.post(
                f"/deployments/{found['id']}/create_flow_run",
                json={"parameters": {"audience": "lapsed", "dry_run": True}},
            )
            run = f"/flow_runs/{started.raise_for_status().json()['id']}"

            def state() -> str:
                return str(api.get(run).raise_for_status().json()["state"]["type"])

            deployment.wait_for(lambda: state() in ("COMPLETED", "FAILED", "CRASHED"))
            assert state() == "COMPLETED"
