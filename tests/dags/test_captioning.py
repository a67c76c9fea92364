"""The trigger that waits for batch jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import Night

from image_analyzer import wiring
from image_analyzer.local.stack import control_openai
from image_analyzer.settings import Settings


@pytest.fixture
def captioning(night: Night, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin as the triggerer loads it, with the settings of a night."""
    import image_analyzer_captioning

    monkeypatch.setattr(image_analyzer_captioning, "make_settings", night.settings)
    return image_analyzer_captioning


def send_job(settings: Settings, content: bytes) -> str:
    """Begin a job at the test server; return its id."""

    async def send() -> str:
        service = wiring.make_job_service(settings)
        try:
            return await service.send("a-job", content)
        finally:
            await service.aclose()

    return asyncio.run(send())


def event_of(trigger: Any) -> dict[str, Any]:
    """Return the payload of the first event."""

    async def first(events: AsyncIterator[Any]) -> Any:
        return await anext(events)

    payload: dict[str, Any] = asyncio.run(first(trigger.run())).payload
    return payload


def test_the_trigger_ends_with_the_last_job(captioning: Any, night: Night) -> None:
    """Jobs that have ended, and jobs nobody knows, end the waiting at once; what it hands over holds no credential."""
    job_id = send_job(night.settings(), b"")
    trigger = captioning.JobsTrigger([job_id, "batch_unknown"], 0.1, time.time() + 30, is_ours=True)
    path, arguments = trigger.serialize()
    started = time.monotonic()

    assert {} == event_of(captioning.JobsTrigger(**arguments))
    assert time.monotonic() - started < 10
    assert path == "image_analyzer_captioning.JobsTrigger"
    assert {"job_ids", "poll_s", "end_at", "is_ours"} == set(arguments)


def test_the_trigger_ends_with_the_patience(captioning: Any, night: Night) -> None:
    """A job that stands still is not waited for beyond the time that was given."""
    night.order({"kind": "batch_slow"})
    job_id = send_job(night.settings(), b"")

    assert {} == event_of(captioning.JobsTrigger([job_id], 0.1, time.time() + 1, is_ours=True))


def test_the_trigger_leaves_faults_to_the_worker(
    captioning: Any, night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no waiting can mend ends it, with a message that holds no key."""
    monkeypatch.setattr(captioning, "make_settings", lambda: night.settings(openai_api_key="sk-wrong-and-secret"))
    event = event_of(captioning.JobsTrigger(["batch_x"], 0.1, time.time() + 30, is_ours=True))

    assert "check OPENAI_API_KEY" in event["error"]
    assert "sk-wrong-and-secret" not in event["error"]


@pytest.mark.parametrize(
    ("is_ours", "is_cleared", "status"),
    [(True, False, "cancelled"), (True, True, "in_progress"), (False, False, "in_progress")],
)
def test_only_a_task_that_was_ended_cancels_its_own_jobs(
    captioning: Any, night: Night, monkeypatch: pytest.MonkeyPatch, *, is_ours: bool, is_cleared: bool, status: str
) -> None:
    """A task that was cleared goes on with its job, and another batch's job is not ours to cancel."""
    night.order({"kind": "batch_slow"})
    job_id = send_job(night.settings(), b"")
    trigger = captioning.JobsTrigger([job_id], 0.1, time.time() + 30, is_ours=is_ours)
    monkeypatch.setattr(trigger, "_is_cleared", lambda: is_cleared)

    asyncio.run(trigger.on_kill())
    time.sleep(0.3)

    (job,) = control_openai(night.base_url, "batches")["jobs"]
    assert status == job["status"]
