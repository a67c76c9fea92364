"""The deferrable sensor for *new* objects, and its trigger. It asks the warehouse once and then only lists.

Every component of Airflow loads this file at start: what it needs of the core is imported where it is used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from image_analyzer_airflow import airflow_errors, make_settings, make_store, make_warehouse

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class NewObjectsSensor(BaseOperator):
    """Wait until an object is there that IMAGE_RESULTS does not have in this version.

    `S3KeySensor` would say yes for ever once any old object matches. Ends well, with False, when nothing comes in time.

    Args:
        request: JSON of a `RunRequest` (templated).
        timeout_s: How long to wait; 0 looks once.
        poll_s: Pause between two listings.
    """

    template_fields = ("request", "timeout_s")

    def __init__(self, *, request: str, timeout_s: int | str, poll_s: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.request = request
        self.timeout_s = timeout_s
        self.poll_s = poll_s

    def execute(self, context: Context) -> bool:
        """Look once; hand over to the trigger if there is nothing yet."""
        from image_analyzer.records import RunRequest
        from image_analyzer.settings import CaptionBackend
        from image_analyzer.steps.discover import find_missing, listing_mark
        from image_analyzer.wiring import make_work_area

        with airflow_errors():
            settings = make_settings()
            request = RunRequest.model_validate_json(self.request)
            if request.reprocess:
                self.log.info("reprocessing: `discover` reads IMAGE_RESULTS, nothing is waited for")
                return True
            store, work = make_store(settings), make_work_area(settings)
            # The mark is taken first: what lands after it is seen by the trigger, what landed before by the warehouse.
            mark = listing_mark(store, work, request.bucket, request.prefix)
            online = settings.backend is CaptionBackend.OPENAI
            # One is enough to know; of a million new ones nobody should hold a list for that.
            one = request.model_copy(update={"limit": 1})
            listed, missing = find_missing(store, make_warehouse(settings), work, one, replace_offline=online)
        self.log.info(
            "%d objects listed, %s", listed, "some are new or changed" if missing else "none is new or changed"
        )
        if missing:
            return True
        wait_s = int(self.timeout_s)
        if wait_s <= 0:
            return False
        end_at = time.time() + wait_s
        trigger = NewObjectsTrigger(request.bucket, request.prefix, mark, self.poll_s, end_at)
        return self.defer(trigger=trigger, method_name="resume", timeout=timedelta(seconds=wait_s + 600))

    def resume(self, context: Context, event: dict[str, Any]) -> bool:
        """Return what the trigger saw."""
        if event.get("error"):
            self.log.warning("listing failed while waiting (%s); looking again", event["error"])
        return bool(event.get("changed")) or bool(event.get("error"))


class NewObjectsTrigger(BaseTrigger):
    """List until the listing differs or the time is over.

    Args:
        mark: Digest of the listing that held nothing new.
        end_at: Unix time at which waiting ends.
    """

    def __init__(self, bucket: str, prefix: str, mark: str, poll_s: int, end_at: float) -> None:
        super().__init__()
        self.bucket, self.prefix, self.mark, self.poll_s, self.end_at = bucket, prefix, mark, poll_s, end_at

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to build it; no credential is among it."""
        arguments = {name: getattr(self, name) for name in ("bucket", "prefix", "mark", "poll_s", "end_at")}
        return "image_analyzer_sensing.NewObjectsTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the listing changed, or the time is over."""
        while (left_s := self.end_at - time.time()) > 0:
            await asyncio.sleep(min(self.poll_s, left_s))
            try:
                changed = await asyncio.to_thread(self._mark) != self.mark
            except Exception as error:
                # The worker looks again and names the fault by the usual rules.
                yield TriggerEvent({"error": f"{type(error).__name__}: {error}"})
                return
            if changed:
                yield TriggerEvent({"changed": True})
                return
        yield TriggerEvent({"changed": False})

    def _mark(self) -> str:
        from image_analyzer.steps.discover import listing_mark
        from image_analyzer.wiring import make_work_area

        settings = make_settings()
        return listing_mark(make_store(settings), make_work_area(settings), self.bucket, self.prefix)
