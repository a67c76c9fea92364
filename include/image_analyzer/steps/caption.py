"""Writes the captions of a batch: what is to be asked, what is known, what came of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from image_analyzer.captions import add_usage, renew
from image_analyzer.errors import BudgetExceededError, ImageAnalyzerError
from image_analyzer.hints import strong_label
from image_analyzer.ports import Captioner, ObjectStore, Warehouse
from image_analyzer.records import (
    CaptionRow,
    ContentKey,
    ErrorCode,
    ImageMetadata,
    Manifest,
    Receipt,
    Status,
    Steps,
    Usage,
)
from image_analyzer.reports import BatchReport
from image_analyzer.steps.asking import Asking, CaptionOptions, Question, make_key
from image_analyzer.steps.batchfiles import CAPTIONS, BatchFiles
from image_analyzer.steps.jobfiles import Adopter, JobFiles, job_notes
from image_analyzer.steps.ledger import Ledger
from image_analyzer.steps.proving import Proof, fly_canaries, prove_sight
from image_analyzer.thumbnails import read_pack


def caption(
    store: ObjectStore,
    warehouse: Warehouse | None,
    ledger: Ledger,
    manifest_uri: str,
    captioner: Captioner,
    options: CaptionOptions,
    adopter: Adopter | None = None,
) -> BatchReport:
    """Write the captions of a batch, whatever happens; then say what went wrong.

    What the batch's own jobs have answered is used; what they left open is asked now.

    Args:
        adopter: Lands a job of another batch; None where there is no such service.
        warehouse: Where merged captions are looked up; None to look into the ledger only.
        ledger: Where answers are kept; a captioner that costs nothing needs none.

    Raises:
        RetryableError: Some pictures have no answer yet; another try asks for these only.
        FatalError: Asking ended early; what was not asked is `pending`.
    """
    started = time.monotonic()
    files = BatchFiles(store, manifest_uri)
    manifest = files.manifest()
    metadata = sound_pictures(files, manifest)
    questions = make_questions(files, manifest, captioner, options.hint_min_score)
    receipts = find_known(warehouse, questions, of_any_model=not captioner.paid)
    open_questions = [q for q in questions if q.key not in receipts]
    thumbnails = dict(read_pack(files.thumbnails())) if questions else {}
    jobs = JobFiles(store, manifest_uri)
    landed = jobs.answers() if captioner.paid and open_questions else {}
    own_ledger = ledger if captioner.paid else None
    asking = Asking(captioner, own_ledger, thumbnails, options, manifest, landed=landed, adopter=adopter)
    proof = asyncio.run(_ask(store, manifest_uri, manifest, captioner, asking, open_questions))
    receipts |= asking.receipts

    rows = list(_make_rows(manifest, metadata, receipts, asking, captioner))
    files.write_lines(CAPTIONS, rows)
    problem = asking.problem()
    counts = Counter(_outcome(row) for row in rows)
    # What this run paid for this batch, by this try of the task or by an earlier one.
    mine = {entry.object.uri for entry in manifest.entries}
    paid = [r for r in receipts.values() if captioner.paid and r.run_id == manifest.run_id and r.paid_by_uri in mine]
    counts |= {"known": len(receipts) - len(asking.receipts), "settled": len(asking.receipts)}
    report = BatchReport(
        batch_id=manifest.batch_id,
        step="caption",
        counts=dict(counts),
        seconds=round(time.monotonic() - started, 3),
        cost_usd=round(sum(r.usage.cost_usd or 0.0 for r in paid) + (proof.usage.cost_usd or 0.0), 8),
        calls=sum(receipt.usage.attempts for receipt in paid) + proof.usage.attempts,
        notes=(*dict.fromkeys(str(error) for error in asking.waiting.values()), *captioner.notes, *job_notes(jobs)),
        problems=(*proof.problems, *_words(problem)),
    )
    files.write_report(report)
    if problem is not None:
        raise problem
    return report


async def _ask(
    store: ObjectStore,
    manifest_uri: str,
    manifest: Manifest,
    captioner: Captioner,
    asking: Asking,
    questions: Sequence[Question],
) -> Proof:
    """Ask all questions, after the server has shown that it sees; return what test pictures cost and showed."""
    seen, flown = Usage(), Proof(asked_by=manifest_uri)
    try:
        if questions and captioner.paid:
            seen = await prove_sight(store, manifest_uri, captioner)
            if manifest.canaries:
                flown = await fly_canaries(store, manifest_uri, captioner, questions[0].key.language)
    except BudgetExceededError as error:
        asking.wait_for_budget(error)
    except ImageAnalyzerError as error:
        asking.give_up(error)
    await asking.ask_all(questions)
    return flown.model_copy(update={"usage": add_usage(seen, flown.usage)})


def _words(problem: Exception | None) -> tuple[str, ...]:
    """Return what a report says of a problem; of one that is not ours the kind only: its text may quote anything."""
    if problem is None:
        return ()
    return (str(problem) if isinstance(problem, ImageAnalyzerError) else f"caption: {type(problem).__name__}",)


def _outcome(row: CaptionRow) -> str:
    """Return the word under which a row is counted."""
    if row.receipt is None or row.receipt.caption is None:
        return str(row.error_code or Status.NEEDS_REVIEW)
    return Status.OK if row.receipt.caption else Status.DECORATIVE


def sound_pictures(files: BatchFiles, manifest: Manifest) -> list[ImageMetadata]:
    """Return the pictures of a batch that are to be captioned."""
    if manifest.steps is not Steps.CAPTIONS:
        return []
    return [row for row in files.metadata() if row.error_code is None]


def find_known(
    warehouse: Warehouse | None, questions: Sequence[Question], *, of_any_model: bool = False
) -> dict[ContentKey, Receipt]:
    """Return what is already there and the policy of today lets pass.

    Args:
        of_any_model: For who writes stand-ins: any model's answer is better.
    """
    keys = [question.key for question in questions]
    known = warehouse.select_receipts(keys, of_any_model=of_any_model) if warehouse else {}
    return {key: receipt for key, found in known.items() if (receipt := renew(found)) is not None}


def make_questions(
    files: BatchFiles, manifest: Manifest, captioner: Captioner, hint_min_score: float
) -> list[Question]:
    """Return one question per content and language; the first address in the manifest pays."""
    metadata = sound_pictures(files, manifest)
    languages = {entry.object.uri: entry.languages for entry in manifest.entries}
    hint_file = files.hints() if metadata else None
    hints = {hint.sha256: hint for hint in hint_file.hints} if hint_file else {}
    questions: dict[ContentKey, Question] = {}
    for row in metadata:
        label = strong_label(hints.get(row.sha256 or ""), hint_min_score)
        for language in languages[row.uri]:
            key = make_key(row.sha256 or "", language, captioner)
            questions.setdefault(key, Question(key, row.uri, label))
    return list(questions.values())


def _make_rows(
    manifest: Manifest,
    metadata: Sequence[ImageMetadata],
    receipts: Mapping[ContentKey, Receipt],
    asking: Asking,
    captioner: Captioner,
) -> Iterator[CaptionRow]:
    languages = {entry.object.uri: entry.languages for entry in manifest.entries}
    for row in metadata:
        for language in languages[row.uri]:
            key = make_key(row.sha256 or "", language, captioner)
            if key in receipts:
                yield CaptionRow(uri=row.uri, language=language, receipt=receipts[key])
                continue
            if key in asking.failures:
                code, message = ErrorCode.CAPTION_UNAVAILABLE, str(asking.failures[key])
            elif key in asking.elsewhere:
                code, message = ErrorCode.ASKED_ELSEWHERE, asking.elsewhere[key]
            elif key in asking.waiting:
                code, message = ErrorCode.BUDGET_SPENT, f"{asking.waiting[key]}; the next run asks"
            else:
                code, message = ErrorCode.NOT_CAPTIONED, "asking ended before this picture; the next run asks"
            yield CaptionRow(uri=row.uri, language=language, error_code=code, error_message=message)
