"""Checks in the warehouse what a run wrote."""

from __future__ import annotations

from image_analyzer.errors import QualityError
from image_analyzer.ports import Warehouse
from image_analyzer.reports import CheckOutcome


def check(warehouse: Warehouse, run_id: str) -> list[CheckOutcome]:
    """Run every check on this run's rows.

    Raises:
        QualityError: Names the checks and the rows they found. The data stay.
    """
    outcomes = warehouse.check(run_id)
    bad = [outcome for outcome in outcomes if outcome.offending]
    if bad:
        found = "; ".join(f"{outcome.name}: {', '.join(outcome.offending)}" for outcome in bad)
        raise QualityError(f"{len(bad)} of {len(outcomes)} checks found rows: {found}")
    return outcomes
