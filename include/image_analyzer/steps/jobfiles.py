"""What is written down of a mapped batch's jobs: what each asks, which id it got, what it answered.

A job's file is written by the task that owns it, before anything is sent. Its landing is written once, by whoever reads the
answers first.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from uuid import uuid4

from pydantic import AwareDatetime, Field

from image_analyzer.captions import CaptionAnswer
from image_analyzer.ports import ObjectStore
from image_analyzer.records import ContentKey, Record
from image_analyzer.steps.budget import Reservation
from image_analyzer.steps.ledger import Claim
from image_analyzer.workarea import sibling_uri


class JobQuestion(Record):
    """One request of a job: a picture in one or several languages.

    Attributes:
        paid_by_uris: The address whose row carries the cost, for each key.
    """

    custom_id: str
    keys: tuple[ContentKey, ...]
    paid_by_uris: tuple[str, ...]
    hint: str | None


class Job(Record):
    """One file of requests.

    Attributes:
        name: Its name at OpenAI, by which it is found again if its id was not written down.
        short: The caps on cost did not cover all questions that were open.
        job_id: None until it is sent.
        sendings: How often it was to be sent; each time under another name.
        cancelled_at: When its cancelling was asked for, after patience had ended.
        not_before: It was refused since too many tokens wait; it is sent again then.
    """

    name: str
    owner: str
    planned_at: AwareDatetime
    asked: tuple[JobQuestion, ...]
    reserved: tuple[Reservation, ...] = ()
    short: bool = False
    job_id: str | None = None
    sendings: int = 1
    not_before: AwareDatetime | None = None
    cancelled_at: AwareDatetime | None = None


class LandedAnswer(Record):
    """What a job said to one question: an answer, or why there will never be one.

    Attributes:
        rejection: Code and message of an `ItemError`.
    """

    key: ContentKey
    paid_by_uri: str
    answer: CaptionAnswer | None = None
    rejection: tuple[str, str] | None = None


class Landing(Record):
    """The end of a job. Questions without an answer are not in it.

    Attributes:
        status: OpenAI's word, or ours where OpenAI has none.
        ended_at: By OpenAI's clock. A task that lives lands its job within minutes.
        nonce: Tells of two tasks that read the same answers which one wrote the landing, and so gives money back.
    """

    status: str
    ended_at: AwareDatetime
    problem: str = ""
    answers: tuple[LandedAnswer, ...] = ()
    nonce: str = Field(default_factory=lambda: uuid4().hex)

    def answer_to(self, key: ContentKey) -> LandedAnswer | None:
        """Return what was said to one question."""
        return next((answer for answer in self.answers if answer.key == key), None)


class JobFile(NamedTuple):
    """A job and where it is written down."""

    uri: str
    job: Job

    @property
    def landing_uri(self) -> str:
        """Return where its landing lies."""
        return f"{self.uri.removesuffix('.json')}.landing.json"

    @property
    def forgotten_uri(self) -> str:
        """Return the mark that its files at OpenAI are deleted."""
        return f"{self.uri.removesuffix('.json')}.forgotten"


class Adopter(Protocol):
    """Takes up what batch jobs of other batches have answered, whose tasks may be dead."""

    async def adopt(self, holder: Claim, key: ContentKey) -> Landing | None:
        """Return how the job ended that the holder of a claim asks by; None while answers may come."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class JobFiles:
    """The jobs of one mapped batch."""

    def __init__(self, store: ObjectStore, manifest_uri: str) -> None:
        self._store, self.manifest_uri = store, manifest_uri

    def uri(self, number: int) -> str:
        """Return where a job is written down."""
        return sibling_uri(self.manifest_uri, f"job-{number:03d}.json")

    def read_all(self) -> list[JobFile]:
        """Return the jobs in order."""
        return list(self._each())

    def _each(self) -> Iterator[JobFile]:
        number = 0
        while content := self._store.read(self.uri(number)):
            yield JobFile(self.uri(number), Job.model_validate_json(content))
            number += 1

    def write(self, uri: str, job: Job) -> JobFile:
        """Write a job down."""
        self._store.write(uri, job.model_dump_json().encode(), "application/json")
        return JobFile(uri, job)

    def landing(self, file: JobFile) -> Landing | None:
        """Return how a job ended; None if it has not."""
        content = self._store.read(file.landing_uri)
        return Landing.model_validate_json(content) if content else None

    def land(self, file: JobFile, landing: Landing) -> tuple[Landing, bool]:
        """Write down how a job ended; return what stands, and whether it is this."""
        content = landing.model_dump_json().encode()
        first = self._store.create(file.landing_uri, content) or self._store.read(file.landing_uri) == content
        return (landing, True) if first else (self.landing(file) or landing, False)

    def is_forgotten(self, file: JobFile) -> bool:
        """Tell whether its files at OpenAI are deleted."""
        return self._store.read(file.forgotten_uri) is not None

    def mark_forgotten(self, file: JobFile) -> None:
        """Note that they are."""
        self._store.write(file.forgotten_uri, datetime.now(UTC).isoformat().encode(), "text/plain")

    def answers(self) -> dict[ContentKey, LandedAnswer]:
        """Return what all landed jobs said."""
        landings = (self.landing(file) for file in self.read_all())
        return {answer.key: answer for landing in landings if landing for answer in landing.answers}


def job_notes(jobs: JobFiles) -> list[str]:
    """Return what people should know of a batch's jobs: how many did not complete, and why."""
    notes = []
    for file in jobs.read_all():
        landing = jobs.landing(file)
        if landing is not None and landing.status != "completed":
            left = sum(len(one.keys) for one in file.job.asked) - len(landing.answers)
            why = f" ({landing.problem})" if landing.problem else ""
            notes.append(f"batch job {file.job.job_id} is {landing.status}{why}: {left} captions were asked online")
    return notes
