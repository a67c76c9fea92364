"""What orchestration costs as images grow: time, processor, database rows, memory and S3 requests of whole nights.

Method: for each size a new embedded stack and a new Airflow (scheduler, API server, DAG processor, triggerer, four local workers,
SQLite); the settings' defaults but for BATCH_SIZE, as printed. The images are real objects of 64 x 48 pixels with `--distinct`
different contents in all, so that what pictures cost by themselves (downloads, decoding, captions; other benchmarks measure them)
is small beside what the pipeline and Airflow do for each object: listing, manifests, mapped tasks, rows, MERGE. Captions come
from the OpenAI test server, at once. The night runs, then a second one with nothing new. Seconds of tasks are Airflow's;
processor time and memory are the processes' own, sampled five times a second; S3 requests are SeaweedFS's count; rows are those
that Airflow's database gained.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from night import Night, count_s3_requests
from PIL import Image
from rich.progress import track

from image_analyzer import wiring
from image_analyzer.local.airflow import LocalAirflow
from image_analyzer.local.stack import Stack, control_openai, free_ports
from image_analyzer.settings import load_settings

_COMPONENTS = {"scheduler": "scheduler", "api-server": "API server", "api_server": "API server",
               "dag-processor": "DAG processor", "triggerer": "triggerer"}  # fmt: skip
_TABLES = ("task_instance", "xcom", "rendered_task_instance_fields", "log", "task_map", "task_reschedule")
_LANDING = 1_000


class Figures(NamedTuple):
    """What one night cost.

    Attributes:
        seconds: From the first task's start to the last one's end; and of the steps by name, first start to last end.
        tasks: Task instances.
        busy_s: Processor seconds by component.
        peak_mb: Largest resident size by component and by step.
        rows: New rows in Airflow's database, by table.
        requests: S3 requests by kind.
    """

    seconds: float
    steps: dict[str, float]
    tasks: int
    busy_s: dict[str, float]
    peak_mb: dict[str, float]
    rows: dict[str, int]
    requests: Counter[str]


class Watched(Night):
    """A night whose components are watched as well as its tasks."""

    def __init__(self, airflow: LocalAirflow, known: set[str]) -> None:
        super().__init__(airflow, known)
        self.peak_of: dict[str, float] = defaultdict(float)

    def _sample(self) -> None:
        super()._sample()
        for name, process in self.components():
            with suppress(psutil.Error):
                self.peak_of[name] = max(self.peak_of[name], process.memory_info().rss / 1e6)

    def components(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yield the long-lived processes of Airflow, by component."""
        root = psutil.Process(int((self._airflow.folder / "standalone.pid").read_text()))
        for process in root.children(recursive=True):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            found = next((name for word, name in _COMPONENTS.items() if word in title), None)
            if found and "LocalExecutor" not in title and "task" not in title:
                yield found, process

    def processor_s(self) -> Counter[str]:
        """Return processor seconds so far, by component."""
        found: Counter[str] = Counter()
        for name, process in self.components():
            times = process.cpu_times()
            found[name] += times.user + times.system  # type: ignore[assignment]
        return found

    def rows(self) -> dict[str, int]:
        """Return how many rows Airflow's tables have."""
        return {table: self._query(f"SELECT count(*) FROM {table}")[0][0] for table in _TABLES}  # noqa: S608


def picture(number: int) -> bytes:
    """Return a small JPEG of a content of its own, unlike the others: twelve squares of any colour."""
    squares = Image.frombytes("RGB", (4, 3), random.Random(number).randbytes(36))  # noqa: S311 - no secret
    buffer = io.BytesIO()
    squares.resize((64, 48), Image.Resampling.NEAREST).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def land(numbers: range, distinct: int) -> None:
    """Put the objects of these numbers."""
    settings = load_settings()
    store = wiring.make_store(settings)

    def put(number: int) -> None:
        key = f"{settings.s3_prefix}{number // 1000:04d}/n{number:06d}.jpg"
        store.write(f"s3://{settings.s3_bucket}/{key}", picture(number % distinct), "image/jpeg")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, numbers))


