"""The seams to the outside. Steps know these only; `clients/` fills them, tests hand in their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from enum import StrEnum
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from image_analyzer.captions import CaptionAnswer
from image_analyzer.errors import ItemError
from image_analyzer.hints import Preprocessing
from image_analyzer.prompts import CaptionRequest
from image_analyzer.records import ContentKey, ManifestEntry, ObjectRef, Origin, Reason, Receipt, Steps
from image_analyzer.reports import CheckOutcome, MergeReport
from image_analyzer.reviews import Decided, Review
from image_analyzer.table import ResultRow, StandingRow


class OpenObject(NamedTuple):
    """An object while it is read: the listing's facts as of this very read, and its bytes."""

    ref: ObjectRef
    body: BinaryIO


class ObjectStore(Protocol):
    """An S3 endpoint. Every method raises RetryableError or FatalError where the endpoint fails."""

    def list_objects(self, bucket: str, prefix: str) -> Iterator[ObjectRef]:
        """Yield the objects under a prefix in key order, from the listing alone."""
        ...

    def open_object(self, bucket: str, key: str) -> AbstractContextManager[OpenObject]:
        """Open the current version for one streamed read; ItemError OBJECT_DELETED if there is none."""
        ...

    def read(self, uri: str) -> bytes | None:
        """Return a small file of ours; None if it is not there."""
        ...

    def read_with_age(self, uri: str) -> tuple[bytes, float] | None:
        """Return a small file of ours, and the seconds since it was written by the store's clock; None if it is not there."""
        ...

    def write(self, uri: str, content: bytes, content_type: str) -> None:
        """Write a file of ours whole, replacing an earlier one."""
        ...

    def create(self, uri: str, content: bytes) -> bool:
        """Write a file of ours if there is none; of several at once only one is told True."""
        ...

    def delete(self, uri: str) -> None:
        """Delete a file of ours; none there is fine."""
        ...


class HeldFiles(ObjectStore, Protocol):
    """Files of the steps for one picture that is held in memory: it is the only original there is."""

    def hold(self, ref: ObjectRef) -> None:
        """Say what the original is called."""
        ...


