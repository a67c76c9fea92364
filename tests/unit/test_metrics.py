"""The numbers of a run, and that the dashboard shows them."""

from __future__ import annotations

import json
import re

from image_analyzer.metrics import PREFIX, make_gauges
from image_analyzer.records import Origin
from image_analyzer.reports import MergeReport, RunReport, Tally
from image_analyzer.settings import PROJECT_ROOT
from image_analyzer.table import ResultRow
from image_analyzer.tallies import TallyKeeper

REPORT = RunReport(
    run_id="r", listed=9, images=4, batches=1, calls=3, cost_usd=0.25, seconds_by_step={"prepare": 1.5}, contact_sheet_uri="",
    merge=MergeReport(staged=4, inserted=2, updated=1), problems=("one",), notes=(),
    by_status={"ok": 2, "failed:corrupt": 1, "failed:empty_file": 1},
    tally=Tally(by_origin={"model": 2}, by_violation={"hedge": 1}, latency_s={"p50": 0.5, "p95": 0.9, "max": 1.0}),
)  # fmt: skip


NOW = {("now", "en")}


def row(uri: str = "now", **columns: object) -> ResultRow:
    """Make a row of which only these columns matter."""
    return ResultRow.model_construct(image_uri=uri, language="en", **columns)  # type: ignore[arg-type]


def test_the_numbers_of_a_run() -> None:
    """Each is there with its tags; what did not happen is 0, or it would stay what it was the night before."""
    gauges = {
        (gauge.name.removeprefix(PREFIX), *gauge.tags.values()): gauge.value for gauge in make_gauges(REPORT, 7.0)
    }

    assert (9, 4, 3, 1, 3, 0.25, 7.0) == tuple(
        gauges[name,] for name in ("listed_objects", "images", "rows_changed", "problems", "requests", "cost_usd", "ended_at_s")
    )  # fmt: skip
    assert (2, 2, 0) == tuple(gauges["rows", status] for status in ("ok", "failed", "pending"))
    assert (1, 1, 0) == tuple(gauges["errors", code] for code in ("corrupt", "empty_file", "truncated"))
    assert (2, 0, 1, 0) == tuple(gauges["captions", origin] for origin in ("model", "person")) + tuple(
        gauges["violations", code] for code in ("hedge", "age")
    )
    assert (0.9, 1.5, 0) == (
        gauges["latency_s", "p95"],
        gauges["step_seconds", "prepare"],
        gauges["step_seconds", "hint"],
    )


def test_the_dashboard_shows_every_number_and_no_other() -> None:
    """A metric that is renamed, or forgotten, is found."""
    text = (PROJECT_ROOT / "include" / "grafana" / "dashboard.json").read_text()
    shown = {
        name
        for panel in json.loads(text)["panels"]
        for target in panel["targets"]
        for name in re.findall(r"airflow_(image_analyzer_run_\w+)", target["expr"])
    }

    assert {gauge.name.replace(".", "_") for gauge in make_gauges(REPORT, 0.0)} == shown


def test_a_tally_counts_what_was_asked_for_and_keeps_quantiles_of_many() -> None:
    """Captions of another row or run have an origin and no latency here.

    A hundred thousand latencies are told by a sample, the slowest exactly.
    """
    keeper = TallyKeeper()
    keeper.add([row(caption_origin=Origin.REUSED, violations=["age"], latency_s=None), row(caption_origin=None)], NOW)
    keeper.add([row("before", caption_origin=Origin.MODEL, violations=["age"], latency_s=9.0)], NOW)
    assert Tally(by_origin={"reused": 1, "model": 1}) == keeper.tally()
    keeper.add([row(caption_origin=Origin.MODEL, violations=["hedge"], latency_s=2.0)], NOW)
    assert {"p50": 2.0, "p95": 2.0, "max": 2.0} == keeper.tally().latency_s
    keeper.add(
        (row(caption_origin=Origin.MODEL, violations=None, latency_s=n / 100_000) for n in range(1, 100_001)), NOW
    )

    tally = keeper.tally()
    assert ({"reused": 1, "model": 100_002}, {"hedge": 1}) == (tally.by_origin, tally.by_violation)
    assert abs(tally.latency_s["p50"] - 0.5) < 0.02
    assert abs(tally.latency_s["p95"] - 0.95) < 0.02
    assert tally.latency_s["max"] == 2.0
