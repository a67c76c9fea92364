"""Asks many questions of a captioner at once, and sees to it that each content is paid for once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from image_analyzer.captions import (
    PROMPT_VERSION,
    CaptionAnswer,
    CaptionRequest,
    Judgement,
    Payer,
    follow,
    judge,
    make_receipt,
    rejected_receipt,
)
from image_analyzer.errors import FatalError, ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.ports import Captioner
from image_analyzer.records import ContentKey, ErrorCode, Manifest, Receipt, Record
from image_analyzer.steps.batchfiles import with_progress
from image_analyzer.steps.ledger import Claim, Ledger

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


def make_key(sha256: str, language: str, captioner: Captioner) -> ContentKey:
    """Return what a caption by this captioner is paid for."""
    return ContentKey(
        sha256=sha256,
        language=language,
        prompt_version=PROMPT_VERSION,
        model=captioner.model,
        detail=captioner.detail,
    )


class Asking:
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

    def give_up(self, error: ImageAnalyzerError) -> None:
        """Begin no further question."""
        self._stop = error

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
                self._note_sight(receipt)

    def _note_sight(self, receipt: Receipt) -> None:
        """Stop paying a server that again and again does not see what it is shown."""
        if receipt.error_code is not ErrorCode.IMAGE_NOT_SEEN:
            self._failed_in_a_row = 0
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self._options.give_up_after:
            self._stop = FatalError(
                f"{receipt.key.model}: {receipt.error_message}, {self._failed_in_a_row} times in a row"
            )

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
        if receipt.error_code is ErrorCode.IMAGE_NOT_SEEN:  # no answer to this picture: the next run asks again
            await asyncio.to_thread(self._ledger.release, question.key, claim, None)
            return receipt
        try:
            await asyncio.to_thread(self._ledger.store, receipt)
        except ImageAnalyzerError as error:  # the answer goes into the batch's file; ask for no more
            self._stop = error
        return receipt

    async def _pay(self, question: Question, claim: Claim, ledger: Ledger) -> Receipt:
        """Ask, and again where the contract is broken. What is paid is kept before anything else can fail."""
        request, answer = self._request(question), claim.answer
        try:
            if answer is None:
                answer = await self._captioner.caption(request)
            while (judgement := self._judge(question, answer)).asks_again(answer.asked):
                await asyncio.to_thread(ledger.keep_answer, question.key, claim, answer)
                again = request.model_copy(update={"previous": answer.text, "complaints": judgement.codes})
                answer = follow(answer, judgement.codes, await self._captioner.caption(again))
        except ItemError as error:
            return rejected_receipt(question.key, error, answer, self._payer(question))
        except BaseException:
            await asyncio.to_thread(ledger.release, question.key, claim, answer)
            raise
        return self._receipt(question, answer)

    def _request(self, question: Question) -> CaptionRequest:
        return CaptionRequest(key=question.key, thumbnail=self._thumbnails[question.key.sha256], hint=question.hint)

    def _receipt(self, question: Question, answer: CaptionAnswer) -> Receipt:
        return make_receipt(question.key, answer, self._judge(question, answer), self._payer(question))

    def _judge(self, question: Question, answer: CaptionAnswer) -> Judgement:
        return judge(answer, question.key.language, question.hint)

    def _payer(self, question: Question) -> Payer:
        return Payer(self._captioner.origin, question.paid_by_uri, self._run_id)
