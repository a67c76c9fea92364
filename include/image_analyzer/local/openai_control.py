"""What tests order from the OpenAI test server, and what arrived there."""

from __future__ import annotations

import time
from typing import Any

API_KEY = "sk-local-test-server"
FAULTS = (
    "rate_limit", "insufficient_quota", "server_error", "timeout", "drop_connection", "junk_body", "junk_shape", "invalid_key",
    "model_gone", "content_policy", "refusal", "truncated_json", "two_sentences", "too_long", "wrong_language",
    "decorative", "say", "say_raw", "image_lost", "no_room", "drop_midway",
    "batch_invalid", "batch_queue_full", "batch_expired", "batch_slow", "batch_reply_lost",
)  # fmt: skip
_KEPT_CALLS = 20_000


class Bucket:
    """A limit per minute, as OpenAI keeps it: refilled all the time, full after a minute of rest. The first request starts it."""

    def __init__(self, per_minute: int, left: float) -> None:
        self.size, self._left = per_minute, left
        self._at: float | None = None

    def lacks_s(self, amount: float) -> float:
        """Return the seconds until so much is there."""
        now = time.monotonic()
        self._left = min(self.size, self._left + (now - (self._at or now)) * self.size / 60)
        self._at = now
        return max(0.0, (amount - self._left) * 60 / self.size)

    def take(self, amount: float) -> None:
        """Take what is there."""
        self._left -= amount

    def headers(self, kind: str) -> dict[str, str]:
        """Return the headers of this limit."""
        return {
            f"x-ratelimit-limit-{kind}": str(self.size),
            f"x-ratelimit-remaining-{kind}": str(max(0, int(self._left))),
            f"x-ratelimit-reset-{kind}": f"{(self.size - self._left) * 60_000 / self.size:.0f}ms",
        }


class Control:
    """What the tests ordered and what arrived.

    Attributes:
        faults: Orders `{"kind", "times", ...}`, served first come first; `language`, `image_sha256` or `tier` narrow one down,
            `once_per_image` serves it to no picture twice.
            `say` answers with the caption in `text`, `say_raw` with `text` as the whole output.
            `batch_invalid` and `batch_queue_full` fail a job; `batch_expired` ends it after `done` requests; `batch_slow` lets it
            stand still after `done` requests until it is cancelled; with `batch_reply_lost` it begins, and nobody hears of it.
        calls: One dict per request to the API; `billed` if it was charged for.
        batch_s: How long a job takes.
        latency_s: Pause before each answer.
        limits: By kind, `requests` and `tokens`; empty for none.
    """

    def __init__(self) -> None:
        self.faults: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.latency_s = 0.0
        self.batch_s = 0.0
        self.limits: dict[str, Bucket] = {}
        self.in_flight = 0
        self.most_in_flight = 0

    def keep(self, call: dict[str, Any]) -> None:
        """Write a call down."""
        self.calls.append(call)
        del self.calls[:-_KEPT_CALLS]

    def take(self, wanted: dict[str, float]) -> float:
        """Take what a request needs of the limits; return the seconds until there is so much if there is not."""
        lacks_s = max((bucket.lacks_s(wanted[kind]) for kind, bucket in self.limits.items()), default=0.0)
        if not lacks_s:
            for kind, bucket in self.limits.items():
                bucket.take(wanted[kind])
        return lacks_s

    def limit_headers(self) -> dict[str, str]:
        """Return the headers that tell what is left."""
        return {name: value for kind, bucket in self.limits.items() for name, value in bucket.headers(kind).items()}

    def next_batch_fault(self) -> dict[str, Any]:
        """Take one order for a whole job; empty if there is none."""
        for order in self.faults:
            if order["times"] > 0 and order["kind"].startswith("batch_"):
                order["times"] -= 1
                return order
        return {}

    def next_fault(self, call: dict[str, Any]) -> dict[str, Any] | None:
        """Take one order that fits this call."""
        for order in self.faults:
            if order["kind"].startswith("batch_"):
                continue
            language = order.get("language") in (None, call["language"], *call["languages"])
            fits = language and order.get("image_sha256") in (None, call["image_sha256"])
            seen = order.setdefault("seen", [])
            again = bool(order.get("once_per_image")) and call["image_sha256"] in seen
            if order["times"] > 0 and fits and not again and order.get("tier") in (None, call["tier"]):
                order["times"] -= 1
                seen.append(call["image_sha256"])
                return order
        return None


control = Control()
