"""Batch jobs: half the price, matched by id, landed whatever becomes of them, and never paid twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Night, paint, photograph
from pipeline import Pipeline, numbered

from image_analyzer.local.stack import control_openai


@pytest.fixture
def make_pipeline(make_night: Callable[..., Night]) -> Callable[..., Pipeline]:
    """Return a way to set up a night in batch mode."""

    def make(**changes: str) -> Pipeline:
        return Pipeline(make_night(**{"CAPTION_MODE": "batch", **changes}))

    return make


def openai_has(pipeline: Pipeline) -> dict[str, Any]:
    """Return the files and jobs that lie at the test server."""
    found: dict[str, Any] = control_openai(pipeline.night.base_url, "batches")
    return found


def paid(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    """Return what was charged: tier, picture and question."""
    return [(call["tier"], call["image_sha256"], call["text"]) for call in pipeline.night.calls() if call["billed"]]


@pytest.mark.parametrize("style", ["responses", "chat"])
def test_a_batch_job_is_half_the_price(make_pipeline: Callable[..., Pipeline], style: str) -> None:
    """The same picture costs half of what it costs online, in both wire formats, and leaves no file at OpenAI."""
    pipeline = make_pipeline(OPENAI_API_STYLE=style, CAPTION_LANGUAGES="en,fr")
    pipeline.land(cat__jpg=photograph("chelsea.png"))
    half = pipeline.run()
    left = openai_has(pipeline)["files"]
    pipeline.land(cup__jpg=photograph("chelsea.png") + b"\0")

    full = pipeline.run(pipeline.night.settings(caption_mode="online"))

    assert {"ok": 2} == half.by_status
    assert half.cost_usd * 2 == pytest.approx(full.cost_usd) != 0
    assert (1, 1) == (half.calls, full.calls)
    assert ["batch", "default"] == [call["tier"] for call in pipeline.night.calls()]
    assert [] == left
