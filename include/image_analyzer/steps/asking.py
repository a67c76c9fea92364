"""Asks many questions of a captioner at once, and sees to it that each content is paid for once."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from image_analyzer.captions import (
    CaptionAnswer,
    Judgement,
    Payer,
    follow,
    judge,
    make_receipt,
    rejected_receipt,
    share_answer,
)
from image_analyzer.errors import BudgetExceededError, FatalError, ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.ports import Captioner
from image_analyzer.prompts import PROMPT_VERSION, CaptionRequest
from image_analyzer.records import ContentKey, ErrorCode, Manifest, Receipt, Record
from image_analyzer.steps.batchfiles import with_progress
from image_analyzer.steps.jobfiles import Adopter, LandedAnswer
from image_analyzer.steps.ledger import Claim, Ledger

log = logging.getLogger(__name__)


class CaptionOptions(Record):
    """How captions are asked for.

    Attributes:
        concurrency: Requests under way at once.
        languages_per_call: Languages of one picture that one request asks for.
        give_up_after: So many failures in a row without one answer end the step: the server is down.
        look_again_s: Pause before looking again for a caption that another batch is asking for.
        wait_for_others_s: How long that is waited for. A run waits until the claim is stale, a person does not.
    """

    hint_min_score: float
    concurrency: int
    languages_per_call: int = 1
    give_up_after: int = 20
    look_again_s: float = 2.0
    wait_for_others_s: float = math.inf


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


def owner_name(manifest: Manifest) -> str:
    """Return whose claims those of a batch are; a retry has the same name."""
    return f"{manifest.run_id}/{manifest.batch_id}"


def group_questions(questions: Sequence[Question], size: int) -> list[tuple[Question, ...]]:
    """Put languages of one picture together, as many as one request asks for."""
    by_picture: dict[str, list[Question]] = {}
    for question in questions:
        by_picture.setdefault(question.key.sha256, []).append(question)
    return [tuple(group[start : start + size]) for group in by_picture.values() for start in range(0, len(group), size)]


class Asking:
    """Asks many questions at once and keeps what came of each.

    When the server is down or refuses us, no further question is begun; those under way are waited for, since their
    answers are paid.

    Args:
        landed: What the batch's own jobs have answered: read and judged like any answer, and asked again where need be.
        adopter: Lands a job of another batch; None while its answers may come.

    Attributes:
        elsewhere: Questions that another batch or its unfinished job asks, and what to wait for.
    """

    def __init__(
        self,
        captioner: Captioner,
        ledger: Ledger | None,
        thumbnails: Mapping[str, bytes],
        options: CaptionOptions,
        manifest: Manifest,
        *,
        landed: Mapping[ContentKey, LandedAnswer] | None = None,
        adopter: Adopter | None = None,
    ) -> None:
        self.receipts: dict[ContentKey, Receipt] = {}
        self.failures: dict[ContentKey, RetryableError] = {}
        self.waiting: dict[ContentKey, BudgetExceededError] = {}
        self.elsewhere: dict[ContentKey, str] = {}
        self._captioner, self._ledger, self._thumbnails, self._options = captioner, ledger, thumbnails, options
        self._landed, self._adopter = dict(landed or {}), adopter
        self._run_id, self._batch_id, self._owner = manifest.run_id, manifest.batch_id, owner_name(manifest)
        self._held_by_others: list[Question] = []
        self._failed_in_a_row = 0
        self._stop: Exception | None = None
        self._spent: BudgetExceededError | None = None

    async def ask_all(self, questions: Sequence[Question]) -> None:
        """Ask all questions, `concurrency` requests at once; last those that another process was asking at first."""
        size = self._options.languages_per_call
        groups = group_questions(questions, size)
        try:
            await self._work_off(with_progress("caption", self._batch_id, groups, len(groups)), len(groups))
            until = time.monotonic() + self._options.wait_for_others_s
            while self._held_by_others and self._stop is None:
                if time.monotonic() > until:
                    wait = "another process asks for this caption: try again in some minutes"
                    self.elsewhere.update({question.key: wait for question in self._held_by_others})
                    return
                held, self._held_by_others = group_questions(self._held_by_others, size), []
                log.info("%s waits for %d pictures that another batch is asking about", self._batch_id, len(held))
                await asyncio.sleep(self._options.look_again_s)
                await self._work_off(iter(held), len(held))
        finally:
            await self._captioner.aclose()
            if self._adopter:
                await self._adopter.aclose()

    def give_up(self, error: ImageAnalyzerError) -> None:
        """Begin no further question."""
        self._stop = error

    def wait_for_budget(self, error: BudgetExceededError) -> None:
        """Pay for nothing more; what others have paid for is still taken."""
        self._spent = error

    def problem(self) -> Exception | None:
        """Return what ended the asking, or that some questions have no answer; None if all went well."""
        if self._stop is None and self.failures:
            first = next(iter(self.failures.values()))
            return RetryableError(f"{len(self.failures)} captions have no answer yet; the first: {first}")
        return self._stop

    async def _work_off(self, groups: Iterator[tuple[Question, ...]], count: int) -> None:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._options.concurrency, count)):
                workers.create_task(self._work(groups))

    async def _work(self, groups: Iterator[tuple[Question, ...]]) -> None:
        for group in groups:
            if self._stop is not None:
                return
            try:
                await self._settle(group)
            except Exception as error:  # noqa: BLE001 - raised by the step in the end; now it would cancel paid requests under way
                self._stop = error

    def _note(self, question: Question, receipt: Receipt) -> None:
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

    def _note_failure(self, questions: Iterable[Question], error: RetryableError) -> None:
        self.failures.update({question.key: error for question in questions})
        self._failed_in_a_row += 1
        if error.retry_after_s is not None or self._failed_in_a_row >= self._options.give_up_after:
            self._stop = error

    async def _settle(self, group: Sequence[Question]) -> None:
        """See to the questions of one picture: found, held by another process, or asked for now in one request."""
        if self._ledger is None:
            for question in group:
                self._note(question, self._receipt(question, await self._captioner.caption(self._request([question]))))
            return
        if self._spent is not None:
            paid = [q for q in group if (landed := self._landed.get(q.key)) and self._is_last_word(q, landed)]
            await self._take_known([q for q in group if q not in paid], self._ledger, self._spent)
            group = paid
        claims = {question: await self._claim(question, self._ledger) for question in group}
        mine = {self._as_asked(q): claim for q, claim in claims.items() if claim is not None}
        for question in [q for q in mine if (landed := self._landed.get(q.key)) and landed.rejection]:
            del mine[question]
            error = ItemError(*(self._landed[question.key].rejection or ("", "")))
            await self._keep(question, rejected_receipt(question.key, error, None, self._payer(question)), self._ledger)
        answers = {question: claim.answer for question, claim in mine.items() if claim.answer is not None}
        fresh = [question for question in mine if question not in answers]
        if fresh:
            answers |= await self._ask_first(fresh, mine, self._ledger)
        await asyncio.gather(*(self._finish(q, mine[q], answer, self._ledger) for q, answer in answers.items()))

    def _as_asked(self, question: Question) -> Question:
        """Return the question with the address that a job was to pay it for."""
        landed = self._landed.get(question.key)
        return question._replace(paid_by_uri=landed.paid_by_uri) if landed else question

    async def _take_known(self, group: Sequence[Question], ledger: Ledger, spent: BudgetExceededError) -> None:
        for question in group:
            found = await asyncio.to_thread(ledger.read_renewed, question.key)
            if found is not None:
                self._note(question, found)
            else:
                self.waiting[question.key] = spent

    async def _claim(self, question: Question, ledger: Ledger) -> Claim | None:
        """Claim a question for asking; None if its receipt is there by now, or another process asks.

        The claim holds what a batch job has answered.
        """
        found = await asyncio.to_thread(ledger.read_renewed, question.key)
        claim = None
        if found is None:
            claim = await self._claim_mine(question, ledger) or await self._claim_from_job(question, ledger)
            if claim is None:
                return None
            # Between looking and claiming another may have stored its receipt and let its claim go.
            found = await asyncio.to_thread(ledger.read_renewed, question.key)
        if found is None:
            return claim
        if claim is not None:
            await asyncio.to_thread(ledger.release, question.key, claim, None)
        self._note(question, found)
        return None

    async def _claim_mine(self, question: Question, ledger: Ledger) -> Claim | None:
        """Claim a question that nobody holds but this batch."""
        landed = self._landed.get(question.key)
        if landed is not None and self._is_last_word(question, landed):
            # Whoever stores it first, it is the same receipt.
            return Claim(owner=self._owner, at=datetime.now(UTC), answer=landed.answer)
        claim = await asyncio.to_thread(ledger.claim, question.key, self._owner)
        if claim is not None and claim.answer is None and landed is not None:
            return claim.model_copy(update={"answer": landed.answer})
        return claim

    def _is_last_word(self, question: Question, landed: LandedAnswer) -> bool:
        """Tell whether what a job said needs no further request."""
        return landed.answer is None or not self._judge(question, landed.answer).asks_again(landed.answer.asked)

    async def _claim_from_job(self, question: Question, ledger: Ledger) -> Claim | None:
        """Take up a question that a batch job of others has answered; note it as held if it has not."""
        holder = await asyncio.to_thread(ledger.holder, question.key)
        if holder is None or holder.jobs_of is None:
            self._held_by_others.append(question)
            return None
        landing = await self._adopter.adopt(holder, question.key) if self._adopter else None
        if landing is None:
            self.elsewhere[question.key] = f"a batch job of {holder.owner} asks for this caption; the next run has it"
            return None
        if (landed := landing.answer_to(question.key)) is not None:
            self._landed[question.key] = landed
            if self._is_last_word(question, landed):
                return holder.model_copy(update={"answer": landed.answer})
        claim = await asyncio.to_thread(ledger.claim, question.key, self._owner, ended_at=landing.ended_at)
        if claim is None:
            self._held_by_others.append(question)
        elif landed is not None and claim.answer is None:
            return claim.model_copy(update={"answer": landed.answer})
        return claim

    async def _ask_first(
        self, questions: Sequence[Question], claims: Mapping[Question, Claim], ledger: Ledger
    ) -> dict[Question, CaptionAnswer]:
        """Ask one request for all languages; return an answer for each, none where the request failed."""
        try:
            answer = await self._captioner.caption(self._request(questions))
        except ItemError as error:
            for question in questions:
                await self._keep(question, rejected_receipt(question.key, error, None, self._payer(question)), ledger)
            return {}
        except BaseException as error:
            # Nobody goes on with this picture unless the fault is a passing one: then languages answered earlier do.
            for question in questions if isinstance(error, RetryableError | BudgetExceededError) else claims:
                await asyncio.to_thread(ledger.release, question.key, claims[question], claims[question].answer)
            if isinstance(error, RetryableError):
                self._note_failure(questions, error)
            elif isinstance(error, BudgetExceededError):
                self._spent = error
                self.waiting.update({question.key: error for question in questions})
            else:
                raise
            return {}
        shares = share_answer(answer, [question.key.language for question in questions])
        return dict(zip(questions, shares, strict=True))

    async def _finish(self, question: Question, claim: Claim, answer: CaptionAnswer, ledger: Ledger) -> None:
        """Ask again where the contract is broken, and store what came of it. What is paid is kept before anything can fail."""
        try:
            while (judgement := self._judge(question, answer)).asks_again(answer.asked):
                await asyncio.to_thread(ledger.keep_answer, question.key, claim, answer)
                again = self._request([question]).model_copy(
                    update={"previous": answer.text, "complaints": judgement.codes}
                )
                answer = follow(answer, judgement.codes, await self._captioner.caption(again))
        except ItemError as error:
            await self._keep(question, rejected_receipt(question.key, error, answer, self._payer(question)), ledger)
            return
        except BaseException as error:
            await asyncio.to_thread(ledger.release, question.key, claim, answer)
            if not isinstance(error, Exception):
                raise
            if isinstance(error, RetryableError):
                self._note_failure([question], error)
            elif isinstance(error, BudgetExceededError):
                self._spent = self.waiting[question.key] = error
            else:
                self._stop = error
            return
        receipt = self._receipt(question, answer)
        if receipt.error_code is ErrorCode.IMAGE_NOT_SEEN:  # no answer to this picture: the next run asks again
            await asyncio.to_thread(ledger.release, question.key, claim, None)
            self._note(question, receipt)
        else:
            await self._keep(question, receipt, ledger)

    async def _keep(self, question: Question, receipt: Receipt, ledger: Ledger) -> None:
        self._note(question, receipt)
        try:
            await asyncio.to_thread(ledger.store, receipt)
        except ImageAnalyzerError as error:  # the answer goes into the batch's file; ask for no more
            self._stop = error

    def _request(self, questions: Sequence[Question]) -> CaptionRequest:
        first, *others = questions
        return CaptionRequest(
            key=first.key,
            thumbnail=self._thumbnails[first.key.sha256],
            also=tuple(question.key.language for question in others),
            hint=first.hint,
        )

    def _receipt(self, question: Question, answer: CaptionAnswer) -> Receipt:
        return make_receipt(question.key, answer, self._judge(question, answer), self._payer(question))

    def _judge(self, question: Question, answer: CaptionAnswer) -> Judgement:
        return judge(answer, question.key.language, question.hint)

    def _payer(self, question: Question) -> Payer:
        return Payer(self._captioner.origin, question.paid_by_uri, self._run_id)