def land_all(count: int, distinct: int) -> None:
    """Put all objects, by two processes."""
    parts = [range(first, min(first + _LANDING, count)) for first in range(0, count, _LANDING)]
    with ProcessPoolExecutor(2) as pool:
        waiting = [pool.submit(land, part, distinct) for part in parts]
        for one in track(waiting, f"landing {count:,}"):
            one.result()


def watch(airflow: LocalAirflow, stack: Stack, known: set[str]) -> tuple[Figures, set[str]]:
    """Run a night; return what it cost and the runs there are."""
    night = Watched(airflow, known)
    busy, rows, requests = night.processor_s(), night.rows(), count_s3_requests(stack)
    night.run()
    after, rows_after, requests_after = night.processor_s(), night.rows(), count_s3_requests(stack)
    spans: dict[str, list[float]] = defaultdict(list)
    instances = night.instances()
    for task, _, state, start, end in instances:
        if state not in ("success", "skipped", None):
            raise RuntimeError(f"{task} is {state}")
        if start and end:
            spans[task] += [start, end]
    steps = {task: max(times) - min(times) for task, times in spans.items()}
    every = [moment for times in spans.values() for moment in times]
    figures = Figures(
        seconds=max(every) - min(every),
        steps=steps,
        tasks=len(instances),
        busy_s={name: seconds - busy[name] for name, seconds in after.items()},
        peak_mb={**{name: size / 1e6 for name, size in night.peak_bytes.items()}, **night.peak_of},
        rows={table: count - rows[table] for table, count in rows_after.items()},
        requests=requests_after - requests,
    )
    return figures, night.known


def measure(count: int, batch_size: int, distinct: int) -> None:
    """Run both nights of one size and print them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = Stack(folder / "stack")
        stack.up()
        openai = stack.openai_environment()
        stack.adopt(
            **openai,
            SENSE_TIMEOUT_S="0",
            BATCH_SIZE=str(batch_size),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        )
        control_openai(openai["OPENAI_BASE_URL"], "reset", {"latency_s": 0})
        wiring.make_warehouse(load_settings()).create_tables()
        (port,) = free_ports(1)
        airflow = LocalAirflow(folder / "airflow", {}, port)
        try:
            began = time.monotonic()
            land_all(count, min(count, distinct))
            print(f"\n{count:,} objects landed in {time.monotonic() - began:.0f} s", flush=True)
            airflow.set_up()
            airflow.start()
            known: set[str] = set()
            for title in ("all new", "nothing new"):
                figures, known = watch(airflow, stack, known)
                print_figures(f"{count:,} images by {batch_size:,}, {title}", figures)
            size = (airflow.folder / "airflow.db").stat().st_size / 1e6
            print(f"  Airflow's database: {size:.0f} MB", flush=True)
        finally:
            airflow.stop()
            stack.down()


def print_figures(title: str, figures: Figures) -> None:
    """Print one night."""

    def listed(values: dict[str, float], form: str) -> str:
        return ", ".join(f"{name} {value:{form}}" for name, value in values.items())

    print(f"{title}: {figures.seconds:.0f} s, {figures.tasks:,} tasks")
    print(f"  steps, s:       {listed(figures.steps, '.0f')}")
    print(f"  processor, s:   {listed(figures.busy_s, '.0f')}")
    print(f"  peak MB:        {listed(figures.peak_mb, '.0f')}")
    print(f"  Airflow's rows: {listed(dict(figures.rows), ',')}")
    print(f"  S3 requests:    {listed(dict(figures.requests), ',')}", flush=True)


def main() -> None:
    """Measure the sizes one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sizes", nargs="*", default=["1000:250", "10000:250", "100000:1000"], help="IMAGES:BATCH_SIZE of each night"
    )
    parser.add_argument("--distinct", type=int, default=1_000)
    arguments = parser.parse_args()
    print(__doc__)
    for size in arguments.sizes:
        count, batch_size = map(int, size.split(":"))
        measure(count, batch_size, arguments.distinct)


if __name__ == "__main__":
    main()
