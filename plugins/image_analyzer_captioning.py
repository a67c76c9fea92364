"""The task that has a batch captioned, and the trigger that waits for OpenAI's batch jobs without a worker.

Every component of Airflow loads this file at start: what it needs of the core is imported where it is used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent

from image_analyzer_airflow import airflow_errors, make_settings, make_store, make_warehouse

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from image_analyzer.ports import JobService

_MARGIN_S = 3600


class CaptionOperator(BaseOperator):
    """Write the captions of one batch, by batch jobs first where CAPTION_MODE says so.

    Args:
        manifest_uri: Of the batch (templated).
    """

    template_fields = ("manifest_uri",)

    def __init__(self, *, manifest_uri: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifest_uri = manifest_uri

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what is open by batch jobs, wait for them, then ask online what they left."""
        self._defer_while_jobs_run()
        return self._caption()

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on when what was waited for has come; what an event says is found out anew."""
        if event.get("error"):
            self.log.warning("looking at batch jobs failed (%s); looking again", event["error"])
        return self.execute(context)

    def _defer_while_jobs_run(self) -> None:
        from image_analyzer.settings import CaptionBackend, CaptionMode
        from image_analyzer.steps.jobfiles import JobFiles
        from image_analyzer.steps.submit import submit
        from image_analyzer.wiring import make_batch_captioner, make_batch_jobs, make_job_service, make_ledger

        with airflow_errors():
            settings = make_settings()
            store, uri, begins = make_store(settings), self.manifest_uri, settings.caption_mode is CaptionMode.BATCH
            # What was begun is landed, whatever the mode is now.
            if settings.backend is CaptionBackend.OFFLINE or not (begins or JobFiles(store, uri).read_all()):
                return
            service = make_job_service(settings)
            captioner, jobs = make_batch_captioner(settings, store, uri), make_batch_jobs(settings, store, uri, service)
            warehouse, ledger = make_warehouse(settings), make_ledger(settings, store)
            waiting = submit(
                store, warehouse, ledger, uri, captioner, service, jobs, settings.hint_min_score, begins=begins
            )
        if waiting is None:
            return
        left_s = max(0.0, waiting.until.timestamp() - time.time())
        self.log.info("waiting for %d batch jobs until %s", len(waiting.job_ids), waiting.until)
        trigger = JobsTrigger(
            waiting.job_ids, settings.batch_poll_s, waiting.until.timestamp(), is_ours=waiting.is_ours
        )
        self.defer(trigger=trigger, method_name="resume", timeout=timedelta(seconds=left_s + _MARGIN_S))

    def _caption(self) -> dict[str, Any]:
        from image_analyzer.steps.caption import caption
        from image_analyzer.wiring import caption_options, make_adopter, make_batch_captioner, make_ledger

        with airflow_errors():
            settings = make_settings()
            store = make_store(settings)
            captioner = make_batch_captioner(settings, store, self.manifest_uri)
            warehouse, ledger, adopter = (
                make_warehouse(settings),
                make_ledger(settings, store),
                make_adopter(settings, store),
            )
            done = caption(
                store, warehouse, ledger, self.manifest_uri, captioner, caption_options(settings), adopter=adopter
            )
        return done.model_dump(mode="json")


class JobsTrigger(BaseTrigger):
    """Look at batch jobs until all have ended or a time has come.

    Args:
        poll_s: Pause between two looks.
        end_at: Unix time.
        is_ours: The jobs are cancelled with the task.
    """

    def __init__(self, job_ids: Sequence[str], poll_s: float, end_at: float, *, is_ours: bool) -> None:
        super().__init__()
        self.job_ids, self.poll_s, self.end_at, self.is_ours = list(job_ids), poll_s, end_at, is_ours

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to build it; no credential is among it."""
        arguments = {name: getattr(self, name) for name in ("job_ids", "poll_s", "end_at", "is_ours")}
        return "image_analyzer_captioning.JobsTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: all jobs have ended, the time has come, or looking failed for good."""
        from image_analyzer.errors import RetryableError

        service = None
        try:
            service = await self._service()
            while (left_s := self.end_at - time.time()) > 0:
                try:
                    states = [await service.look(job_id) for job_id in self.job_ids]
                except RetryableError as error:
                    self.log.warning("%s; looking again", error)
                else:
                    if self.job_ids and all(state is None or state.ended for state in states):
                        break
                await asyncio.sleep(min(self.poll_s, left_s))
            yield TriggerEvent({})
        except Exception as error:
            # The worker looks again and names the fault by the usual rules.
            yield TriggerEvent({"error": f"{type(error).__name__}: {error}"})
        finally:
            if service is not None:
                await service.aclose()

    async def on_kill(self) -> None:
        """Cancel the jobs of a task that a person ended; not of one that was cleared: it takes them up again."""
        if not self.is_ours or await asyncio.to_thread(self._is_cleared):
            return
        service = await self._service()
        try:
            for job_id in self.job_ids:
                await service.cancel(job_id)
                self.log.info("batch job %s is cancelled", job_id)
        finally:
            await service.aclose()

    def _is_cleared(self) -> bool:
        """Tell whether the task will run again."""
        ti = self.task_instance
        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        names = [task_id for task_id in states[ti.run_id] if task_id.startswith(ti.task_id)]
        return (
            states[ti.run_id].get(names[0]) not in ("failed", "success", "skipped", "upstream_failed")
            if names
            else True
        )

    async def _service(self) -> JobService:
        from image_analyzer.wiring import make_job_service

        settings = await asyncio.to_thread(make_settings)
        return await asyncio.to_thread(make_job_service, settings)
