"""Runs the steps of one night in the order of the DAG, without Airflow; what a failed task leaves is left here, too."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from conftest import Night

from image_analyzer import wiring
from image_analyzer.errors import ImageAnalyzerError, QualityError
from image_analyzer.ports import JobService, ObjectStore, OpenObject
from image_analyzer.records import RunRequest
from image_analyzer.reports import RunReport
from image_analyzer.settings import CaptionMode, Settings
from image_analyzer.steps.budget import Entry
from image_analyzer.steps.caption import caption
from image_analyzer.steps.check import check
from image_analyzer.steps.discover import discover
from image_analyzer.steps.hint import hint
from image_analyzer.steps.jobfiles import JobFiles
from image_analyzer.steps.jobs import Waiting
from image_analyzer.steps.merge import merge
from image_analyzer.steps.prepare import prepare
from image_analyzer.steps.report import raise_if_red, report
from image_analyzer.steps.submit import submit


class CountingStore:
    """The real store; counts reads of originals and runs a hook before each, where a test changes the bucket."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self.opened: list[str] = []
        self.before_open: Any = lambda _key: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @contextmanager
    def open_object(self, bucket: str, key: str) -> Iterator[OpenObject]:
        """Count, then open."""
        self.opened.append(key)
        self.before_open(key)
        with self._inner.open_object(bucket, key) as opened:
            yield opened


class Pipeline:
    """One bucket prefix and one table, and any number of nights.

    Attributes:
        errors: What the steps of the last night raised, by step.
    """

    def __init__(self, night: Night) -> None:
        self.night, self.settings = night, night.settings()
        self.store = CountingStore(wiring.make_store(self.settings))
        self.warehouse = wiring.make_warehouse(self.settings)
        self.warehouse.create_tables()
        self.errors: dict[str, ImageAnalyzerError] = {}
        self._nights = 0

    def land(self, **objects: bytes) -> None:
        """Put objects under the landing prefix; `__` in a name stands for the dot of its extension."""
        for name, content in objects.items():
            self.store.write(self.uri(name.replace("__", ".")), content, "application/octet-stream")

    def uri(self, name: str) -> str:
        """Return the address of an object that was landed."""
        return f"s3://{self.settings.s3_bucket}/{self.settings.s3_prefix}{name}"

    def run(self, settings: Settings | None = None, *, tries: int = 1, run_id: str = "", **wanted: Any) -> RunReport:
        """Run one night; `tries` is how often a failing step is tried."""
        settings = settings or self.settings
        self._nights += 1
        self.errors = {}
        work = wiring.make_work_area(settings)
        request = RunRequest(
            run_id=run_id or f"night-{self._nights}",
            bucket=settings.s3_bucket,
            **{"prefix": settings.s3_prefix, "languages": settings.caption_languages, **wanted},
        )
        plan = discover(self.store, self.warehouse, work, request, wiring.plan_options(settings))
        if plan.dry_run:
            plan = plan.model_copy(update={"batches": ()})
        for batch in plan.batches:
            try:
                self._batch(settings, batch.uri, tries)
            except ImageAnalyzerError as error:
                self.errors[batch.batch_id[:10]] = error
        outcome = merge(self.store, self.warehouse, plan)
        passed = True
        try:
            check(self.warehouse, request.run_id)
        except QualityError as error:
            self.errors["check"], passed = error, False
        summary = report(self.store, self.warehouse, work, plan, outcome, check_passed=passed)
        try:
            raise_if_red(summary)
        except QualityError as error:
            self.errors["report"] = error
        return summary

    def _batch(self, settings: Settings, manifest_uri: str, tries: int) -> None:
        def try_caption() -> None:
            if settings.caption_mode is CaptionMode.BATCH or JobFiles(self.store, manifest_uri).read_all():
                self._wait_for_jobs(settings, manifest_uri)
            captioner = wiring.make_batch_captioner(settings, self.store, manifest_uri)
            ledger = wiring.make_ledger(settings, self.store)
            options, adopter = wiring.caption_options(settings), wiring.make_adopter(settings, self.store)
            caption(self.store, self.warehouse, ledger, manifest_uri, captioner, options, adopter=adopter)

        steps = [
            lambda: prepare(self.store, manifest_uri, wiring.prepare_options(settings)),
            lambda: hint(self.store, manifest_uri, *wiring.make_hint_model(settings)),
            try_caption,
        ]
        for step in steps:
            for left in reversed(range(tries)):
                try:
                    step()
                    break
                except ImageAnalyzerError:
                    if not left:
                        raise

    def submit(self, settings: Settings, manifest_uri: str) -> Waiting | None:
        """Send what is open of a batch by batch jobs, land what has ended."""
        service = wiring.make_job_service(settings)
        captioner = wiring.make_batch_captioner(settings, self.store, manifest_uri)
        jobs = wiring.make_batch_jobs(settings, self.store, manifest_uri, service)
        ledger = wiring.make_ledger(settings, self.store)
        return submit(
            self.store, self.warehouse, ledger, manifest_uri, captioner, service, jobs, settings.hint_min_score,
            begins=settings.caption_mode is CaptionMode.BATCH,
        )  # fmt: skip

    def _wait_for_jobs(self, settings: Settings, manifest_uri: str) -> None:
        """Do what operator and trigger do."""
        while waiting := self.submit(settings, manifest_uri):
            while datetime.now(UTC) < waiting.until:
                if waiting.job_ids and asyncio.run(_have_ended(wiring.make_job_service(settings), waiting)):
                    break
                time.sleep(0.02)

    def rows(self, language: str = "en") -> dict[str, dict[str, Any]]:
        """Return the table's rows of one language, by file name."""
        return {row["FILE_NAME"]: row for row in self.warehouse.select_results(10_000, {"language": language})}


async def _have_ended(service: JobService, waiting: Waiting) -> bool:
    try:
        states = [await service.look(job_id) for job_id in waiting.job_ids]
    finally:
        await service.aclose()
    return all(state is None or state.ended for state in states)


def drawn_usd(pipeline: Pipeline, folder: str) -> list[float]:
    """Return what each entry of a book drew."""
    bucket, _, key = folder.removeprefix("s3://").partition("/")
    entries = [pipeline.store.read(obj.uri) or b"" for obj in pipeline.store.list_objects(bucket, key)]
    return [Entry.model_validate_json(entry).usd for entry in entries]


def numbered(count: int) -> dict[str, bytes]:
    """Return pictures of different content."""
    from PIL import Image

    found = {}
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (60 + index % 50, 40), (index * 7 % 256, index * 31 % 256, index % 256)).save(buffer, "PNG")
        found[f"n{index:04d}__png"] = buffer.getvalue()
    return found
