"""Start the services of deploy/compose.yaml as processes of this machine.

Commands, settings and secrets are those of the file. Replaced are: host names and ports, the
folders of a container, and the real providers, by the sandbox on a fixed clock.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config.settings import ROOT
from flows.local.stack import free_ports
from tests.deploy.containers import DEPLOY, SERVICES, Service, image_environment
from tests.support.patience import PATIENCE

BIN = ROOT / ".venv" / "bin"
SITE = "journeys.your.shop"
STAFF = "staff.your.shop"
# A Monday morning, inside the sending windows of the policy.
NOW = "2026-03-02T10:00:00Z"


class Failed(Exception):
    """A process ended or a command failed; the text has the end of its log."""


@dataclass
class Deployment:
    """The services, in a folder of their own. A context manager that ends every process."""

    folder: Path
    postgres: str  # what follows `user@` in a URL, with %s for the database
    variables: dict[str, str]  # for psql and pg_isready: PGHOST, PGPORT, PATH
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        names = ["worker-1", "worker-2", "pool", "prefect", "sandbox", "staff", "http", "https"]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.secrets = self.folder / "secrets"
        self.secrets.mkdir()
        self.data = self.folder / "data"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # Secrets and the database ----------------------------------------------------------------

    def secret(self, name: str) -> str:
        """The content of a secret of compose.yaml; made at the first call."""
        file = self.secrets / name
        if not file.exists():
            user = "segue:" if name == "prefect_login" else ""
            file.write_text(f"{user}the-{name}-of-this-test\n", encoding="utf-8")
        return file.read_text(encoding="utf-8").strip()

    def create_databases(self) -> None:
        """Run what PostgreSQL's image runs at its first start."""
        for secret in SERVICES["postgres"].secrets.values():
            self.secret(secret)
        script = self.folder / "init.sh"
        text = (DEPLOY / "postgres" / "init.sh").read_text(encoding="utf-8")
        script.write_text(text.replace("/run/secrets", str(self.secrets)), encoding="utf-8")
        self.call(["sh", str(script)], os.environ | self.variables)

    # Processes -------------------------------------------------------------------------------

    def run(self, name: str) -> str:
        """Run a job to its end; returns what it said."""
        service = SERVICES[name]
        return self.call(self.command(service), self.environment(service))

    def start(self, name: str) -> None:
        """Start a service."""
        service = SERVICES[name]
        self.spawn(name, self.command(service), self.environment(service))

    def start_sandbox(self) -> None:
        """Start the sandbox providers with the settings of a worker."""
        self.spawn(
            "sandbox", [sys.executable, "-m", "sandbox"], self.environment(SERVICES["worker-1"])
        )
        self.wait_for(lambda: self.listens("sandbox"))

    def is_healthy(self, name: str) -> bool:
        """Whether the health check of a service passes."""
        service = SERVICES[name]
        command = [self.local(service, part) for part in service.healthcheck]
        environment = self.environment(service) | self.variables
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        return done.returncode == 0

    def stop(self, name: str) -> int:
        """Stop as the container engine does; returns the exit status."""
        process = self.running.pop(name)
        wanted = SERVICES[name].described.get("stop_signal", "SIGTERM")
        process.send_signal(signal.Signals[wanted])
        return process.wait(PATIENCE)

    def spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                env=environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def call(self, command: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failed(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def listens(self, name: str) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[name])) == 0

    def wait_for(self, ready: Callable[[], object]) -> None:
        """Wait for a condition while all processes run. Raises Failed or TimeoutError."""
        gives_up = time.monotonic() + PATIENCE
        while not ready():
            for name, process in self.running.items():
                if process.poll() is not None:
                    log = (self.folder / f"{name}.log").read_text(encoding="utf-8")
                    raise Failed(f"{name} has ended: {log[-3000:]}")
            if time.monotonic() > gives_up:
                raise TimeoutError
            time.sleep(0.05)

    # What is replaced ------------------------------------------------------------------------

    def command(self, service: Service) -> list[str]:
        """Its command, started by the image's entrypoint."""
        script = self.folder / f"{service.name}.entrypoint"
        text = (DEPLOY / "entrypoint").read_text(encoding="utf-8")
        mounted = self._mounted(service)
        script.write_text(text.replace("/run/secrets", str(mounted)), encoding="utf-8")
        return ["sh", str(script), *(self.local(service, part) for part in service.command)]

    def environment(self, service: Service) -> dict[str, str]:
        """The variables of its container: those of the image and its own."""
        given = image_environment() | service.given
        own = {name: self.local(service, value) for name, value in given.items() if name != "PATH"}
        ours = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "SEGUE_PROVIDERS": "sandbox",
            "SEGUE_NOW": NOW,
            "SEGUE_SANDBOX_PORT": str(self.ports["sandbox"]),
            "SEGUE_STAFF_PORT": str(self.ports["staff"]),
            "SEGUE_PUBLIC_URL": f"https://{SITE}",
            "SEGUE_TRUSTED_PROXIES": '["127.0.0.1"]',
            "NO_PROXY": "127.0.0.1",
        }
        if service.name in self.ports:
            ours["SEGUE_RECEIVER_PORT"] = str(self.ports[service.name])
            ours["PREFECT_WORKER_WEBSERVER_PORT"] = str(self.ports[service.name])
        return own | ours

    def local(self, service: Service, text: str) -> str:
        """A part of a command or the value of a setting, with what is on this machine."""
        text = re.sub(r"@postgres/(\w+)", lambda found: self.postgres % found[1], text)
        for container, here in {
            "http://prefect:4200": f"http://127.0.0.1:{self.ports['prefect']}",
            "127.0.0.1:4200": f"127.0.0.1:{self.ports['prefect']}",
            "127.0.0.1:8090": f"127.0.0.1:{self.ports['staff']}",
            "127.0.0.1:8080": f"127.0.0.1:{self.ports.get(service.name, 0)}",
            "--port=4200": f"--port={self.ports['prefect']}",
            "0.0.0.0": "127.0.0.1",
            "/var/lib/segue": str(self.data),
            "/tmp/prefect": str(self.folder / f"{service.name}.prefect"),
            "/run/secrets": str(self.folder / f"{service.name}.secrets"),
        }.items():
            text = text.replace(container, here)
        return text

    def _mounted(self, service: Service) -> Path:
        """The service's own /run/secrets."""
        folder = self.folder / f"{service.name}.secrets"
        folder.mkdir(exist_ok=True)
        for name, secret in service.secrets.items():
            self.secret(secret)
            shutil.copyfile(self.secrets / secret, folder / name)
        return folder

    # The proxy -------------------------------------------------------------------------------

    def start_proxy(self) -> None:
        """Start nginx with the files of deploy/nginx."""
        home = self.folder / "nginx"
        home.mkdir()
        make_certificate(home)
        conf = ""
        for name in ("upstream-compose.conf", "segue.conf", "staff.conf"):
            conf += (DEPLOY / "nginx" / name).read_text(encoding="utf-8")
        # One address of this machine in place of all, IPv6 included.
        conf = re.sub(r"^ *listen \[::\].*\n", "", conf, flags=re.MULTILINE)
        for container, here in {
            "listen 80;": f"listen 127.0.0.1:{self.ports['http']};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.ports['https']} ssl",
            "worker-1:8080": f"127.0.0.1:{self.ports['worker-1']}",
            "worker-2:8080": f"127.0.0.1:{self.ports['worker-2']}",
            "staff:8090": f"127.0.0.1:{self.ports['staff']}",
            "/etc/segue/tls": str(home),
            "/var/log/nginx": str(home),
        }.items():
            assert container in conf, container
            conf = conf.replace(container, here)
        paths = "".join(
            f"{name}_temp_path {home}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;\n" if os.geteuid() == 0 else ""
        (home / "nginx.conf").write_text(
            f"{user}daemon off;\npid {home}/pid;\nevents {{}}\nhttp {{\n{paths}{conf}}}\n",
            encoding="utf-8",
        )
        command = [str(nginx()), "-e", str(home / "start.log"), "-c", str(home / "nginx.conf")]
        self.call([*command, "-t"], dict(os.environ))
        self.spawn("proxy", command, dict(os.environ))
        self.wait_for(lambda: self.listens("https"))


def nginx() -> str | None:
    """Debian has it in /usr/sbin, which is not on everybody's PATH."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


def make_certificate(folder: Path) -> None:
    """A certificate for this machine, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SITE)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
