"""One Airflow and one embedded stack behind fault proxies; every trial begins with an empty bucket, table and ledger."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from fault_proxy import FaultProxy

from image_analyzer import wiring
from image_analyzer.local.airflow import DAG_ID, LocalAirflow
from image_analyzer.local.stack import Stack, control_openai, free_ports
from image_analyzer.settings import load_settings

LATENCY_S = 0.3
# Times, run ids and attempts, and what holds one of them: the row's digest, the run's folder.
NOT_COMPARED = frozenset(
    {"LAST_MODIFIED_AT", "CREATED_AT", "UPDATED_AT", "LATENCY_S", "RUN_ID", "ATTEMPTS", "ROW_HASH", "THUMBNAIL_URI"}
)
_LONGEST_RUN_S = 900


class Lab:
    """The pipeline as users run it, with a hand on everything around it."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder = folder
        self.stack = Stack(folder / "stack")
        self.stack.up()
        services = {service.name: service for service in self.stack.services()}
        s3_port, snowflake_port, airflow_port = free_ports(3)
        tls = (self.stack.folder / "tls" / "cert.pem", self.stack.folder / "tls" / "key.pem")
        self.s3 = FaultProxy(services["s3"].url, s3_port)
        self.snowflake = FaultProxy(f"https://localhost:{services['snowflake'].port}", snowflake_port, tls)
        self.openai_url = self.stack.openai_environment()["OPENAI_BASE_URL"]
        direct = {**self.stack.environment(), **self.stack.openai_environment(), "CAPTION_MODE": mode}
        os.environ.update(direct)
        self.settings = load_settings()
        self.store, self.warehouse = wiring.make_store(self.settings), wiring.make_warehouse(self.settings)
        self.warehouse.create_tables()
        text = json.dumps({**direct, "BATCH_SIZE": "5", "RETRY_DELAY_S": "1", "OPENAI_TIMEOUT_S": "2", "SENSE_TIMEOUT_S": "0",
                           "OPENAI_CONCURRENCY": "2", "BATCH_POLL_S": "0.5", "BATCH_PATIENCE_S": "8",
                           "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
                           # A killed scheduler's tasks are taken for dead after seconds, not after five minutes.
                           "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
                           "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
                           "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10"})  # fmt: skip
        through = text.replace(services["s3"].url, f"http://127.0.0.1:{s3_port}").replace(
            str(services["snowflake"].port), str(snowflake_port)
        )
        self.airflow = LocalAirflow(folder / "airflow", json.loads(through), airflow_port)
        self.airflow.set_up()
        self.airflow.start()
        self.lost_answers = 0
        # Unpaused, the DAG runs for the last date of its schedule.
        self.wait_for(lambda: self._query("SELECT 1 FROM dag_run"))
        self.wait(self.newest_run())

    def close(self) -> None:
        """Stop everything."""
        self.airflow.stop()
        self.s3.stop()
        self.snowflake.stop()
        self.stack.down()

    def reset(self) -> None:
        """Empty bucket, table and test server."""
        for obj in list(self.store.list_objects(self.settings.s3_bucket, "")):
            self.store.delete(obj.uri)
        for table in ("IMAGE_RESULTS", "IMAGE_RESULTS_HISTORY"):
            self.sql(f"DELETE FROM {table}")  # noqa: S608 - two constants
        self.s3.rules, self.snowflake.rules = [], []
        self.control("reset", {"latency_s": LATENCY_S})
        self.lost_answers = 0

    def mend(self) -> None:
        """Lift every fault."""
        self.s3.rules, self.snowflake.rules = [], []
        self.control("mend", {})

    def sql(self, text: str) -> None:
        """Run one statement, past the proxy."""
        import snowflake.connector

        port = int(self.stack.environment()["SNOWFLAKE_PORT"])
        with snowflake.connector.connect(
            host="localhost", port=port, account="local", user="local", password="local", disable_ocsp_checks=True,  # noqa: S106
            database=self.settings.snowflake_database, schema=self.settings.snowflake_schema,
        ) as connection:  # fmt: skip
            connection.cursor().execute(text)

    def slow_jobs(self, seconds: float) -> None:
        """Let batch jobs take so long."""
        self.control("reset", {"latency_s": LATENCY_S, "batch_s": seconds})

    def newest_run(self) -> str:
        """Return the id of the run that was created last."""
        return str(self._query("SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1")[0][0])

    def land(self, pictures: dict[str, bytes]) -> None:
        """Put pictures into the bucket."""
        for name, content in pictures.items():
            self.store.write(self.uri(name), content, "application/octet-stream")

    def uri(self, name: str) -> str:
        """Return the address of a landed picture."""
        return f"s3://{self.settings.s3_bucket}/{self.settings.s3_prefix}{name}"

    def control(self, path: str, payload: Any = None) -> Any:
        """Talk to the OpenAI test server's control pages."""
        return control_openai(self.openai_url, path, payload)

    def order(self, kind: str, times: int = 1, **more: Any) -> None:
        """Order faults of the OpenAI test server."""
        self.control("faults", [{"kind": kind, "times": times, **more}])

    def calls(self) -> list[dict[str, Any]]:
        """Return what arrived at the test server since the reset."""
        found: list[dict[str, Any]] = self.control("calls")["calls"]
        return found

    def paid_again(self) -> int:
        """Return how many questions were charged more than once: the same picture with the same words."""
        charged = Counter((call["image_sha256"], call["text"]) for call in self.calls() if call["billed"])
        return sum(count - 1 for count in charged.values())

    def trigger(self, **conf: Any) -> str:
        """Start a run; return its id."""
        asked = {"logical_date": datetime.now(UTC).isoformat(), "conf": conf}
        return str(self.api("POST", f"dags/{DAG_ID}/dagRuns", asked)["dag_run_id"])

    def wait(self, run_id: str) -> str:
        """Wait for a run's end; return `success` or `failed`."""
        deadline = time.monotonic() + _LONGEST_RUN_S
        while (state := self.run_state(run_id)) in ("queued", "running"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{run_id} did not end in {_LONGEST_RUN_S} s: {self.tasks(run_id)}")
            time.sleep(0.2)
        return state

    def run_state(self, run_id: str) -> str:
        """Return the state of a run."""
        return str(self._query("SELECT state FROM dag_run WHERE run_id = ?", run_id)[0][0])

    def tasks(self, run_id: str) -> list[Any]:
        """Return (task id, map index, state, pid) of a run."""
        return self._query("SELECT task_id, map_index, state, pid FROM task_instance WHERE run_id = ?", run_id)

    def kill(self, run_id: str, task_id: str) -> int:
        """Kill every process that now runs a task, with its children; return how many tasks that were."""
        self.lost_answers += self.control("calls")["in_flight"]
        killed = 0
        for task, _, state, pid in self.tasks(run_id):
            if task != task_id or state != "running" or not pid:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                for child in [*process.children(recursive=True), process]:
                    child.send_signal(signal.SIGKILL)
                killed += 1
        return killed

    def wait_for(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        """Wait until a condition holds, or it is too late."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)

    def is_in(self, run_id: str, task_id: str, state: str) -> bool:
        """Tell whether a task, or one of its map indexes, is in a state."""
        return any(row[0] == task_id and row[2] == state for row in self.tasks(run_id))

    def restart_scheduler(self) -> None:
        """Kill all of Airflow, as a power cut does, and start it again."""
        self.lost_answers += self.control("calls")["in_flight"]
        session = int((self.airflow.folder / "standalone.pid").read_text())
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) == session:
                    process.kill()
        time.sleep(1)
        self.airflow.start()

    def clear(self, run_id: str) -> None:
        """Clear every task of a run, so that it runs again."""
        address = f"dags/{DAG_ID}/dagRuns/{urllib.parse.quote(run_id)}/clear"
        self.api("POST", address, {"dry_run": False, "only_failed": False})

    def api(self, method: str, path: str, payload: Any = None) -> Any:
        """Ask Airflow's API as its UI does."""
        with urllib.request.urlopen(f"{self.airflow.address()}/auth/token", timeout=30) as answer:
            token = json.load(answer)["access_token"]
        request = urllib.request.Request(
            f"{self.airflow.address()}/api/v2/{path}",
            method=method,
            data=json.dumps(payload).encode() if payload else None,
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def table(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return IMAGE_RESULTS by file name and language, past the proxy."""
        rows = self.warehouse.select_results(100_000, {})
        return {(row["FILE_NAME"], row["LANGUAGE"]): row for row in rows}

    def _query(self, text: str, *binds: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.airflow.folder / "airflow.db", timeout=30)) as database:
            return database.execute(text, binds).fetchall()


def differing(found: dict[Any, dict[str, Any]], wanted: dict[Any, dict[str, Any]], more: frozenset[str]) -> list[str]:
    """Return which rows differ, and in which columns; a row that is missing or too many differs whole.

    Args:
        more: Further columns that are not compared.
    """
    differences = []
    for key in sorted({*found, *wanted}):
        mine, theirs = found.get(key), wanted.get(key)
        if mine is None or theirs is None:
            differences.append(f"{key[0]}: {'missing' if mine is None else 'too many'}")
            continue
        columns = [c for c in theirs if c not in NOT_COMPARED | more and mine[c] != theirs[c]]
        if columns:
            differences.append(f"{key[0]}: {', '.join(columns)}")
    return differences
