"""What a run says of itself in numbers, for dashboards and alerts. Pure: whoever runs it sends them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from image_analyzer.guardrails.violations import Code
from image_analyzer.records import ErrorCode, Origin, Status
from image_analyzer.reports import RunReport

PREFIX = "image_analyzer.run."


class Gauge(NamedTuple):
    """One number with its tags, in the unit that its name ends with; a count if it ends with none."""

    name: str
    value: float
    tags: dict[str, str]


def make_gauges(report: RunReport, ended_at: float) -> list[Gauge]:
    """Return the last run as gauges, not counters: a run is counted once, by one short process, which keeps no sums.

    Statuses, codes and origins of which there are none are sent as 0: a gauge that is not sent again keeps its last value.

    Args:
        ended_at: Seconds since 1970.
    """
    merged = report.merge
    single = {
        "listed_objects": report.listed,
        "images": report.images,
        "rows_changed": merged.inserted + merged.updated if merged else 0,
        "problems": len(report.problems),
        "requests": report.calls,
        "cost_usd": report.cost_usd,
        "ended_at_s": ended_at,
    }
    statuses, errors = Counter[str](), Counter[str]()
    for word, count in report.by_status.items():
        status, _, code = word.partition(":")
        statuses[status] += count
        if code:
            errors[code] += count
    tally = report.tally
    return [
        *(Gauge(PREFIX + name, value, {}) for name, value in single.items()),
        *_by("rows", "status", Status, statuses),
        *_by("errors", "code", ErrorCode, errors),
        *_by("captions", "origin", Origin, tally.by_origin),
        *_by("violations", "code", Code, tally.by_violation),
        *_by("latency_s", "quantile", ("p50", "p95", "max"), tally.latency_s),
        *_by("step_seconds", "step", ("prepare", "hint", "caption"), report.seconds_by_step),
    ]


def make_gauges_without_plan(ended_at: float) -> list[Gauge]:
    """Return what can be told of a run that failed before it knew what there was to do: that it is red, and when."""
    return [Gauge(PREFIX + "problems", 1, {}), Gauge(PREFIX + "ended_at_s", ended_at, {})]


def _by(name: str, tag: str, words: Iterable[str | StrEnum], values: Mapping[str, float]) -> Iterator[Gauge]:
    """Yield one gauge for each word, and for any other that has a value."""
    for word in dict.fromkeys([*map(str, words), *values]):
        yield Gauge(PREFIX + name, values.get(word, 0), {tag: word})
