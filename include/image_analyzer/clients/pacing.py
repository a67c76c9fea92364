"""One brake for all requests of a process: at most so many at once, none while the server asked to wait, no faster than it lets.

Tasks of a run share a limit without knowing of one another: every answer says how much of it is left for all of them. Each
steers its own rate so that a tenth is left. Where more is left all speed up alike, where less is left all slow down alike,
and together they come to what the server lets through.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LEFT = 0.1  # share of the limit that is steered for: room for requests that others begin at the same moment
_BRAKE_BELOW = 0.25
_FREE_ABOVE = 0.5
# Where a server tells no limits, the brake comes off at so many times the rate at which it was put on.
_FREE_TIMES = 4.0
_GAIN_PER_S = 0.5
_STEER_EVERY_S = 0.25
_FORESIGHT_S = 7.0  # damps: by the linear theory of this loop a limit for a minute is come to without a swing
_SLOWEST_PER_S = 0.2
_AFTER_REFUSAL = 0.7
_OBSERVED_S = 5.0


class Limit(NamedTuple):
    """What an answer says of one limit, for all who share it.

    Attributes:
        share_left: 0 to 1; None if the size of the limit is not told.
        reset_s: Until it is whole again.
    """

    share_left: float | None
    is_spent: bool
    reset_s: float


def parse_duration(text: str) -> float:
    """Return the seconds of OpenAI's `6m0s`, `1.5s` or `12ms`; 0 if it is none of that."""
    return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(text))


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a server asks to wait; None if it does not say."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * factor)
        except (KeyError, ValueError):
            continue
    return None


def parse_limits(headers: Mapping[str, str]) -> list[Limit]:
    """Return the limits on requests and tokens that the headers of an answer tell of."""
    found = []
    for kind in ("requests", "tokens"):
        left, size = (headers.get(f"x-ratelimit-{word}-{kind}", "") for word in ("remaining", "limit"))
        if left.isdigit():
            share = int(left) / int(size) if size.isdigit() and int(size) else None
            reset_s = parse_duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
            found.append(Limit(share, left == "0", reset_s))
    return found


class Pacer:
    """Holds requests back.

    Args:
        concurrency: Requests under way at once.
    """

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._free_at = 0.0
        self._next_at = 0.0
        self._rate_per_s: float | None = None
        self._braked_from_per_s = 0.0
        self._share_left = _LEFT
        self._steered_at = 0.0
        self._refused_at = 0.0
        self._begun: deque[float] = deque()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a free slot, for the end of a pause and for one's turn, then hold the slot."""
        async with self._slots:
            turn_at = max(time.monotonic(), self._next_at)
            if self._rate_per_s is not None:
                self._next_at = max(turn_at, self._free_at) + 1 / self._rate_per_s
            while (wait_s := max(turn_at, self._free_at) - time.monotonic()) > 0:  # noqa: ASYNC110 - a known time, which may move
                await asyncio.sleep(wait_s)
            self._begun.append(time.monotonic())
            yield

    def pause(self, seconds: float) -> None:
        """Let no request begin for so long; a longer pause that is under way stays."""
        self._free_at = max(self._free_at, time.monotonic() + seconds)

    def refused(self, retry_after_s: float) -> None:
        """Take note of a 429: pause, and go on more slowly. Refusals within a second are one."""
        now = time.monotonic()
        if now - self._refused_at > 1.0:
            self._brake((self._rate_per_s or self._observed_per_s()) * _AFTER_REFUSAL)
            self._refused_at = now
        self.pause(retry_after_s)

    def note(self, headers: Mapping[str, str]) -> None:
        """Steer by what a good answer says is left of the limits."""
        limits = parse_limits(headers)
        for limit in limits:
            if limit.is_spent:  # wait for the tenth to be steered for; for all of it where its size is not told
                self.pause(limit.reset_s * (_LEFT if limit.share_left is not None else 1.0))
        shares = [limit.share_left for limit in limits if limit.share_left is not None]
        self._steer(min(shares, default=None))

    def _steer(self, share_left: float | None) -> None:
        """Change the rate by what is left; where the server does not tell, go faster until it refuses."""
        now = time.monotonic()
        if self._rate_per_s is None:
            if share_left is not None and share_left < _BRAKE_BELOW:
                self._brake(self._observed_per_s())
                self._share_left = share_left
            return
        dt_s = now - self._steered_at
        if dt_s < _STEER_EVERY_S:
            return
        error = 1.0
        if share_left is not None:
            # Where it goes to counts beside where it is: without that, all would swing about the limit for ever.
            slope_per_s = (share_left - self._share_left) / dt_s
            error = max(-2.0, min(2.0, (share_left - _LEFT + _FORESIGHT_S * slope_per_s) / _LEFT))
            self._share_left = share_left
        self._rate_per_s = max(_SLOWEST_PER_S, self._rate_per_s * math.exp(_GAIN_PER_S * error * min(1.0, dt_s)))
        self._steered_at = now
        is_free = (
            self._rate_per_s > _FREE_TIMES * self._braked_from_per_s if share_left is None else share_left > _FREE_ABOVE
        )
        if is_free:
            self._rate_per_s = None

    def _brake(self, rate_per_s: float) -> None:
        self._braked_from_per_s = self._rate_per_s = max(_SLOWEST_PER_S, rate_per_s)
        self._steered_at = time.monotonic()

    def _observed_per_s(self) -> float:
        """Return how many requests began a second, of late."""
        now = time.monotonic()
        while self._begun and now - self._begun[0] > _OBSERVED_S:
            self._begun.popleft()
        if not self._begun:
            return _SLOWEST_PER_S
        return len(self._begun) / max(0.5, now - self._begun[0])
