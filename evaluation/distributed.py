"""The nightly run on several workers without docker: one of them is killed half-way, and the table must be right.

Method: every service of docker-compose.yaml that Airflow needs runs as a process, by the same command and variables
(`compose_processes.py`): Postgres, Redis, init, API server, scheduler, DAG processor, triggerer, two workers, the worker of the
hint model and that of training, which has nothing to do. S3, Snowflake and OpenAI are the embedded stack. `--images`
photographs, each with other bytes, are landed; the DAG runs; when half of the captions are answered, the worker that captions
most batches is killed with SIGKILL, with all its tasks, and does not come back. Airflow gives the tasks of a worker that is
silent for 30 s (300 s in production) to the other. Then the DAG runs once more. Printed is what happened and when; ends with 1
unless each image has one sound row, no question was charged twice but those whose answer the killed tasks had not yet written
down (each has at most OPENAI_CONCURRENCY under way), and the second run asked nothing.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import secrets
import string
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from compose_processes import ComposeProcesses
from PIL import Image
from rich.console import Console

from image_analyzer import wiring
from image_analyzer.local.airflow import DAG_ID
from image_analyzer.local.pictures import demo_pictures
from image_analyzer.local.stack import Stack, control_openai
from image_analyzer.settings import load_settings

SERVICES = (
    "airflow-apiserver",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
    "airflow-worker-model",
    "airflow-worker-training",
)
WORKERS = ("", "-2")
_LATENCY_S = 0.3
_LONGEST_RUN_S = 1_800
_LONGEST_START_S = 240
_SECRETS = ("DB_PASSWORD", "REDIS_PASSWORD", "SECRET_KEY", "JWT_SECRET", "ADMIN_PASSWORD")
_ENDED = ("success", "failed")
_PHOTOGRAPHS = ("photos/rocket.jpg", "photos/china.jpg", "photos/flower.jpg", "photos/coffee.png")

_Instances = dict[tuple[str, int], dict[str, Any]]


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        statuses: Rows of IMAGE_RESULTS by status.
        calls: Requests that were charged in both runs.
        paid_again: Of them, those that asked what was charged before.
        allowed: As many the kill may cost: what each caption task of the killed worker had asked and not yet written down.
        calls_of_second_run: Of them, those of the run that had nothing new.
        killed: The worker that was killed; empty if the run was over before.
        retried: Tasks that were tried more than once.
        seconds: From the trigger to the end of the first run.
    """

    images: int
    states: tuple[str, str]
    statuses: dict[str, int]
    calls: int
    paid_again: int
    allowed: int
    calls_of_second_run: int
    killed: str
    retried: int
    seconds: float

    @property
    def is_right(self) -> bool:
        """Tell whether nothing was lost, and nothing paid twice but what the kill itself swallowed."""
        return (
            self.states == ("success", "success")
            and self.statuses == {"ok": self.images}
            and self.paid_again <= self.allowed
            and self.calls == self.images + self.paid_again
            and self.calls_of_second_run == 0
            and bool(self.killed)
            and self.retried > 0
        )