class HintModel(Protocol):
    """A trained network that labels thumbnails."""

    @property
    def name(self) -> str:
        """Name that rows carry."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """One name a class, in the model's order."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How inputs are made."""
        ...

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return softmax scores `(N, classes)` for inputs `(N, px, px, 3)`."""
        ...


class Captioner(Protocol):
    """Who writes captions.

    Attributes:
        model, detail: Part of the content key.
        origin: What rows say of its captions.
        paid: Whether an answer costs money and so must never be asked for twice.
        proven: Whether it is known to see what it is shown.
    """

    model: str
    detail: str
    origin: Origin
    paid: bool
    proven: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What the owner of the bill should know of how it answered."""
        ...

    def most_usd(self, request: CaptionRequest) -> float:
        """Return an upper bound of what one request costs."""
        ...

    async def caption(self, request: CaptionRequest) -> CaptionAnswer:
        """Answer one request, rate limits waited out.

        Raises:
            BudgetExceededError: A cap on cost leaves too little.
            ItemError: This picture will never be answered.
            RetryableError: It may be answered later.
            FatalError: Nothing will be answered until a person acts.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class JobState(NamedTuple):
    """How far a batch job is.

    Attributes:
        status: OpenAI's word.
        ended_at: Since when nothing more comes; None while more may.
        queue_full: It was refused since too many tokens wait already; it may be sent again later.
        problem: Why it was refused; empty if it was not.
        files: Ids by `input`, `output`, `error`.
    """

    job_id: str
    status: str
    ended_at: datetime | None
    queue_full: bool
    problem: str
    files: dict[str, str]

    @property
    def ended(self) -> bool:
        """Return whether nothing more will come."""
        return self.ended_at is not None


class JobReply(NamedTuple):
    """What came of one request of a job: an answer, or that this picture will never be answered."""

    custom_id: str
    answer: CaptionAnswer | None
    rejection: ItemError | None


class JobService(Protocol):
    """Answers files of requests within a day. Every method raises RetryableError or FatalError where the service fails."""

    def line(self, custom_id: str, request: CaptionRequest) -> bytes:
        """Return one request as a line of a job's file."""
        ...

    def most_usd(self, request: CaptionRequest) -> float:
        """Return an upper bound of what one request costs in a job."""
        ...

    async def send(self, name: str, content: bytes) -> str:
        """Begin a job; return its id. After an error look for its name before it is sent again."""
        ...

    async def find(self, name: str, since: datetime) -> str | None:
        """Return the id of the job of this name that was begun after `since`."""
        ...

    async def look(self, job_id: str) -> JobState | None:
        """Return how far a job is; None if it is unknown."""
        ...

    def read(self, state: JobState, requests: Mapping[str, CaptionRequest]) -> AsyncIterator[JobReply]:
        """Yield what an ended job answered, requests without an answer left out; AnswersGoneError if it is not there any more."""
        ...

    async def cancel(self, job_id: str) -> None:
        """Ask that no more of a job be worked off."""
        ...

    async def forget(self, state: JobState) -> None:
        """Delete a job's files."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class DiscoverQuery(NamedTuple):
    """What counts as done when a listing is compared with IMAGE_RESULTS.

    Attributes:
        languages: Each object needs a row in each.
        replace_offline: Captions of the offline describer count as missing.
        limit: At most so many objects are returned, the first by address; more are not held in memory.
    """

    languages: tuple[str, ...]
    steps: Steps
    replace_offline: bool
    limit: int | None = None


class StaleQuery(NamedTuple):
    """What counts as stale.

    Attributes:
        prefix_uri: How the image addresses begin.
        model, detail, prompt_version: Of captions as they would be asked for now.
        hint_model: Empty if hints do not count.
        from_day, to_day: When the object was last changed in S3, UTC; None for any.
    """

    languages: tuple[str, ...]
    reasons: tuple[Reason, ...]
    prefix_uri: str
    prompt_version: str
    model: str
    detail: str
    hint_model: str
    from_day: date | None = None
    to_day: date | None = None


class StalePicture(NamedTuple):
    """One picture to run again, with the reason for each language of its entry."""

    entry: ManifestEntry
    reasons: tuple[Reason, ...]


class Warehouse(Protocol):
    """IMAGE_RESULTS and what belongs to it."""

    def create_tables(self) -> None:
        """Create what is missing; touches nothing that is there."""
        ...

    def select_missing(self, listing: Iterable[ObjectRef], query: DiscoverQuery) -> list[ManifestEntry]:
        """Return the objects that lack a row, in key order, with their missing languages and what is known of them."""
        ...

    def select_stale(self, query: StaleQuery) -> list[StalePicture]:
        """Return pictures of IMAGE_RESULTS to run again, in order of their addresses."""
        ...

    def select_receipts(self, keys: Sequence[ContentKey], *, of_any_model: bool = False) -> dict[ContentKey, Receipt]:
        """Return what is already there for these content keys, by key as asked: people's decisions before models' answers.

        Args:
            of_any_model: Take whichever model's answer there is.
        """
        ...

    def merge(self, batches: Iterable[Sequence[ResultRow]]) -> MergeReport:
        """Stage rows batch by batch and MERGE them once, history in the same transaction."""
        ...

    def settle(self, rows: Sequence[ResultRow]) -> list[StandingRow]:
        """MERGE a few rows and return all rows of their addresses as they stand then: people's were left alone."""
        ...

    def check(self, run_id: str) -> list[CheckOutcome]:
        """Run every file of `include/sql/checks/` on the rows of this run."""
        ...

    def select_results(self, limit: int, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return rows of IMAGE_RESULTS, newest first, for people to read."""
        ...


class Queue(StrEnum):
    """Rows for a reviewer.

    WAITING: a person must decide. FLAGGED: published, but looks odd. PUBLISHED: any that nobody looked at, by chance.
    REJECTED: a person rejected the caption, and somebody should write one.
    """

    WAITING = "waiting"
    FLAGGED = "flagged"
    PUBLISHED = "published"
    REJECTED = "rejected"


class Search(NamedTuple):
    """What rows must have; an empty string for anything.

    Attributes:
        words: In the caption or the file name, any case.
        label: In the label hint.
        from_day, to_day: Of the last change, `YYYY-MM-DD`, UTC.
    """

    words: str = ""
    status: str = ""
    language: str = ""
    label: str = ""
    image_uri: str = ""
    sha256: str = ""
    from_day: str = ""
    to_day: str = ""


class ReviewDesk(Protocol):
    """What people see of IMAGE_RESULTS and decide on it."""

    def select_queue(self, queue: Queue, language: str, limit: int) -> list[dict[str, Any]]:
        """Return rows to decide on, oldest first; an empty language for all."""
        ...

    def search(self, search: Search, limit: int, after: tuple[str, str] = ("", "")) -> list[dict[str, Any]]:
        """Return rows in order of address and language, those after (address, language)."""
        ...

    def read_view(self, name: str) -> list[dict[str, Any]]:
        """Return all rows of a view for analysts."""
        ...

    def save(self, review: Review, decided: Decided) -> int:
        """Write a decision into the row and into rows of the same bytes that nobody decided on; return how many.

        Raises:
            ChangedMeanwhileError: The row is no longer what the person saw; says who changed it.
        """
        ...
