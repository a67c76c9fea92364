"""The sensor and its trigger against a real bucket."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from conftest import Night, paint
from pipeline import Pipeline

from image_analyzer import wiring
from image_analyzer.records import RunRequest
from image_analyzer.steps.discover import listing_mark


@pytest.fixture
def sensing(night: Night, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's module, its clients built from this night's settings: there is no Airflow connection here."""
    import image_analyzer_sensing as module

    monkeypatch.setattr(module, "make_settings", night.settings)
    monkeypatch.setattr(module, "make_store", wiring.make_store)
    monkeypatch.setattr(module, "make_warehouse", wiring.make_warehouse)
    return module


def _sensor(sensing: Any, pipeline: Pipeline, timeout_s: int) -> Any:
    request = RunRequest(
        run_id="r", bucket="images", prefix=pipeline.settings.s3_prefix, languages=pipeline.settings.caption_languages
    )
    return sensing.NewObjectsSensor(task_id="s", request=request.model_dump_json(), timeout_s=timeout_s, poll_s=1)


def _trigger(sensing: Any, pipeline: Pipeline, seconds: float) -> Any:
    settings = pipeline.settings
    mark = listing_mark(pipeline.store, wiring.make_work_area(settings), "images", settings.s3_prefix)
    return sensing.NewObjectsTrigger("images", settings.s3_prefix, mark, 1, time.time() + seconds)


def _event(trigger: Any) -> dict[str, Any]:
    async def first() -> Any:
        return await anext(aiter(trigger.run()))

    payload: dict[str, Any] = asyncio.run(first()).payload
    return payload


def test_new_means_not_yet_in_the_table(sensing: Any, night: Night) -> None:
    """An object that is done does not sense again; another one does; a bare look ends with the answer."""
    pipeline = Pipeline(night)
    assert False is _sensor(sensing, pipeline, 0).execute({})
    pipeline.land(a__jpg=paint("red"))
    assert True is _sensor(sensing, pipeline, 0).execute({})
    pipeline.run()
    assert False is _sensor(sensing, pipeline, 0).execute({})


def test_waiting_is_handed_to_the_triggerer(sensing: Any, night: Night) -> None:
    """With time to wait the sensor defers; what it hands over holds no credential and can be built again."""
    from airflow.sdk.exceptions import TaskDeferred

    with pytest.raises(TaskDeferred) as deferred:
        _sensor(sensing, Pipeline(night), 60).execute({})

    path, arguments = deferred.value.trigger.serialize()
    assert path == "image_analyzer_sensing.NewObjectsTrigger"
    assert {"bucket", "prefix", "mark", "poll_s", "end_at"} == set(arguments)
    assert arguments == sensing.NewObjectsTrigger(**arguments).serialize()[1]


def test_the_trigger_sees_what_lands(sensing: Any, night: Night) -> None:
    """An object that lands while it waits ends the waiting."""
    pipeline = Pipeline(night)
    trigger = _trigger(sensing, pipeline, 20)
    threading.Timer(1.5, lambda: pipeline.land(a__jpg=paint("red"))).start()
    started = time.monotonic()

    assert _event(trigger) == {"changed": True}
    assert time.monotonic() - started < 10
    assert True is _sensor(sensing, pipeline, 0).resume({}, {"changed": True})


def test_a_night_without_anything_ends(sensing: Any, night: Night) -> None:
    """When the time is over the trigger says so and the sensor ends well, with False."""
    pipeline = Pipeline(night)

    assert _event(_trigger(sensing, pipeline, 1.2)) == {"changed": False}
    assert False is _sensor(sensing, pipeline, 0).resume({}, {"changed": False})


def test_a_fault_while_waiting_is_looked_at_by_the_worker(
    sensing: Any, night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that fails in the triggerer ends the waiting; discover then names the fault by the usual rules."""
    pipeline = Pipeline(night)
    trigger = _trigger(sensing, pipeline, 5)
    monkeypatch.setattr(
        sensing,
        "make_store",
        lambda _settings: wiring.make_store(night.settings(s3_bucket="nope", s3_endpoint_url="http://127.0.0.1:1")),
    )

    event = _event(trigger)

    assert "RetryableError" in event["error"]
    assert True is _sensor(sensing, pipeline, 0).resume({}, event)
