"""Airflow on this machine: a home of its own, set up once, one run of the DAG, or the whole of it to look around."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from image_analyzer.errors import FatalError
from image_analyzer.settings import PROJECT_ROOT

DAG_ID = "caption_images"
_START_TIMEOUT_S = 180.0


class LocalAirflow:
    """An Airflow below one folder, on SQLite and LocalExecutor.

    Args:
        folder: Becomes AIRFLOW_HOME.
        environment: Settings and connections, on top of this process' own.
        port: Of the UI; the API answers on loopback only.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], port: int = 8080) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.environment = {**os.environ, **self._configuration(), **environment}
        self._pid_file = self.folder / "standalone.pid"

    def set_up(self) -> None:
        """Migrate the database and import the pools; quick when it was done before."""
        marker = self.folder / "set_up_done"
        pools = PROJECT_ROOT / "include" / "pools.json"
        stamp = f"{sys.version_info[:2]} {pools.read_text()}"
        if marker.exists() and marker.read_text() == stamp:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for command in (["db", "migrate"], ["pools", "import", str(pools)]):
            self.run(command, self.folder / "set_up.log")
        marker.write_text(stamp)

    def run(self, command: list[str], log: Path) -> None:
        """Run one `airflow` command to its end.

        Raises:
            FatalError: It failed; the message names the log.
        """
        with log.open("ab") as output:
            code = subprocess.call(self._command(command), env=self.environment, stdout=output, stderr=output)
        if code:
            raise FatalError(f"`airflow {' '.join(command[:2])}` failed; see {log}")

    def test_dag(self, run_conf: str, log: Path, dag_id: str = DAG_ID) -> Iterator[str]:
        """Run a DAG once, in this machine's processes, and yield its log lines while they are written.

        Raises:
            FatalError: The run is red.
        """
        command = self._command(["dags", "test", dag_id, "--conf", run_conf])
        with log.open("w", encoding="utf-8", errors="replace") as copy:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            assert process.stdout is not None  # noqa: S101 - told to Popen two lines above
            for line in process.stdout:
                copy.write(line)
                yield line
            if process.wait():
                raise FatalError(f"the run is red; see {log}")

    def start(self) -> int:
        """Start scheduler, API server with UI, triggerer and DAG processor; return the process id."""
        if self.is_running():
            return int(self._pid_file.read_text())
        log = (self.folder / "standalone.log").open("ab")
        process = subprocess.Popen(
            self._command(["standalone"]),
            env=self.environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._pid_file.write_text(str(process.pid))
        (self.folder / "address").write_text(f"http://127.0.0.1:{self.port}")
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v2/monitor/health", timeout=2)
                return process.pid
            time.sleep(0.5)
        self.stop()
        raise FatalError(f"Airflow did not start; see {self.folder / 'standalone.log'}")

    def stop(self) -> bool:
        """Stop what `start` started, workers included; return whether something ran."""
        if not self.is_running():
            self._pid_file.unlink(missing_ok=True)
            return False
        session = int(self._pid_file.read_text())
        # Its workers are in process groups of their own, but in one session.
        for sign, patience_s in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + patience_s
            for pid in _session_members(session):
                with suppress(ProcessLookupError):
                    os.kill(pid, sign)
            while _session_members(session) and time.monotonic() < deadline:
                time.sleep(0.1)
        self._pid_file.unlink(missing_ok=True)
        return True

    def address(self) -> str:
        """Return where the UI of the running Airflow is."""
        return (self.folder / "address").read_text()

    def is_running(self) -> bool:
        """Return whether `start` started something that still runs."""
        return self._pid_file.exists() and bool(_session_members(int(self._pid_file.read_text())))

    def _command(self, arguments: list[str]) -> list[str]:
        return [str(Path(sys.executable).parent / "airflow"), *arguments]

    def _configuration(self) -> dict[str, str]:
        url = f"http://localhost:{self.port}"
        return {
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.folder / 'airflow.db'}",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }


def _session_members(session: int) -> list[int]:
    """Return the living processes of a session."""
    members = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members
