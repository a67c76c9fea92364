"""Joins what the steps left of each batch and MERGEs it, also of batches that failed half-way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from image_analyzer.ports import ObjectStore, Warehouse
from image_analyzer.records import PIPELINE_FAULTS, Plan
from image_analyzer.reports import MergeOutcome, MergeReport
from image_analyzer.results import count_by_status, make_rows
from image_analyzer.steps.batchfiles import BatchFiles
from image_analyzer.table import ResultRow
from image_analyzer.tallies import TallyKeeper


class BatchRows(NamedTuple):
    """What a batch came to.

    Attributes:
        rows: One for every object and language, from whatever files its steps wrote.
        asked_now: Address and language of those whose caption this run asked for.
    """

    rows: list[ResultRow]
    asked_now: set[tuple[str, str]]


def read_batch(store: ObjectStore, manifest_uri: str) -> BatchRows:
    """Read what the steps of a batch wrote."""
    files = BatchFiles(store, manifest_uri)
    manifest, hints, captions = files.manifest(), files.hints(), files.captions()
    rows = make_rows(manifest, files.metadata(), hints.hints if hints else (), captions, hints.model if hints else None)
    asked = {(one.uri, one.language) for one in captions if one.receipt and one.receipt.run_id == manifest.run_id}
    return BatchRows(rows, asked)


def merge(store: ObjectStore, warehouse: Warehouse, plan: Plan) -> MergeOutcome:
    """Write the run's rows into IMAGE_RESULTS. A run without batches does not open a connection."""
    by_status: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    keeper = TallyKeeper()

    def batches() -> Iterator[list[ResultRow]]:
        for batch in plan.batches:
            rows, asked_now = read_batch(store, batch.uri)
            by_status.update(count_by_status(rows))
            keeper.add(rows, asked_now)
            faults.update(str(row.error_code) for row in rows if row.error_code in PIPELINE_FAULTS)
            yield rows

    if not plan.batches or plan.dry_run:
        return MergeOutcome(report=MergeReport(staged=0, inserted=0, updated=0), by_status={}, pipeline_faults={})
    report = warehouse.merge(batches())
    return MergeOutcome(report=report, by_status=dict(by_status), pipeline_faults=dict(faults), tally=keeper.tally())
