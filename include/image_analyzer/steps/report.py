"""Sums up a run for people, and says whether it is red."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence

from image_analyzer.contactsheet import SHEET_LIMIT, render_sheet
from image_analyzer.errors import QualityError
from image_analyzer.ports import ObjectStore, Warehouse
from image_analyzer.records import ErrorCode, Plan
from image_analyzer.reports import BatchReport, MergeOutcome, RunReport, Tally
from image_analyzer.steps.batchfiles import STEP_NAMES, BatchFiles
from image_analyzer.steps.runpages import REPORT_FILE, SHEET_FILE, read_cards
from image_analyzer.workarea import WorkArea

log = logging.getLogger(__name__)


def report(
    store: ObjectStore,
    warehouse: Warehouse,
    work: WorkArea,
    plan: Plan,
    outcome: MergeOutcome | None,
    *,
    check_passed: bool,
) -> RunReport:
    """Write `report.json` and the contact sheet of a run; a night without new pictures writes neither.

    Args:
        outcome: None if the merge did not end.
    """
    step_reports = {batch.batch_id: BatchFiles(store, batch.uri).reports() for batch in plan.batches}
    everything = [one for reports in step_reports.values() for one in reports]
    seconds: Counter[str] = Counter()
    for one in everything:
        seconds[one.step] += one.seconds  # type: ignore[assignment]
    summary = RunReport(
        run_id=plan.run_id,
        listed=plan.listed,
        images=plan.images,
        batches=len(plan.batches),
        merge=outcome.report if outcome else None,
        by_status=outcome.by_status if outcome else {},
        calls=sum(one.calls for one in everything),
        cost_usd=round(sum(one.cost_usd for one in everything), 8),
        seconds_by_step={step: round(value, 2) for step, value in seconds.items()},
        problems=tuple(dict.fromkeys(_problems(plan, step_reports, outcome, check_passed=check_passed))),
        notes=tuple(dict.fromkeys(_notes(plan, everything, outcome))),
        tally=outcome.tally if outcome else Tally(),
    )
    if plan.batches and not plan.dry_run:
        if outcome is not None:
            summary = summary.model_copy(update={"contact_sheet_uri": _write_sheet(store, warehouse, work, summary)})
        store.write(work.run_uri(plan.run_id, REPORT_FILE), summary.model_dump_json().encode(), "application/json")
    log.info("report: %s", summary.model_dump_json())
    return summary


def raise_if_red(summary: RunReport) -> None:
    """Raise what is wrong with the run as a whole.

    Raises:
        QualityError: Lists the problems.
    """
    if summary.problems:
        raise QualityError("; ".join(summary.problems))


def _notes(plan: Plan, reports: Sequence[BatchReport], outcome: MergeOutcome | None) -> Iterator[str]:
    """Yield what people should know although it makes no run red."""
    yield from plan.notes
    for one in reports:
        yield from one.notes
    waiting = sum(one.counts.get(ErrorCode.BUDGET_SPENT, 0) for one in reports)
    if waiting:
        each_usd = (plan.estimated_cost_usd or 0.0) / max(1, plan.captions)
        then = "give the order again" if plan.reprocess else "the next run asks for them"
        yield f"{waiting} captions wait for budget, at most ${waiting * each_usd:.4f}; {then}"
    for flag, count in (outcome.report.flagged if outcome else {}).items():
        yield f"{count} rows are flagged {flag}: look at them (column FLAGS)"


def _problems(
    plan: Plan, step_reports: dict[str, list[BatchReport]], outcome: MergeOutcome | None, *, check_passed: bool
) -> list[str]:
    """Return what the pipeline, not a picture, did wrong."""
    if not plan.batches or plan.dry_run:
        return []
    problems = []
    for batch_id, reports in step_reports.items():
        missing = [step for step in STEP_NAMES if step not in {one.step for one in reports}]
        if missing:
            problems.append(f"{batch_id}: {missing[0]} did not end")
        problems += [problem for one in reports for problem in one.problems]
    if outcome is None:
        problems.append("the results were not merged; the files of the run are kept, clear `merge` to try again")
    else:
        problems += [f"{count} rows are {code}" for code, count in sorted(outcome.pipeline_faults.items())]
    if outcome is not None and not check_passed:
        problems.append("checks found rows that break a promise, or did not run; see the log of `check`")
    return problems


def _write_sheet(store: ObjectStore, warehouse: Warehouse, work: WorkArea, summary: RunReport) -> str:
    """Write the contact sheet of the rows this run wrote, the newest first, up to a limit."""
    rows = warehouse.select_results(SHEET_LIMIT, {"run_id": summary.run_id})
    cards = read_cards(store, rows)
    uri = work.run_uri(summary.run_id, SHEET_FILE)
    store.write(uri, render_sheet(summary, cards).encode(), "text/html; charset=utf-8")
    return uri
