"""Flex: the same requests at half the price, when OpenAI has room; it may answer that it has none, which costs nothing."""

from __future__ import annotations

import logging
import time
from typing import Any

from image_analyzer.errors import RetryableError

log = logging.getLogger(__name__)
FLEX, STANDARD = "flex", "default"
_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0
_ONE_BURST_S = 1.0


class FlexUnavailableError(RetryableError):
    """OpenAI has no room for flex now. Not charged (flex guide, read 2026-11-23)."""


def is_no_room(error: Any) -> bool:
    """Tell a 429 for want of resources from one for too many requests; its code is not documented, its words are."""
    words = f"{error.code} {error.type} {error.message}".lower().replace("_", " ")
    return "resource unavailable" in words


class FlexGate:
    """Which tier the next request asks for: flex, until it has been unavailable for `patience_s` on end.

    After that everything goes on at the standard price: waiting on would cost the night. A new task tries flex again.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._refused_since: float | None = None
        self._refused_at = 0.0
        self._pause_s = 0.0
        self._open = True

    @property
    def tier(self) -> str:
        """Return the tier to ask for."""
        return FLEX if self._open else STANDARD

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what the owner of the bill should know."""
        said = f"flex was unavailable for {self._patience_s:g} s: the rest of a batch was asked at the standard price"
        return () if self._open else (said,)

    def note_refusal(self) -> float:
        """Take note of a refusal; return the seconds to wait before the next request."""
        now = time.monotonic()
        self._refused_since = now if self._refused_since is None else self._refused_since
        if now - self._refused_at > _ONE_BURST_S:  # requests that were under way together are refused together
            self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s or _FIRST_PAUSE_S)
        self._refused_at = now
        left_s = self._refused_since + self._patience_s - now
        if left_s <= 0 and self._open:
            self._open = False
            log.warning("%s", self.notes[0])
        return max(0.0, min(self._pause_s, left_s))

    def note_success(self) -> None:
        """Take note that flex has answered."""
        self._refused_since, self._pause_s = None, 0.0
