"""One brake for all requests of a process: at most so many at once, and none while the server asked to wait."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


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


class Pacer:
    """Holds requests back.

    Args:
        concurrency: Requests under way at once.
    """

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._free_at = 0.0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a free slot and for the end of a pause, then hold the slot."""
        async with self._slots:
            while (wait_s := self._free_at - time.monotonic()) > 0:  # noqa: ASYNC110 - a known time, which may move
                await asyncio.sleep(wait_s)
            yield

    def pause(self, seconds: float) -> None:
        """Let no request begin for so long; a longer pause that is under way stays."""
        self._free_at = max(self._free_at, time.monotonic() + seconds)

    def note(self, headers: Mapping[str, str]) -> None:
        """Pause until the limit is renewed where a good answer says that nothing is left of it."""
        for kind in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{kind}") == "0":
                self.pause(parse_duration(headers.get(f"x-ratelimit-reset-{kind}", "")))
