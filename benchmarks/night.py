"""A whole night under a live scheduler: map indexes, wall time of each step, peak memory of each task, a second night.

Method: photographs of a folder (the demonstration's, if none is given) are repeated under other names and with other bytes up to
`--images`, landed in the embedded S3, and captioned by the OpenAI test server, which answers after `--latency` seconds. Airflow
runs as scheduler, API server, triggerer and four local workers, with the settings' defaults. Times are from
Airflow's own table of task instances; memory is the largest resident size seen of each task's process, sampled five times
a second. S3 requests are SeaweedFS's own count. Then the DAG runs once more with nothing new.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from image_analyzer import wiring
from image_analyzer.local.airflow import DAG_ID, LocalAirflow
from image_analyzer.local.pictures import demo_pictures
from image_analyzer.local.stack import Stack, control_openai, free_ports
from image_analyzer.settings import Settings, load_settings

_ORDER = ["sense", "discover", "batch.prepare", "batch.hint", "batch.caption", "merge", "check", "report"]


def read_photographs(folder: Path | None) -> list[bytes]:
    if folder:
        return [file.read_bytes() for file in sorted(folder.rglob("*.jpg"))]
    return [picture.content for picture in demo_pictures() if picture.name.startswith("photos/")]


def land(settings: Settings, sources: list[bytes], count: int) -> None:
    """Put `count` objects of different content: a decoder stops before what is appended, a hash does not."""
    store = wiring.make_store(settings)

    def put(index: int) -> None:
        content = sources[index % len(sources)] + index.to_bytes(4, "big")
        store.write(f"s3://{settings.s3_bucket}/{settings.s3_prefix}n{index:06d}.jpg", content, "image/jpeg")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(count)))


class Night:
    """Runs the DAG once and watches it."""

    def __init__(self, airflow: LocalAirflow, known: set[str]) -> None:
        self._airflow = airflow
        self.peak_bytes: dict[str, int] = defaultdict(int)
        self._run_id = ""
        self._known = known

    def run(self) -> None:
        """Trigger the DAG and wait for its end.

        Unpausing the DAG also starts the run of the last scheduled night, which may be the one that does the work: all
        new runs are waited for, and the one with the most tasks is reported.
        """
        known = self._known
        self._airflow.run(["dags", "trigger", DAG_ID], self._airflow.folder / "trigger.log")
        while True:
            states = {run: state for run, state in self._query("SELECT run_id, state FROM dag_run") if run not in known}
            if states and not {"queued", "running"} & set(states.values()):
                break
            self._sample()
            time.sleep(0.2)
        self.known = known | set(states)
        self._run_id = max(states, key=lambda run: len(self._instances(run)))

    def _query(self, text: str, *binds: str) -> list[Any]:
        with sqlite3.connect(self._airflow.folder / "airflow.db", timeout=30) as database:
            return database.execute(text, binds).fetchall()

    def _sample(self) -> None:
        running = {
            pid: task
            for task, pid in self._query(
                "SELECT task_id, pid FROM task_instance WHERE state = 'running' AND pid IS NOT NULL"
            )
        }
        for pid, task in running.items():
            for process in _family(pid):
                self.peak_bytes[task] = max(self.peak_bytes[task], process)

    def instances(self) -> list[tuple[str, int, str, float, float]]:
        """Return (task, map index, state, start, end) of the reported run, times in seconds."""
        return self._instances(self._run_id)

    def _instances(self, run_id: str) -> list[Any]:
        return self._query(
            "SELECT task_id, map_index, state, (julianday(start_date) - 2440587.5) * 86400,"
            " (julianday(end_date) - 2440587.5) * 86400 FROM task_instance WHERE run_id = ?",
            run_id,
        )


def _family(pid: int) -> Iterator[int]:
    try:
        process = psutil.Process(pid)
        yield process.memory_info().rss
        for child in process.children(recursive=True):
            yield child.memory_info().rss
    except psutil.Error:
        return


def print_night(night: Night, title: str) -> None:
    rows = [row for row in night.instances() if row[3]]
    by_task: dict[str, list[tuple[str, int, str, float, float]]] = defaultdict(list)
    for row in rows:
        by_task[row[0]].append(row)
    print(f"\n{title}: {max(r[4] for r in rows) - min(r[3] for r in rows):.1f} s from first task to last")
    print(f"{'task':<16}{'map indexes':>12}{'wall s':>9}{'longest s':>11}{'peak MB':>9}  states")
    for task in _ORDER:
        if task not in by_task:
            continue
        found = by_task[task]
        wall = max(r[4] for r in found) - min(r[3] for r in found)
        states = dict(Counter(r[2] for r in found))
        peak = night.peak_bytes.get(task, 0) / 1e6
        print(f"{task:<16}{len(found):>12}{wall:>9.1f}{max(r[4] - r[3] for r in found):>11.1f}{peak:>9.0f}  {states}")


def count_s3_requests(stack: Stack) -> Counter[str]:
    """Return how many requests S3 has answered, by kind."""
    (url,) = (service.metrics_url for service in stack.services() if service.metrics_url)
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    counts: Counter[str] = Counter()
    for labels, count in re.findall(r"^SeaweedFS_s3_request_total\{(.*?)\} (\S+)$", text, re.MULTILINE):
        counts[re.findall(r'type="(\w+)"', labels)[0]] += int(float(count))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs")
    parser.add_argument("--latency", type=float, default=0.5, help="seconds the test server takes for an answer")
    arguments = parser.parse_args()
    print(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        stack.up()
        try:
            measure(stack, Path(folder), arguments)
        finally:
            stack.down()


def measure(stack: Stack, folder: Path, arguments: argparse.Namespace) -> None:
    openai = stack.openai_environment()
    stack.adopt(**openai, AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False")
    settings = load_settings()
    warehouse = wiring.make_warehouse(settings)
    warehouse.create_tables()
    control_openai(openai["OPENAI_BASE_URL"], "reset", {"latency_s": arguments.latency})
    started = time.monotonic()
    land(settings, read_photographs(arguments.photos), arguments.images)
    print(f"landed {arguments.images} photographs in {time.monotonic() - started:.1f} s")
    (port,) = free_ports(1)
    airflow = LocalAirflow(folder / "airflow", {}, port)
    airflow.set_up()
    airflow.start()
    try:
        known: set[str] = set()
        for title in ("first night", "second night, nothing new"):
            night, before = Night(airflow, known), count_s3_requests(stack)
            night.run()
            known = night.known
            print_night(night, title)
            rows = warehouse.select_results(1_000_000, {})
            calls = control_openai(openai["OPENAI_BASE_URL"], "calls")
            statuses = dict(Counter(row["STATUS"] for row in rows))
            cost = sum(row["COST_USD"] or 0 for row in rows)
            print(f"{len(rows)} rows {statuses}, {len(calls['calls'])} caption calls so far, at most "
                  f"{calls['most_in_flight']} at once, ${cost:.4f}; "
                  f"S3 requests of this night: {dict(count_s3_requests(stack) - before)}")  # fmt: skip
    finally:
        airflow.stop()


if __name__ == "__main__":
    main()
