"""Runs the services of `docker-compose.yaml` as plain processes of this machine: the same commands, variables, order and checks.

What a container would have of its own is substituted in the text, and nothing else: host names and published ports become
loopback and free ports, `/app`, `/tmp` and the volumes become folders. The images that are not ours, Postgres and Redis, are
Debian's packages. What this cannot show is what only an engine does: building, isolation, limits, restarts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from image_analyzer.errors import ConfigurationError, FatalError
from image_analyzer.local.stack import free_ports
from image_analyzer.settings import PROJECT_ROOT

_PORTS = (5432, 6379, 8080, 8974, 8501, 8000, 5000)
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<operator>:[?+-])(?P<word>[^}]*))?\})")
_START_TIMEOUT_S = 240.0


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in `${NAME}` with `:-`, `:+`, `:?`, and `$$`, in every text of a document, as Compose does.

    Raises:
        ConfigurationError: A required variable is not set.
    """
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        found, word = variables.get(match["name"], ""), match["word"] or ""
        if match["operator"] == ":?" and not found:
            raise ConfigurationError(f"required variable {match['name']} is missing: {word}")
        if match["operator"] == ":+":
            return word if found else ""
        return found or (word if match["operator"] == ":-" else "")

    return _VARIABLE.sub(fill, value)