def make_airflow_secrets() -> dict[str, str]:
    """Return new values of the secrets that the last part of `.env.example` asks for."""
    return {
        # Letters only: digits could be taken for a port that is substituted.
        **{f"AIRFLOW_{name}": "".join(secrets.choice(string.ascii_letters) for _ in range(48)) for name in _SECRETS},
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


class Cluster:
    """Airflow as several processes, its API, and the embedded stack."""

    def __init__(self, folder: Path, say: Callable[[str], None], **changes: str) -> None:
        self.say = say
        self.stack = Stack(folder / "stack")
        self.stack.up()
        environment = {**self.stack.environment(), **self.stack.openai_environment(), **changes}
        variables = {
            **make_airflow_secrets(),
            # What it is set up with comes out of Airflow's database, where init has put it.
            **{name: value for name, value in environment.items() if not name.startswith("AIRFLOW_CONN_")},
            "AIRFLOW_TASK_HEARTBEAT_TIMEOUT": "30",
        }
        self._password = variables["AIRFLOW_ADMIN_PASSWORD"]
        self.processes = ComposeProcesses(
            folder / "compose",
            variables,
            {"AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5"},
            on_event=say,
        )
        os.environ.update(environment)
        self.settings = load_settings()
        self.store, self.warehouse = wiring.make_store(self.settings), wiring.make_warehouse(self.settings)
        self._token = ""

    def up(self) -> None:
        """Start everything; two workers."""
        self.processes.up("airflow-apiserver")
        for name in SERVICES:
            if name not in self.processes.processes:
                self.processes.start(name)
        for instance in WORKERS:
            self.processes.start("airflow-worker", instance)
        self.processes.up(*SERVICES, "airflow-worker")

    def down(self) -> None:
        """Stop everything."""
        self.processes.down()
        self.stack.down()

    def land(self, count: int) -> None:
        """Put `count` photographs that differ in what the captioner sees: a corner has the number's colour."""
        found = (Image.open(io.BytesIO(picture.content)) for picture in demo_pictures() if picture.name in _PHOTOGRAPHS)
        sources = [image.convert("RGB").resize((640, 480)) for image in found]

        def put(index: int) -> None:
            image, buffer = sources[index % len(sources)].copy(), io.BytesIO()
            image.paste((index % 16 * 16, index // 16 % 16 * 16, index // 256 * 16), (0, 0, 160, 160))
            image.save(buffer, "JPEG", quality=90)
            name = f"{self.settings.s3_prefix}n{index:06d}.jpg"
            self.store.write(f"s3://{self.settings.s3_bucket}/{name}", buffer.getvalue(), "image/jpeg")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(count)))
        self.say(f"{count} objects landed")

    def api(self, method: str, path: str, payload: Any = None) -> Any:
        """Ask Airflow's API as one who is signed in."""
        address = f"http://127.0.0.1:{self.processes.ports[8080]}"
        if not self._token:
            who = json.dumps({"username": "admin", "password": self._password}).encode()
            answer = _read(urllib.request.Request(f"{address}/auth/token", who, {"content-type": "application/json"}))
            self._token = answer["access_token"]
        return _read(
            urllib.request.Request(
                f"{address}/api/v2/{path}",
                method=method,
                data=json.dumps(payload).encode() if payload else None,
                headers={"authorization": f"Bearer {self._token}", "content-type": "application/json"},
            )
        )

    def let_the_scheduled_night_pass(self) -> None:
        """Unpause the DAG, which then runs for the last date of its schedule, with nothing to do."""
        _wait_for("the DAG", lambda: DAG_ID in {dag["dag_id"] for dag in self.api("GET", "dags")["dags"]})
        self.api("PATCH", f"dags/{DAG_ID}", {"is_paused": False})

        def states() -> list[str]:
            return [run["state"] for run in self.api("GET", f"dags/{DAG_ID}/dagRuns")["dag_runs"]]

        _wait_for("the scheduled run", lambda: bool({*states()} & {*_ENDED}))
        self.say(f"the scheduled run found nothing: {states()[0]}")

    def run(self) -> Iterator[_Instances]:
        """Start a run and yield its task instances, by task and map index, every second until it ends."""
        asked = {"logical_date": datetime.now(UTC).isoformat(), "conf": {}}
        run_id = self.api("POST", f"dags/{DAG_ID}/dagRuns", asked)["dag_run_id"]
        self.run_path = f"dags/{DAG_ID}/dagRuns/{urllib.parse.quote(run_id)}"
        self.say(f"run {run_id} asked for")
        deadline = time.monotonic() + _LONGEST_RUN_S
        while time.monotonic() < deadline:
            yield self.instances()
            self.state = str(self.api("GET", self.run_path)["state"])
            if self.state in _ENDED:
                self.say(f"run ended: {self.state}")
                return
            time.sleep(1)
        raise TimeoutError(f"{run_id} did not end in {_LONGEST_RUN_S} s")

    def instances(self) -> _Instances:
        """Return the task instances of the run."""
        listed = self.api("GET", f"{self.run_path}/taskInstances?limit=1000")["task_instances"]
        return {(one["task_id"], one["map_index"]): one for one in listed}

    def openai(self, path: str, payload: Any = None) -> Any:
        """Talk to the OpenAI test server's control pages."""
        return control_openai(self.stack.openai_environment()["OPENAI_BASE_URL"], path, payload)

    def busiest_worker(self, instances: _Instances) -> str | None:
        """Return the worker process that captions most batches; None if none does."""
        workers = {self.processes.processes[f"airflow-worker{i}"].pid: f"airflow-worker{i}" for i in WORKERS}
        captioning: Counter[str] = Counter()
        for (task, _), one in instances.items():
            if task == "batch.caption" and one["state"] == "running" and one["pid"]:
                with contextlib.suppress(psutil.Error):
                    ancestors = (process.pid for process in psutil.Process(one["pid"]).parents())
                    captioning.update(workers[pid] for pid in ancestors if pid in workers)
        return captioning.most_common(1)[0][0] if captioning else None

    def kill(self, worker: str) -> int:
        """Kill a worker with all its tasks; return how many of them were captioning."""
        victims = self.processes.kill(worker)
        # Airflow takes them for running until they have been silent for long enough.
        return sum(
            task == "batch.caption" and one["state"] == "running" and one["pid"] in victims
            for (task, _), one in self.instances().items()
        )


def _read(request: urllib.request.Request) -> Any:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{request.full_url}: {error.code} {error.read()[:500]!r}") from None


def _wait_for(what: str, is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST_START_S
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come in {_LONGEST_START_S} s")
        time.sleep(1)


class _Changes:
    """Says which tasks changed, once a second, many of a kind in one line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._known = say, {}  # type: ignore[var-annotated]

    def look(self, instances: _Instances, more: str = "") -> None:
        """Say what is new since the last look."""
        changed: Counter[str] = Counter()
        for key, one in instances.items():
            state = (one["state"], one["try_number"])
            if self._known.get(key) != state and one["state"] in (*_ENDED, "up_for_retry", "upstream_failed"):
                again = f", try {one['try_number']}" if one["try_number"] > 1 else ""
                changed[f"{key[0]} {one['state']}{again}"] += 1
            self._known[key] = state
        if changed:
            said = ", ".join(f"{count} x {what}" if count > 1 else what for what, count in changed.items())
            self._say(f"{said}{more}")


def run_distributed(folder: Path, images: int, say: Callable[[str], None], **changes: str) -> Outcome:
    """Run it all in an empty folder; see the module."""
    cluster = Cluster(folder, say, SENSE_TIMEOUT_S="0", RETRY_DELAY_S="2", **changes)
    try:
        cluster.openai("reset", {"latency_s": _LATENCY_S})
        cluster.up()
        cluster.let_the_scheduled_night_pass()
        cluster.land(images)
        return _measure(cluster, images)
    finally:
        cluster.down()


def _measure(cluster: Cluster, images: int) -> Outcome:
    changes, started, killed, captioning = _Changes(cluster.say), time.monotonic(), "", 0
    for instances in cluster.run():
        answered = len(cluster.openai("calls")["calls"])
        changes.look(instances, f"; {answered} captions answered")
        if not killed and answered >= images / 2 and (busiest := cluster.busiest_worker(instances)):
            killed, captioning = busiest, cluster.kill(busiest)
            cluster.say(f"{answered} captions were answered, {captioning} of its tasks asked for more")
    seconds, first = time.monotonic() - started, cluster.state
    retried = [key for key, one in instances.items() if one["try_number"] > 1]
    charged = [call for call in cluster.openai("calls")["calls"] if call["billed"]]
    for instances in cluster.run():
        changes.look(instances)
    again = [call for call in cluster.openai("calls")["calls"] if call["billed"]][len(charged) :]
    questions = Counter((call["image_sha256"], call["text"]) for call in charged)
    rows = cluster.warehouse.select_results(10 * images, {})
    return Outcome(
        images=images,
        states=(first, cluster.state),
        statuses=dict(Counter(row["STATUS"] for row in rows)),
        calls=len(charged) + len(again),
        paid_again=sum(count - 1 for count in questions.values()),
        allowed=captioning * cluster.settings.openai_concurrency,
        calls_of_second_run=len(again),
        killed=killed,
        retried=len(retried),
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="A folder for data and logs; else they are deleted.")
    options = parser.parse_args()
    console, started = Console(), time.monotonic()

    def say(what: str) -> None:
        console.print(f"{time.monotonic() - started:7.1f} s  {what}", highlight=False, soft_wrap=True)

    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="distributed-")))
        outcome = run_distributed(folder, options.images, say, BATCH_SIZE=str(options.batch_size))
    console.print(
        f"\n{outcome.images} images: rows {outcome.statuses}, runs {' and '.join(outcome.states)}, "
        f"the first in {outcome.seconds:.0f} s\n"
        f"requests charged: {outcome.calls}; again: {outcome.paid_again}, of at most {outcome.allowed} that the kill may cost; "
        f"in the second run: {outcome.calls_of_second_run}\ntasks tried again: {outcome.retried}\n"
        f"{'right' if outcome.is_right else 'WRONG'}",
        highlight=False,
    )  # fmt: skip
    sys.exit(not outcome.is_right)


if __name__ == "__main__":
    main()
