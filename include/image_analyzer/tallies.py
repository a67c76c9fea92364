"""Counts what the rows of a run say of their captions, batch by batch, in memory that does not grow with the rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Container, Iterable
from statistics import quantiles

from image_analyzer.records import Origin
from image_analyzer.reports import Tally
from image_analyzer.table import ResultRow

# Quantiles of so many latencies are those of all within a percent or two; a run of a million rows keeps no more.
_SAMPLE = 10_000


class TallyKeeper:
    """A tally that rows are added to."""

    def __init__(self) -> None:
        self._origins: Counter[str] = Counter()
        self._violations: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._slowest_s = 0.0
        self._seen = 0
        self._random = random.Random(0)  # noqa: S311 - a sample, no secret

    def add(self, rows: Iterable[ResultRow], asked_now: Container[tuple[str, str]]) -> None:
        """Count some rows.

        Args:
            asked_now: Address and language of those whose answer this run paid for, or got from who asks no fee; what others
                say of their answer is an earlier run's.
        """
        for row in rows:
            if row.caption_origin:
                self._origins[str(row.caption_origin)] += 1
            if row.caption_origin is Origin.MODEL and (row.image_uri, row.language) in asked_now:
                self._violations.update(row.violations or ())
                if row.latency_s:
                    self._keep(row.latency_s)

    def tally(self) -> Tally:
        """Return what was counted."""
        latency_s = {}
        if self._latencies:
            cuts = quantiles(self._latencies, n=20, method="inclusive") if self._seen > 1 else self._latencies * 19
            latency_s = {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3), "max": self._slowest_s}
        return Tally(by_origin=dict(self._origins), by_violation=dict(self._violations), latency_s=latency_s)

    def _keep(self, latency_s: float) -> None:
        """Keep a uniform sample. Source: Vitter's Algorithm R, 1985."""
        self._seen += 1
        self._slowest_s = max(self._slowest_s, latency_s)
        if len(self._latencies) < _SAMPLE:
            self._latencies.append(latency_s)
        elif (place := self._random.randrange(self._seen)) < _SAMPLE:
            self._latencies[place] = latency_s
