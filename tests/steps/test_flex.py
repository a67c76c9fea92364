"""Flex: half the price, patience where there is no room, and the standard price when patience ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Night, paint, photograph
from pipeline import Pipeline, numbered

from image_analyzer.clients import flex
from image_analyzer.clients.openai_errors import map_error
from image_analyzer.errors import FatalError
from image_analyzer.prices import find_price


@pytest.fixture
def make_pipeline(make_night: Callable[..., Night], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pipeline]:
    """Return a way to set up a night in flex mode that waits a tenth of the time."""
    monkeypatch.setattr(flex, "_FIRST_PAUSE_S", 0.2)

    def make(**changes: str) -> Pipeline:
        return Pipeline(make_night(**{"CAPTION_MODE": "flex", **changes}))

    return make


def tiers(pipeline: Pipeline) -> list[str]:
    """Return the tier of every request."""
    return [call["tier"] for call in pipeline.night.calls()]


@pytest.mark.parametrize("style", ["responses", "chat"])
def test_flex_is_half_the_price(make_pipeline: Callable[..., Pipeline], style: str) -> None:
    """The same picture costs half of what it costs online, in both wire formats."""
    pipeline = make_pipeline(OPENAI_API_STYLE=style)
    pipeline.land(cat__jpg=photograph("chelsea.png"))
    half = pipeline.run().cost_usd
    pipeline.land(cup__jpg=photograph("chelsea.png") + b"\0")

    full = pipeline.run(pipeline.night.settings(caption_mode="online")).cost_usd

    assert 0 < half
    assert half * 2 == pytest.approx(full)
    assert ["flex", "default"] == tiers(pipeline)


def test_no_room_is_waited_for(make_pipeline: Callable[..., Pipeline]) -> None:
    """Refusals for want of room use up no try, cost nothing and end at half the price."""
    pipeline = make_pipeline(OPENAI_MAX_ATTEMPTS="1")
    pipeline.land(a__jpg=paint("red"))
    pipeline.night.order({"kind": "no_room", "times": 3})

    summary = pipeline.run()

    row = pipeline.rows()["a.jpg"]
    assert ("ok", 4, ()) == (row["STATUS"], row["ATTEMPTS"], summary.notes)
    assert ["flex"] * 4 == tiers(pipeline)


def test_patience_ends_at_the_standard_price(make_pipeline: Callable[..., Pipeline]) -> None:
    """When there is no room for too long, the batch goes on, pays in full, and the report says so."""
    pipeline = make_pipeline(FLEX_PATIENCE_S="0.5", OPENAI_CONCURRENCY="2")
    pipeline.land(**numbered(4))
    pipeline.night.order({"kind": "no_room", "times": 1_000, "tier": "flex"})

    summary = pipeline.run()

    assert {"ok": 4} == summary.by_status
    assert "flex was unavailable for 0.5 s: the rest of a batch was asked at the standard price" in summary.notes
    assert 4 == tiers(pipeline).count("default")
    assert tiers(pipeline).count("flex") < 20
    price = find_price(pipeline.settings.openai_model)
    row = next(iter(pipeline.rows().values()))
    assert price.cost_usd(row["INPUT_TOKENS"], row["OUTPUT_TOKENS"]) == pytest.approx(row["COST_USD"])


def test_a_plan_says_that_flex_halves_it(make_pipeline: Callable[..., Pipeline]) -> None:
    """The estimate stays an upper bound, since flex may have no room; the note gives the other figure."""
    pipeline = make_pipeline()
    pipeline.land(a__jpg=paint("red"))

    (note,) = pipeline.run(dry_run=True).notes

    assert note.startswith("half of that, $0.0001")
    assert note.endswith("as far as flex answers")


def test_a_rate_limit_is_no_want_of_room(make_pipeline: Callable[..., Pipeline]) -> None:
    """A plain 429 stays what it is: waited out, and asked again in flex."""
    pipeline = make_pipeline()
    pipeline.land(a__jpg=paint("red"))
    pipeline.night.order({"kind": "rate_limit", "times": 2})

    assert {"ok": 1} == pipeline.run().by_status
    assert ["flex"] * 3 == tiers(pipeline)


def test_want_of_room_that_nobody_asked_for_is_a_failed_try(make_pipeline: Callable[..., Pipeline]) -> None:
    """Online, and after flex was given up, such an answer is tried again as often as any other fault, and no oftener."""
    pipeline = make_pipeline(CAPTION_MODE="online", OPENAI_MAX_ATTEMPTS="2")
    pipeline.land(a__jpg=paint("red"))
    pipeline.night.order({"kind": "no_room", "times": 1_000})

    pipeline.run()

    assert 2 == len(pipeline.night.calls())
    assert "failed" == pipeline.rows()["a.jpg"]["STATUS"]


def test_pauses_grow_by_the_burst() -> None:
    """Requests that are refused together count once; however long it lasts, a pause is a minute at most."""
    gate = flex.FlexGate(1e9)

    assert {flex._FIRST_PAUSE_S} == {gate.note_refusal() for _ in range(8)}
    for _ in range(2_000):
        gate._refused_at = 0.0
        pause_s = gate.note_refusal()
    assert 60 == pause_s


def test_a_model_without_flex_says_what_to_set() -> None:
    """A 400 that names the tier stops the run with the two mends."""
    import httpx2
    import openai

    response = httpx2.Response(400, request=httpx2.Request("POST", "http://127.0.0.1/v1/responses"))
    body: Any = {"code": "unsupported_value", "param": "service_tier", "message": "x"}
    mapped = map_error(openai.BadRequestError("x", response=response, body=body), "some-model")

    assert isinstance(mapped, FatalError)
    assert "CAPTION_MODE=online" in str(mapped)


@pytest.mark.parametrize(
    ("tier", "factor"), [("flex", 0.5), ("default", 1.0), (None, 1.0), ("fast", 2.0), ("new", 1.0)]
)
def test_the_tier_that_served_is_billed(tier: str | None, factor: float) -> None:
    """An answer that flex was asked for and another tier gave is billed as such; an unknown one at the standard price."""
    price = find_price("gpt-6-luna")

    assert price.cost_usd(1000, 100) * factor == pytest.approx(price.at_tier(tier).cost_usd(1000, 100))