def read_services(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the services of `docker-compose.yaml` with what `.env` says filled in.

    Raises:
        ConfigurationError: A required variable is not set.
    """
    document = yaml.safe_load((PROJECT_ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
    services: dict[str, Any] = interpolate(document["services"], variables)
    return services


def container_environment(service: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Return what a container of a service is given: what `.env` says, where it takes that, and its own over it."""
    own = {name: str(value) for name, value in service.get("environment", {}).items()}
    return {**(variables if "env_file" in service else {}), **own}


class ComposeProcesses:
    """The services of the file, each at most a few times.

    Args:
        folder: For logs, volumes and each service's `/tmp`.
        variables: What `.env` would say.
        overrides: Variables of every service that differ, and why is the caller's to say.
        on_event: Told what happens, in a few words.
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str],
        overrides: Mapping[str, str] | None = None,
        on_event: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder.resolve()
        self._overrides, self._say = dict(overrides or {}), on_event
        self._env_file = dict(variables)
        self.services = read_services(variables)
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._image_environment = _read_image_environment()
        for name in ("logs", "models", "mlflow"):
            (self.folder / "volumes" / name).mkdir(parents=True, exist_ok=True)
        self._database = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._of_containers = re.compile(
            r"(?P<volumes>/var/lib/image-analyzer)|(?<![\w.])(?:(?P<app>/app)|(?P<tmp>/tmp))(?![\w.-])"
            rf"|(?P<host>\b(?:{'|'.join(self.services)})(?=:\d)|0\.0\.0\.0)"
            rf"|(?<!\d)(?P<port>{'|'.join(map(str, _PORTS))})(?!\d)"
        )

    def up(self, *names: str) -> None:
        """Start services and what they depend on, each when its conditions hold; wait until all are healthy."""
        for name in names:
            self._start_with_dependencies(name)
        for name in names:
            self._wait_healthy(name)

    def start(self, name: str, instance: str = "") -> str:
        """Start one service, another instance of it by another name; return the name of the process."""
        service, key = self.services[name], name + instance
        if name == "postgres":
            self._make_database(service)
        command = self._command(name, service)
        if instance:
            command = [re.sub(r"^(\w+)@%h$", rf"\1{instance}@%h", part) for part in command]
        with (self.folder / f"{key}.log").open("ab") as log:
            self.processes[key] = subprocess.Popen(
                command, env=self.environment(name), cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, user="postgres" if name == "postgres" and os.getuid() == 0 else None,
            )  # fmt: skip
        self._say(f"{key} started")
        return key

    def environment(self, name: str) -> dict[str, str]:
        """Return every variable of a service: the image's, `.env`, and its own; nothing of this process but PATH."""
        given = container_environment(self.services[name], self._env_file)
        # What `.env` says are addresses of this machine already.
        own = {
            key: value if self._env_file.get(key) == value else self._localise(value, name)
            for key, value in given.items()
        }
        home = self._home(name)
        home.mkdir(parents=True, exist_ok=True)
        image = {key: self._localise(value, name) for key, value in self._image_environment.items()}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {
            **image,
            **own,
            "PATH": path,
            "TMPDIR": str(home),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self.ports[8974]),
            # On one machine with other servers; a container's name is found by its network.
            "NO_PROXY": "*",
            **self._overrides,
        }

    def kill(self, key: str) -> set[int]:
        """Kill a process and all its children at once, as the end of a container does; return their numbers."""
        victims = _family(self.processes.pop(key).pid)
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._say(f"{key} killed with {len(victims)} processes")
        return {process.pid for process in victims}

    def is_running(self, key: str) -> bool:
        """Tell whether a process still runs."""
        return key in self.processes and self.processes[key].poll() is None

    def is_healthy(self, name: str) -> bool:
        """Run the service's own health check once."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        local = [self._localise(part, name) for part in test]
        command = ["sh", "-c", local[0]] if kind == "CMD-SHELL" else _real(local)
        log = self.folder / f"{name}.health.log"
        with log.open("ab") as output:
            code = subprocess.call(
                command, env=self.environment(name), cwd=PROJECT_ROOT, stdout=output, stderr=output, timeout=120
            )
        return code == 0

    def down(self) -> None:
        """End everything, what others depend on last."""
        stores = [key for key in self.processes if key in ("postgres", "redis")]
        self._end([key for key in self.processes if key not in stores])
        self._end(stores)
        shutil.rmtree(self._database, ignore_errors=True)

    def _end(self, keys: Sequence[str]) -> None:
        for sign, patience_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
            for key in keys:
                for process in _family(self.processes[key].pid):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(sign)
            deadline = time.monotonic() + patience_s
            while any(_family(self.processes[key].pid) for key in keys) and time.monotonic() < deadline:
                time.sleep(0.2)

    def _start_with_dependencies(self, name: str) -> None:
        if name in self.processes:
            return
        for other, rule in self.services[name].get("depends_on", {}).items():
            self._start_with_dependencies(other)
            if rule["condition"] == "service_healthy":
                self._wait_healthy(other)
            else:
                self._wait_completed(other)
        self.start(name)

    def _wait_healthy(self, name: str) -> None:
        if getattr(self.processes[name], "was_healthy", False) or "healthcheck" not in self.services[name]:
            return
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.is_healthy(name):
            if time.monotonic() > deadline or not self.is_running(name):
                raise FatalError(f"{name} is not healthy; see {self.folder / name}.log and {name}.health.log")
            time.sleep(0.5)
        self.processes[name].was_healthy = True  # type: ignore[attr-defined]
        self._say(f"{name} healthy")

    def _wait_completed(self, name: str) -> None:
        if self.processes[name].poll() is None or self.processes[name].returncode:
            code = self.processes[name].wait(_START_TIMEOUT_S)
            if code:
                raise FatalError(f"{name} ended with {code}; see {self.folder / name}.log")
            self._say(f"{name} completed")

    def _make_database(self, service: Mapping[str, Any]) -> None:
        """Do what the image's entry point does: make the cluster with its user, password and database."""
        environment = service["environment"]
        user = "postgres" if os.getuid() == 0 else None
        with tempfile.NamedTemporaryFile("w", dir=self._database, delete=False) as password:
            password.write(environment["POSTGRES_PASSWORD"])
        if user:
            for path in (self._database, password.name):
                shutil.chown(path, user)
        data = self._database / "data"
        initdb = [_postgres("initdb"), "--pgdata", str(data), "--username", environment["POSTGRES_USER"],
                  "--pwfile", password.name, "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]  # fmt: skip
        single = [_postgres("postgres"), "--single", "-D", str(data), "template1"]
        create = f"CREATE DATABASE {environment['POSTGRES_DB']}\n"
        with (self.folder / "postgres.log").open("ab") as log:
            for command, text in ((initdb, ""), (single, create)):
                subprocess.run(
                    command, check=True, user=user, stdout=log, stderr=log, cwd=self._database, input=text.encode()
                )

    def _command(self, name: str, service: Mapping[str, Any]) -> list[str]:
        if name == "postgres":
            port = str(self.ports[5432])
            return [_postgres("postgres"), "-D", str(self._database / "data"), "-h", "127.0.0.1", "-p", port,
                    "-k", str(self._database)]  # fmt: skip
        command = _real([self._localise(str(part), name) for part in service["command"]])
        if name == "redis":
            self._home(name).mkdir(parents=True, exist_ok=True)
            here = f"redis-server --bind 127.0.0.1 --dir {self._home(name)} "
            command[-1] = command[-1].replace("redis-server ", here)
        return command

    def _home(self, name: str) -> Path:
        return self.folder / "tmp" / name

    def _localise(self, text: str, name: str) -> str:
        """Put what is here for what a container would have of its own; once, or a folder below /tmp would be taken for /tmp."""
        here = {
            "volumes": str(self.folder / "volumes"),
            "app": str(PROJECT_ROOT),
            "tmp": str(self._home(name)),
            "host": "127.0.0.1",
        }

        def put(match: re.Match[str]) -> str:
            return str(self.ports[int(match["port"])]) if match["port"] else here[str(match.lastgroup)]

        return self._of_containers.sub(put, text)


def _read_image_environment() -> dict[str, str]:
    """Return what the Dockerfile's last ENV of the common stage sets, but for PATH."""
    text = (PROJECT_ROOT / "Dockerfile").read_text(encoding="utf-8").split("FROM base")[0]
    block = re.search(r"^ENV ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert block, "the Dockerfile has no ENV"  # noqa: S101 - a file of ours
    pairs = (pair.split("=", 1) for pair in block[1].replace("\\\n", " ").split())
    return {name: value for name, value in pairs if name != "PATH"}


def _real(command: Sequence[str]) -> list[str]:
    """Return a command that begins with a program of this environment, where it has it."""
    program = Path(sys.executable).parent / command[0]
    if program.exists():
        return [str(program), *command[1:]]
    if shutil.which(command[0]) is None:
        raise ConfigurationError(f"{command[0]} is not installed: on Debian, apt-get install redis-server postgresql")
    return list(command)


def require_servers() -> None:
    """Look for the programs that are not ours.

    Raises:
        ConfigurationError: One is not installed.
    """
    _postgres("postgres")
    _real(["redis-server"])


def _postgres(program: str) -> str:
    """Return where Debian keeps a program of Postgres: beside no others, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    name = str(found[-1]) if found else shutil.which(program)
    if name is None:
        raise ConfigurationError(f"{program} is not installed: on Debian, apt-get install postgresql")
    return name


def _family(pid: int) -> list[psutil.Process]:
    """Return the living processes of a service: its session, and children that left it."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
    return [process for process in found.values() if process.is_running()]
