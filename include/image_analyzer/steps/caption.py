"""Asks for the captions of a batch, each content once, and stores every answer the moment it arrives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from image_analyzer.captions import (
    PROMPT_VERSION,
    CaptionRequest,
    Payer,
    add_usage,
    judge,
    make_receipt,
    rejected_receipt,
)
from image_analyzer.errors import FatalError, ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.hints import strong_label
from image_analyzer.keys import ledger_path
from image_analyzer.ports import Captioner, ObjectStore, Warehouse
from image_analyzer.records import (
    BatchReport,
    CaptionRow,
    ContentKey,
    ErrorCode,
    ImageMetadata,
    Manifest,
    Receipt,
    Record,
    Steps,
)
from image_analyzer.steps.batchfiles import CAPTIONS, BatchFiles, with_progress
from image_analyzer.thumbnails import read_pack
from image_analyzer.workarea import WorkArea

log = logging.getLogger(__name__)
_LEDGER_THREADS = 16


class CaptionOptions(Record):
    """How captions are asked for.

    Attributes:
        give_up_after: So many failures in a row without one answer end the step: the server is down.
    """

    hint_min_score: float
    concurrency: int
    give_up_after: int = 20


class Question(NamedTuple):
    """One content to be captioned, and the address that pays for it."""

    key: ContentKey
    paid_by_uri: str
    hint: str | None


class Ledger:
    """Receipts by content key, one small file each, written before anything else happens with an answer."""

    def __init__(self, store: ObjectStore, work: WorkArea) -> None:
        self._store, self._work = store, work

    def find(self, keys: Iterable[ContentKey]) -> dict[ContentKey, Receipt]:
        """Return the receipts that exist."""
        keys = list(keys)
        with ThreadPoolExecutor(_LEDGER_THREADS, thread_name_prefix="ledger") as pool:
            contents = pool.map(lambda key: self._store.read(self._uri(key)), keys)
            return {k: Receipt.model_validate_json(c) for k, c in zip(keys, contents, strict=True) if c is not None}

    def store(self, receipt: Receipt) -> None:
        """Keep a receipt."""
        self._store.write(self._uri(receipt.key), receipt.model_dump_json().encode(), "application/json")

    def _uri(self, key: ContentKey) -> str:
        return self._work.ledger_uri(ledger_path(key))


def caption(
    store: ObjectStore,
    warehouse: Warehouse | None,
    ledger: Ledger,
    manifest_uri: str,
    captioner: Captioner,
    options: CaptionOptions,
) -> BatchReport:
    """Write the captions of a batch, whatever happens; then say what went wrong.

    Args:
        warehouse: Where merged captions are looked up; None to look into the ledger only.
        ledger: Where answers are kept; a captioner that costs nothing needs none.

    Raises:
        RetryableError: Some pictures have no answer yet; another try asks for these only.
        FatalError: Asking ended early; what was not asked is `pending`.
    """
    started = time.monotonic()
    files = BatchFiles(store, manifest_uri)
    manifest = files.manifest()
    metadata = [row for row in files.metadata() if row.error_code is None]
    if manifest.steps is not Steps.CAPTIONS:
        metadata = []
    questions = _make_questions(manifest, metadata, files, captioner, options)
    receipts = _find_known(warehouse, ledger, questions) if captioner.paid else {}
    thumbnails = dict(read_pack(files.thumbnails() or b"")) if questions else {}
    asking = _Asking(captioner, ledger if captioner.paid else None, thumbnails, options, manifest.run_id)
    open_questions = [q for q in questions if q.key not in receipts]
    asyncio.run(asking.ask_all(open_questions, manifest.batch_id))
    receipts |= asking.receipts

    rows = list(_make_rows(manifest, metadata, receipts, asking.failures, captioner))
    files.write_lines(CAPTIONS, rows)
    counts = Counter("ok" if r.receipt and r.receipt.caption else str(r.error_code or "needs_review") for r in rows)
    # What this run paid for this batch, by this try of the task or by an earlier one.
    mine = {entry.object.uri for entry in manifest.entries}
    paid = [r for r in receipts.values() if captioner.paid and r.run_id == manifest.run_id and r.paid_by_uri in mine]
    counts |= {"known": len(receipts) - len(asking.receipts), "asked": len(asking.receipts)}
    report = BatchReport(
        batch_id=manifest.batch_id,
        step="caption",
        counts=dict(counts),
        seconds=round(time.monotonic() - started, 3),
        cost_usd=round(sum(receipt.usage.cost_usd or 0.0 for receipt in paid), 8),
        calls=sum(receipt.usage.attempts for receipt in paid),
    )
    files.write_report(report)
    asking.raise_problem()
    return report


def _make_questions(
    manifest: Manifest,
    metadata: Sequence[ImageMetadata],
    files: BatchFiles,
    captioner: Captioner,
    options: CaptionOptions,
) -> list[Question]:
    """Return one question per content and language; the first address in the manifest pays."""
    languages = {entry.object.uri: entry.languages for entry in manifest.entries}
    hint_file = files.hints() if metadata else None
    hints = {hint.sha256: hint for hint in hint_file.hints} if hint_file else {}
    questions: dict[ContentKey, Question] = {}
    for row in metadata:
        label = strong_label(hints.get(row.sha256 or ""), options.hint_min_score)
        for language in languages[row.uri]:
            key = make_key(row.sha256 or "", language, captioner)
            questions.setdefault(key, Question(key, row.uri, label))
    return list(questions.values())


def make_key(sha256: str, language: str, captioner: Captioner) -> ContentKey:
    """Return what a caption by this captioner is paid for."""
    return ContentKey(
        sha256=sha256,
        language=language,
        prompt_version=PROMPT_VERSION,
        model=captioner.model,
        detail=captioner.detail,
    )


def _find_known(
    warehouse: Warehouse | None, ledger: Ledger, questions: Sequence[Question]
) -> dict[ContentKey, Receipt]:
    """Return answers that were paid for before: merged ones from the warehouse, the others from the ledger."""
    known = warehouse.select_receipts([question.key for question in questions]) if warehouse else {}
    return known | ledger.find(question.key for question in questions if question.key not in known)


class _Asking:
    """Asks many questions at once and keeps what came of each.

    When the server is down or refuses us, no further question is begun; those under way are waited for, since their
    answers are paid.
    """

    def __init__(
        self,
        captioner: Captioner,
        ledger: Ledger | None,
        thumbnails: Mapping[str, bytes],
        options: CaptionOptions,
        run_id: str,
    ) -> None:
        self.receipts: dict[ContentKey, Receipt] = {}
        self.failures: dict[ContentKey, RetryableError] = {}
        self._captioner, self._ledger, self._thumbnails, self._options = captioner, ledger, thumbnails, options
        self._run_id = run_id
        self._failed_in_a_row = 0
        self._stop: ImageAnalyzerError | None = None

    async def ask_all(self, questions: Sequence[Question], batch_id: str) -> None:
        """Ask all questions, `concurrency` at once."""
        progress = with_progress("caption", batch_id, questions, len(questions))
        workers = min(self._options.concurrency, len(questions))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(progress))
        finally:
            await self._captioner.aclose()

    def raise_problem(self) -> None:
        """Raise what ended the asking, or that some questions have no answer."""
        if self._stop is not None:
            raise self._stop
        if self.failures:
            first = next(iter(self.failures.values()))
            raise RetryableError(f"{len(self.failures)} captions have no answer yet; the first: {first}")

    async def _work(self, questions: Iterator[Question]) -> None:
        for question in questions:
            if self._stop is not None:
                return
            try:
                receipt = await self._answer(question)
            except FatalError as error:
                self._stop = error
            except RetryableError as error:
                self._note_failure(question, error)
            else:
                self.receipts[question.key] = receipt
                self._failed_in_a_row = 0

    def _note_failure(self, question: Question, error: RetryableError) -> None:
        self.failures[question.key] = error
        self._failed_in_a_row += 1
        if error.retry_after_s is not None or self._failed_in_a_row >= self._options.give_up_after:
            self._stop = error

    async def _answer(self, question: Question) -> Receipt:
        """Ask once, and once more where the contract is broken; store the receipt before anything can fail."""
        key = question.key
        payer = Payer(self._captioner.origin, question.paid_by_uri, self._run_id)
        request = CaptionRequest(key=key, thumbnail=self._thumbnails[key.sha256], hint=question.hint)
        problem: ImageAnalyzerError | None = None
        try:
            answer = await self._captioner.caption(request)
        except ItemError as error:
            receipt = rejected_receipt(key, error, payer)
        else:
            violations = judge(answer, key.language)
            if violations and self._captioner.paid:
                complaints = tuple(violation.message for violation in violations)
                again = request.model_copy(update={"previous": answer.text, "complaints": complaints})
                try:
                    second = await self._captioner.caption(again)
                except ImageAnalyzerError as error:  # the first answer is paid: keep it for review
                    problem = error if isinstance(error, FatalError) else None
                else:
                    answer = second.model_copy(update={"usage": add_usage(answer.usage, second.usage)})
                    violations = judge(answer, key.language)
            receipt = make_receipt(key, answer, violations, payer)
        try:
            if self._ledger is not None:
                await asyncio.to_thread(self._ledger.store, receipt)
        except ImageAnalyzerError as error:  # the answer goes into the batch's file; ask for no more
            problem = error
        self._stop = problem or self._stop
        return receipt


def _make_rows(
    manifest: Manifest,
    metadata: Sequence[ImageMetadata],
    receipts: Mapping[ContentKey, Receipt],
    failures: Mapping[ContentKey, RetryableError],
    captioner: Captioner,
) -> Iterator[CaptionRow]:
    languages = {entry.object.uri: entry.languages for entry in manifest.entries}
    for row in metadata:
        for language in languages[row.uri]:
            key = make_key(row.sha256 or "", language, captioner)
            if key in receipts:
                yield CaptionRow(uri=row.uri, language=language, receipt=receipts[key])
            elif key in failures:
                code, message = ErrorCode.CAPTION_UNAVAILABLE, str(failures[key])
                yield CaptionRow(uri=row.uri, language=language, error_code=code, error_message=message)
            else:
                message = "asking ended before this picture; the next run asks"
                yield CaptionRow(
                    uri=row.uri, language=language, error_code=ErrorCode.NOT_CAPTIONED, error_message=message
                )
