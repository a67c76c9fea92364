"""Asks for the captions of a batch, each content once, and keeps every answer the moment it arrives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from image_analyzer.captions import (
    PROMPT_VERSION,
    CaptionAnswer,
    CaptionRequest,
    Payer,
    add_usage,
    judge,
    make_receipt,
    rejected_receipt,
)
from image_analyzer.errors import ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.hints import strong_label
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
from image_analyzer.steps.ledger import Claim, Ledger
from image_analyzer.thumbnails import read_pack

log = logging.getLogger(__name__)


class CaptionOptions(Record):
    """How captions are asked for.

    Attributes:
        give_up_after: So many failures in a row without one answer end the step: the server is down.
        look_again_s: Pause before looking again for a caption that another batch is asking for.
    """

    hint_min_score: float
    concurrency: int
    give_up_after: int = 20
    look_again_s: float = 2.0


class Question(NamedTuple):
    """One content to be captioned, and the address that pays for it."""

    key: ContentKey
    paid_by_uri: str
    hint: str | None


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
    asking = _Asking(captioner, ledger if captioner.paid else None, thumbnails, options, manifest)
    open_questions = [q for q in questions if q.key not in receipts]
    asyncio.run(asking.ask_all(open_questions))
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
        manifest: Manifest,
    ) -> None:
        self.receipts: dict[ContentKey, Receipt] = {}
        self.failures: dict[ContentKey, RetryableError] = {}
        self._captioner, self._ledger, self._thumbnails, self._options = captioner, ledger, thumbnails, options
        self._run_id, self._batch_id = manifest.run_id, manifest.batch_id
        self._held_by_others: list[Question] = []
        self._failed_in_a_row = 0
        self._stop: Exception | None = None

    async def ask_all(self, questions: Sequence[Question]) -> None:
        """Ask all questions, `concurrency` at once; last those that another process was asking at first."""
        try:
            await self._work_off(with_progress("caption", self._batch_id, questions, len(questions)), len(questions))
            while self._held_by_others and self._stop is None:
                held, self._held_by_others = self._held_by_others, []
                log.info("%s waits for %d captions that another batch is asking for", self._batch_id, len(held))
                await asyncio.sleep(self._options.look_again_s)
                await self._work_off(iter(held), len(held))
        finally:
            await self._captioner.aclose()

    def raise_problem(self) -> None:
        """Raise what ended the asking, or that some questions have no answer."""
        if self._stop is not None:
            raise self._stop
        if self.failures:
            first = next(iter(self.failures.values()))
            raise RetryableError(f"{len(self.failures)} captions have no answer yet; the first: {first}")

    async def _work_off(self, questions: Iterator[Question], count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._options.concurrency, count)):
                group.create_task(self._work(questions))

    async def _work(self, questions: Iterator[Question]) -> None:
        for question in questions:
            if self._stop is not None:
                return
            try:
                receipt = await self._settle(question)
            except RetryableError as error:
                self._note_failure(question, error)
            except Exception as error:  # noqa: BLE001 - raised by raise_problem; now it would cancel paid requests under way
                self._stop = error
            else:
                if receipt is None:
                    self._held_by_others.append(question)
                    continue
                self.receipts[question.key] = receipt
                self._failed_in_a_row = 0

    def _note_failure(self, question: Question, error: RetryableError) -> None:
        self.failures[question.key] = error
        self._failed_in_a_row += 1
        if error.retry_after_s is not None or self._failed_in_a_row >= self._options.give_up_after:
            self._stop = error

    async def _settle(self, question: Question) -> Receipt | None:
        """Return the receipt of a question: found, or paid for now; None while another process is asking."""
        if self._ledger is None:
            answer = await self._captioner.caption(self._request(question))
            return self._receipt(question, answer)
        found = await asyncio.to_thread(self._ledger.read, question.key)
        if found is not None:
            return found
        claim = await asyncio.to_thread(self._ledger.claim, question.key, f"{self._run_id}/{self._batch_id}")
        if claim is None:
            return None
        # Between looking and claiming another may have stored its receipt and let its claim go.
        found = await asyncio.to_thread(self._ledger.read, question.key)
        if found is not None:
            await asyncio.to_thread(self._ledger.release, question.key, claim, None)
            return found
        receipt = await self._pay(question, claim, self._ledger)
        try:
            await asyncio.to_thread(self._ledger.store, receipt)
        except ImageAnalyzerError as error:  # the answer goes into the batch's file; ask for no more
            self._stop = error
        return receipt

    async def _pay(self, question: Question, claim: Claim, ledger: Ledger) -> Receipt:
        """Ask, and once more where the contract is broken. What is paid is kept before anything else can fail."""
        request, answer = self._request(question), claim.answer
        try:
            if answer is None:
                answer = await self._captioner.caption(request)
            violations = judge(answer, question.key.language)
            if violations:
                await asyncio.to_thread(ledger.keep_answer, question.key, claim, answer)
                complaints = tuple(violation.message for violation in violations)
                again = request.model_copy(update={"previous": answer.text, "complaints": complaints})
                second = await self._captioner.caption(again)
                answer = second.model_copy(update={"usage": add_usage(answer.usage, second.usage)})
        except ItemError as error:
            return rejected_receipt(question.key, error, answer, self._payer(question))
        except BaseException:
            await asyncio.to_thread(ledger.release, question.key, claim, answer)
            raise
        return self._receipt(question, answer)

    def _request(self, question: Question) -> CaptionRequest:
        return CaptionRequest(key=question.key, thumbnail=self._thumbnails[question.key.sha256], hint=question.hint)

    def _receipt(self, question: Question, answer: CaptionAnswer) -> Receipt:
        return make_receipt(question.key, answer, judge(answer, question.key.language), self._payer(question))

    def _payer(self, question: Question) -> Payer:
        return Payer(self._captioner.origin, question.paid_by_uri, self._run_id)


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
