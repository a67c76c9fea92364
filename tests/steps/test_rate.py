"""One rate limit, several workers that know nothing of one another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Night, paint

from image_analyzer import wiring
from image_analyzer.clients import pacing
from image_analyzer.clients.pacing import Limit, Pacer, parse_limits
from image_analyzer.local.stack import control_openai
from image_analyzer.prompts import CaptionRequest
from image_analyzer.steps.asking import make_key


def ask(night: Night, worker: int, count: int) -> int:
    """Ask for captions of as many contents as a worker of its own would; return how many were answered."""

    async def run() -> int:
        captioner = wiring.make_captioner(night.settings())
        slots = asyncio.Semaphore(8)

        async def one(number: int) -> None:
            async with slots:
                thumbnail = paint("red", size=(40 + number, 40 + worker))
                await captioner.caption(
                    CaptionRequest(key=make_key(f"{worker}-{number}", "en", captioner), thumbnail=thumbnail)
                )

        outcomes = await asyncio.gather(*(one(number) for number in range(count)), return_exceptions=True)
        await captioner.aclose()
        return sum(outcome is None for outcome in outcomes)

    return asyncio.run(run())


@pytest.mark.parametrize("limits", [{"requests": [1200, 120]}, {"tokens": [300_000, 30_000]}])
def test_workers_share_a_limit(make_night: Callable[..., Night], limits: dict[str, Any]) -> None:
    """Four workers ask for far more than is left: all is answered, and hardly a request is refused on the way."""
    night = make_night(OPENAI_MAX_ATTEMPTS="2")
    control_openai(night.base_url, "reset", {"latency_s": 0.05, "limits": limits})

    with ThreadPoolExecutor(4) as pool:
        answered = list(pool.map(lambda worker: ask(night, worker, 60), range(4)))

    refused = sum(call["fault"] == "limited" for call in night.calls())
    assert [60] * 4 == answered
    assert refused < 60


def test_being_told_to_wait_is_no_failed_try(night: Night) -> None:
    """A request that is refused again and again is answered once there is room, though it has one try only."""
    night.order({"kind": "rate_limit", "times": 12, "retry_after": 0.05})

    assert 3 == ask(night, 0, 3)


def test_limits_are_read_from_headers() -> None:
    """Requests and tokens, each with the share that is left; junk is passed over."""
    headers = {
        "x-ratelimit-limit-requests": "5000", "x-ratelimit-remaining-requests": "500", "x-ratelimit-reset-requests": "54s",
        "x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m0s",
    }  # fmt: skip

    assert [Limit(0.1, False, 54.0), Limit(0.0, True, 60.0)] == parse_limits(headers)
    assert [Limit(None, True, 0.0)] == parse_limits({"x-ratelimit-remaining-tokens": "0"})
    assert [] == parse_limits({"x-ratelimit-remaining-tokens": "many"})


class Clock:
    """Time that passes when a test says so; it stands in for `time.monotonic`."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that the pacer looks at."""
    clock = Clock()
    monkeypatch.setattr(pacing, "time", clock)
    return clock


def simulate(clock: Clock, workers: list[Pacer], headers: Callable[[], dict[str, str]], seconds: float) -> list[float]:
    """Let each worker begin as many requests as its rate allows; return how many each began a second, at the end."""
    began = [0] * len(workers)
    due = [clock.now] * len(workers)
    end_at = clock.now + seconds
    while clock.now < end_at:
        clock.now += 0.01
        for index, pacer in enumerate(workers):
            if clock.now >= due[index] and clock.now >= pacer._free_at:
                due[index] = clock.now + 1 / (pacer._rate_per_s or 100.0)
                pacer._begun.append(clock.now)
                pacer.note(headers())
                if clock.now > end_at - 10:
                    began[index] += 1
    return [count / 10 for count in began]


@pytest.mark.parametrize("count", [1, 4, 16])
def test_workers_come_to_the_limit_and_stay_there(clock: Clock, count: int) -> None:
    """Simulated workers, a tenth of 1,200 a minute left: after two minutes 20 a second go through, never an empty bucket."""
    left, at = 120.0, clock.now
    lowest = 1200.0

    def headers() -> dict[str, str]:
        nonlocal left, at, lowest
        left, at = min(1200.0, left + (clock.now - at) * 20) - 1, clock.now
        lowest = min(lowest, left) if clock.now > 1_060 else lowest
        return {
            "x-ratelimit-limit-requests": "1200",
            "x-ratelimit-remaining-requests": str(max(0, int(left))),
            "x-ratelimit-reset-requests": f"{(1200 - left) / 20:.3f}s",
        }

    workers = [Pacer(8) for _ in range(count)]
    rates = simulate(clock, workers, headers, 120)

    assert 18 <= sum(rates) <= 22
    assert lowest > 20


def test_after_a_storm_the_brake_comes_off(clock: Clock) -> None:
    """A server that tells no limits refuses for a while: the rate falls, and is free again a little later."""
    pacer = Pacer(8)
    simulate(clock, [pacer], dict, 5)
    for _ in range(5):
        clock.now += 2
        pacer.refused(0.1)
    braked = pacer._rate_per_s

    (rate,) = simulate(clock, [pacer], dict, 60)

    assert braked is not None
    assert braked < 50
    assert rate > 90
    assert pacer._rate_per_s is None
