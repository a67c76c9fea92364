"""Asks a mapped batch's questions by OpenAI's batch jobs: plans them, sends them, lands what they said.

Nothing is asked twice: each question is claimed first, a job is written down before it is sent, and one whose id was lost is
found by its name. What a job left open is asked online by the caption step.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import AwareDatetime

from image_analyzer.captions import share_answer
from image_analyzer.errors import AnswersGoneError, FolderGoneError, ImageAnalyzerError, RetryableError
from image_analyzer.ports import JobService, JobState, ObjectStore
from image_analyzer.prompts import CaptionRequest
from image_analyzer.records import ContentKey, Record
from image_analyzer.steps.asking import Question, group_questions, owner_name
from image_analyzer.steps.batchfiles import BatchFiles
from image_analyzer.steps.budget import Cap, Reservation, draw, give_back
from image_analyzer.steps.jobfiles import Job, JobFile, JobFiles, JobQuestion, LandedAnswer, Landing
from image_analyzer.steps.ledger import Claim, Ledger
from image_analyzer.thumbnails import read_pack

log = logging.getLogger(__name__)
# OpenAI takes 50,000 requests and 200 MB, however it counts a megabyte.
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
_QUEUE_PAUSE = timedelta(minutes=15)
# A job that was to be sent so long ago has no living owner.
_ABANDONED_AFTER = timedelta(hours=1)
_SENDINGS = 3
_LOOK_AGAIN = timedelta(minutes=1)
_LOOK_AGAIN_S = 5.0
_FIRST_BACKOFF_S = 2.0


class JobOptions(Record):
    """How jobs are made.

    Attributes:
        patience_s: So long after its first job a batch waits for none any more.
    """

    languages_per_call: int
    patience_s: float


class Waiting(Record):
    """What a task waits for without a worker: that all these jobs end, or that a time comes.

    Attributes:
        is_ours: The jobs are the task's own: they are cancelled with it.
    """

    job_ids: tuple[str, ...]
    until: AwareDatetime
    is_ours: bool = True


class _Line(NamedTuple):
    """One request of a job to be, and the most it can cost."""

    asked: JobQuestion
    content: bytes
    most_usd: float


class BatchJobs:
    """The jobs of one mapped batch.

    Args:
        caps: Limits of cost that its reservations are drawn from.
    """

    def __init__(
        self,
        store: ObjectStore,
        service: JobService,
        manifest_uri: str,
        options: JobOptions,
        caps: Sequence[Cap],
    ) -> None:
        self._store, self._service, self._options, self._caps = store, service, options, caps
        self._files, self._jobs = BatchFiles(store, manifest_uri), JobFiles(store, manifest_uri)
        self._owner = owner_name(self._files.manifest())
        self._thumbnails: dict[str, bytes] | None = None

    async def settle(self) -> Waiting | None:
        """Send what is not sent, land what has ended; return what there is to wait for."""
        files = self._jobs.read_all()
        if not files:
            return None
        now = datetime.now(UTC)
        end_at = files[0].job.planned_at + timedelta(seconds=self._options.patience_s)
        wakes, job_ids = [end_at if now < end_at else now + _QUEUE_PAUSE], []
        for file in files:
            if await self.land(file) is not None:
                continue
            sent = await self._send(file, end_at)
            if sent is None:
                continue
            if sent.job.job_id is None:
                wakes += [sent.job.not_before] if sent.job.not_before else []
                continue
            if sent.job.cancelled_at and now >= sent.job.cancelled_at + _ABANDONED_AFTER:
                self._end(sent, "stuck", "it did not end although it was cancelled", is_billed=None)
                continue
            job_ids.append(sent.job.job_id)
            if now >= end_at:
                await self._cancel(sent, now)
        if not job_ids and len(wakes) == 1:
            return None
        return Waiting(job_ids=tuple(job_ids), until=min(wakes))

    async def others(self, questions: Sequence[Question], ledger: Ledger) -> Waiting | None:
        """Return the jobs of other batches that ask for some of these, and are not done yet."""
        now, job_ids, ends = datetime.now(UTC), [], []
        for uri in sorted(await self._asking_elsewhere(questions, ledger)):
            jobs = JobFiles(self._store, uri)
            for file in jobs.read_all():
                end_at = file.job.planned_at + timedelta(seconds=self._options.patience_s)
                if now >= end_at or jobs.landing(file) is not None:
                    continue
                if file.job.job_id is None:  # being sent, or waiting for the queue
                    ends.append(max(file.job.not_before or now, now + _LOOK_AGAIN))
                    continue
                state = await self._service.look(file.job.job_id)
                if state is not None and not state.ended:
                    job_ids.append(file.job.job_id)
                    ends.append(end_at)
        return Waiting(job_ids=tuple(job_ids), until=min(ends), is_ours=False) if ends else None

    async def _asking_elsewhere(self, questions: Sequence[Question], ledger: Ledger) -> set[str]:
        """Return the manifests whose jobs hold claims on these questions."""
        answered = self._jobs.answers()
        holders = await asyncio.gather(
            *(asyncio.to_thread(ledger.holder, question.key) for question in questions if question.key not in answered)
        )
        return {holder.jobs_of for holder in holders if holder and holder.jobs_of and holder.owner != self._owner}

    async def begin(self, questions: Sequence[Question], ledger: Ledger) -> Waiting | None:
        """Plan and send jobs for the questions that nobody asks and no job of this batch asked, as far as the caps allow.

        Returns:
            What to wait for; None if there was nothing to ask, or no money.
        """
        files = self._jobs.read_all()
        if files and (not files[-1].job.short or self._is_late(files)):
            return None
        asked = {key for file in files for one in file.job.asked for key in one.keys}
        claims = await asyncio.gather(
            *(asyncio.to_thread(self._claim, question, ledger) for question in questions if question.key not in asked)
        )
        mine = [question for question, claim in claims if claim is not None and claim.answer is None]
        lines = list(self._lines(mine))
        planned = [job for job in self._plan(lines, len(files)) if job.job.asked]
        covered = {key for file in planned for one in file.job.asked for key in one.keys}
        for question, claim in claims:
            if claim is not None and claim.answer is None and question.key not in covered:
                await asyncio.to_thread(ledger.release, question.key, claim, None)
        return await self.settle() if planned else None

    async def land(self, file: JobFile) -> Landing | None:
        """Write down what a job answered, once it has ended; then delete its files at OpenAI.

        Returns:
            None while answers may come.
        """
        landing = self._jobs.landing(file)
        if landing is not None:
            if file.job.job_id and not self._jobs.is_forgotten(file):
                await self._forget(file)
            return landing
        if file.job.job_id is None:
            return None
        state = await self._look_twice(file.job.job_id)
        if state is None:
            problem = f"OpenAI does not know job {file.job.job_id} any more"
            return self._end(file, "unknown", problem, (), file.job.planned_at, is_billed=None)
        return await self._land_ended(file, state) if state.ended and not state.queue_full else None

    async def _look_twice(self, job_id: str) -> JobState | None:
        """Return how far a job is; that nobody knows it is believed the second time: a gateway may say so once."""
        if (state := await self._service.look(job_id)) is None:
            await asyncio.sleep(_FIRST_BACKOFF_S)
            state = await self._service.look(job_id)
        return state

    async def _land_ended(self, file: JobFile, state: JobState) -> Landing:
        try:
            answers = [answer async for answer in self._read(file, state)]
        except AnswersGoneError as error:
            await asyncio.sleep(_FIRST_BACKOFF_S)
            if (landing := self._jobs.landing(file)) is not None:  # another task was quicker
                return landing
            return self._end(file, "answers gone", str(error), (), state.ended_at, is_billed=None)
        landing = self._end(file, state.status, state.problem, answers, state.ended_at)
        await self._forget(file)
        return landing

    async def land_all(self) -> list[tuple[JobFile, Landing | None]]:
        """Land what has ended of jobs whose task may be dead; no landing while answers may come."""
        return [(file, await self._land_abandoned(file)) for file in self._jobs.read_all()]

    async def _land_abandoned(self, file: JobFile) -> Landing | None:
        landing = await self.land(file)
        if landing is not None:
            return landing
        job = file.job
        due_at = job.not_before or job.planned_at
        if datetime.now(UTC) - due_at < _ABANDONED_AFTER:
            return None
        if job.job_id is None:
            found = await self._service.find(job.name, job.planned_at)
            if found is None:
                return self._end(file, "abandoned", "its task died before it was sent", (), due_at)
            return await self.land(JobFile(file.uri, job.model_copy(update={"job_id": found})))
        state = await self._service.look(job.job_id)
        refused = state is not None and state.queue_full
        return self._end(file, "abandoned", "its task died before it was sent again", (), due_at) if refused else None

    async def _cancel(self, file: JobFile, now: datetime) -> None:
        log.warning("%s: patience has ended, job %s is cancelled", self._owner, file.job.job_id)
        await self._service.cancel(file.job.job_id or "")
        if file.job.cancelled_at is None:
            self._jobs.write(file.uri, file.job.model_copy(update={"cancelled_at": now}))

    def _is_late(self, files: Sequence[JobFile]) -> bool:
        waited = datetime.now(UTC) - files[0].job.planned_at
        return waited.total_seconds() > self._options.patience_s

    def _claim(self, question: Question, ledger: Ledger) -> tuple[Question, Claim | None]:
        """Claim a question; no claim if another asks, or if its answer is there."""
        if ledger.read_renewed(question.key) is not None:
            return question, None
        claim = ledger.claim(question.key, self._owner, jobs_of=self._jobs.manifest_uri)
        # Between looking and claiming another may have stored its receipt and let its claim go.
        if claim is not None and ledger.read_renewed(question.key) is not None:
            ledger.release(question.key, claim, None)
            return question, None
        return question, claim

    def _lines(self, questions: Sequence[Question]) -> Iterator[_Line]:
        for group in group_questions(questions, self._options.languages_per_call):
            keys = tuple(question.key for question in group)
            digest = hashlib.sha256("\n".join(key.model_dump_json() for key in keys).encode()).hexdigest()
            asked = JobQuestion(
                custom_id=digest[:40],
                keys=keys,
                paid_by_uris=tuple(question.paid_by_uri for question in group),
                hint=group[0].hint,
            )
            request = self._request(asked)
            yield _Line(asked, self._service.line(asked.custom_id, request), self._service.most_usd(request))

    def _plan(self, lines: Sequence[_Line], number: int) -> list[JobFile]:
        """Draw what the caps leave and write the jobs down that it covers, none larger than OpenAI takes."""
        covered, drawn = draw(self._store, self._caps, self._owner, [line.most_usd for line in lines])
        short = covered < len(lines)
        if short:
            log.warning("%s: the caps on cost cover %d of %d requests", self._owner, covered, len(lines))
        planned: list[JobFile] = []
        try:
            self._write_down(lines[:covered], number, drawn, planned, short=short)
        except ImageAnalyzerError:
            written_usd = sum(file.job.reserved[0].usd for file in planned if file.job.reserved)
            for reservation in drawn:
                give_back(self._store, reservation, self._owner, reservation.usd - written_usd)
            raise
        return planned

    def _write_down(
        self,
        lines: Sequence[_Line],
        number: int,
        drawn: Sequence[Reservation],
        planned: list[JobFile],
        *,
        short: bool,
    ) -> None:
        """Write one job after the other down; those that are go into `planned`."""
        for part in self._parts(lines):
            uri = self._jobs.uri(number + len(planned))
            job = Job(
                name=_job_name(uri, 0),
                owner=self._owner,
                planned_at=datetime.now(UTC),
                asked=tuple(line.asked for line in part),
                reserved=tuple(r.model_copy(update={"usd": sum(line.most_usd for line in part)}) for r in drawn),
                short=short,
            )
            planned.append(self._jobs.write(uri, job))

    def _parts(self, lines: Sequence[_Line]) -> Iterator[list[_Line]]:
        part: list[_Line] = []
        size = 0
        for line in lines:
            full = len(part) >= MOST_REQUESTS or size + len(line.content) > MOST_BYTES
            if part and full:
                yield part
                part, size = [], 0
            part.append(line)
            size += len(line.content)
        if part:
            yield part

    async def _send(self, file: JobFile, end_at: datetime) -> JobFile | None:
        """Send a job that has no id, or was refused for want of room; None if patience ended before there was any."""
        job, now = file.job, datetime.now(UTC)
        if job.job_id is not None:
            state = await self._service.look(job.job_id)
            if state is None or not state.queue_full:
                return file
            await self._service.forget(state)
            until = now + _QUEUE_PAUSE
            log.warning("%s: too many tokens wait at OpenAI (%s), next try at %s", self._owner, state.problem, until)
            again = {
                "job_id": None,
                "not_before": until,
                "name": _job_name(file.uri, job.sendings),
                "sendings": job.sendings + 1,
            }
            file = self._jobs.write(file.uri, job.model_copy(update=again))
        if file.job.job_id is None and now >= end_at:
            if found := await self._service.find(file.job.name, file.job.planned_at):
                return self._jobs.write(file.uri, file.job.model_copy(update={"job_id": found, "not_before": None}))
            self._end(file, "not sent", "there was no room in the queue until patience ended")
            return None
        if file.job.not_before is not None and now < file.job.not_before:
            return file
        job_id = await self._find_or_send(file.job)
        if self._jobs.landing(file) is not None:  # somebody took this task for dead meanwhile
            await self._service.cancel(job_id)
            return None
        return self._jobs.write(file.uri, file.job.model_copy(update={"job_id": job_id, "not_before": None}))

    async def _find_or_send(self, job: Job) -> str:
        """Return the id of a job, which an earlier try may have sent without living to write it down."""
        requests = self._requests(job)
        for sending in range(_SENDINGS):
            if found := await self._service.find(job.name, job.planned_at):
                return found
            content = b"".join(self._service.line(custom_id, request) for custom_id, request in requests.items())
            try:
                job_id = await self._service.send(job.name, content)
            except RetryableError as error:
                if sending + 1 == _SENDINGS:
                    raise
                log.warning("%s: %s; looking whether the job was begun", self._owner, error)
                await asyncio.sleep(_FIRST_BACKOFF_S * 2**sending)
                continue
            log.info("%s: job %s with %d requests, %d bytes", self._owner, job_id, len(requests), len(content))
            return job_id
        raise RetryableError("no batch job was sent")

    async def _read(self, file: JobFile, state: JobState) -> AsyncIterator[LandedAnswer]:
        asked = {one.custom_id: one for one in file.job.asked}
        async for reply in self._service.read(state, self._requests(file.job)):
            one = asked[reply.custom_id]
            for number, (key, uri) in enumerate(zip(one.keys, one.paid_by_uris, strict=True)):
                if reply.answer is not None:
                    counted = reply.answer.model_copy(
                        update={"usage": reply.answer.usage.model_copy(update={"attempts": 1})}
                    )
                    share = share_answer(counted, [key.language for key in one.keys])[number]
                    yield LandedAnswer(key=key, paid_by_uri=uri, answer=share)
                elif reply.rejection is not None:
                    said = (str(reply.rejection.code), str(reply.rejection))
                    yield LandedAnswer(key=key, paid_by_uri=uri, rejection=said)

    def _end(
        self,
        file: JobFile,
        status: str,
        problem: str,
        answers: Sequence[LandedAnswer] = (),
        ended_at: datetime | None = None,
        *,
        is_billed: bool | None = True,
    ) -> Landing:
        """Write down the end of a job and give back what it did not cost; of several tasks only one does.

        Args:
            is_billed: None if nobody knows what it cost: then nothing is given back.
        """
        made = Landing(status=status, ended_at=ended_at or datetime.now(UTC), problem=problem, answers=tuple(answers))
        landing, first = self._jobs.land(file, made)
        if first:
            costs = [one.answer.usage.cost_usd for one in answers if one.answer]
            spent_usd = sum(cost or 0.0 for cost in costs)
            for reservation in file.job.reserved:
                # Where the server names no bill, the whole of it counts as spent.
                left_usd = 0.0 if None in costs or is_billed is None else reservation.usd - spent_usd
                give_back(self._store, reservation, self._owner, left_usd)
            questions = sum(len(one.keys) for one in file.job.asked)
            log.info("%s: job %s is %s, %d of %d questions answered, $%.6f. %s", self._owner, file.job.job_id, status,
                     len(answers), questions, spent_usd, problem)  # fmt: skip
        return landing

    async def _forget(self, file: JobFile) -> None:
        try:
            if (state := await self._service.look(file.job.job_id or "")) is not None:
                await self._service.forget(state)
            self._jobs.mark_forgotten(file)
        except ImageAnalyzerError as error:
            # The answers are safe. Whoever comes next tries again; OpenAI deletes them after 30 days.
            log.warning("%s: files of job %s are not deleted yet: %s", self._owner, file.job.job_id, error)

    def _requests(self, job: Job) -> dict[str, CaptionRequest]:
        return {one.custom_id: self._request(one) for one in job.asked}

    def _request(self, asked: JobQuestion) -> CaptionRequest:
        if self._thumbnails is None:
            self._thumbnails = dict(read_pack(self._files.thumbnails()))
        first, *others = asked.keys
        return CaptionRequest(
            key=first,
            thumbnail=self._thumbnails[first.sha256],
            also=tuple(key.language for key in others),
            hint=asked.hint,
        )


class JobAdopter:
    """Takes up what batch jobs of other batches have answered. A batch is looked at again where it does not ask a question yet.

    Args:
        make_jobs: Returns the jobs of the batch whose manifest lies at an address.
    """

    def __init__(self, service: JobService, make_jobs: Callable[[str], BatchJobs]) -> None:
        self._service, self._make_jobs = service, make_jobs
        self._seen: dict[str, list[tuple[JobFile, Landing | None]]] = {}
        self._looked_at: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def adopt(self, holder: Claim, key: ContentKey) -> Landing | None:
        """Return how the job ended that the holder of a claim asks by; None while answers may come."""
        uri = holder.jobs_of or ""
        async with self._lock:
            if not self._asks(uri, key) and time.monotonic() - self._looked_at.get(uri, -math.inf) > _LOOK_AGAIN_S:
                try:
                    self._seen[uri] = await self._make_jobs(uri).land_all()
                except FolderGoneError:  # what its jobs answered cannot be had any more
                    return Landing(status="gone", ended_at=holder.at)
                self._looked_at[uri] = time.monotonic()
        for file, landing in self._seen.get(uri, []):
            if any(key in one.keys for one in file.job.asked):
                return landing
        # Claimed, and not written down: its task is doing that now, or was killed there. The age of the claim tells.
        return Landing(status="not asked", ended_at=holder.at)

    def _asks(self, uri: str, key: ContentKey) -> bool:
        return any(key in one.keys for file, _ in self._seen.get(uri, []) for one in file.job.asked)

    async def aclose(self) -> None:
        """Close connections."""
        await self._service.aclose()


def _job_name(uri: str, sending: int) -> str:
    """Return a name that no other job has, without a word of what it is about."""
    return f"image-analyzer-{hashlib.sha256(f'{uri} {sending}'.encode()).hexdigest()[:40]}"
