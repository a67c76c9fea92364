"""Frozen rows that travel between steps, as JSON lines."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Record(BaseModel):
    """Base of all rows: immutable, and strict about unknown fields so that a renamed column cannot pass silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Steps(StrEnum):
    """How far a run goes."""

    METADATA = "metadata"
    HINTS = "hints"
    CAPTIONS = "captions"


class Status(StrEnum):
    """State of a row of IMAGE_RESULTS."""

    OK = "ok"
    DECORATIVE = "decorative"
    PENDING = "pending"
    PENDING_BUDGET = "pending_budget"
    NEEDS_REVIEW = "needs_review"
    SKIPPED = "skipped"
    FAILED = "failed"


class ErrorCode(StrEnum):
    """Why a row is not `ok`. The value is stable: people query it."""

    UNSUPPORTED_TYPE = "unsupported_type"
    EMPTY_FILE = "empty_file"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    OBJECT_DELETED = "object_deleted"
    OBJECT_ARCHIVED = "object_archived"
    ACCESS_DENIED = "access_denied"
    STORE_UNAVAILABLE = "store_unavailable"
    BATCH_LOST = "batch_lost"
    NOT_CAPTIONED = "not_captioned"
    CAPTION_UNAVAILABLE = "caption_unavailable"
    CAPTION_REJECTED = "caption_rejected"
    REFUSED = "refused"
    REQUEST_REJECTED = "request_rejected"
    IMAGE_NOT_SEEN = "image_not_seen"
    BUDGET_SPENT = "budget_spent"
    ASKED_ELSEWHERE = "asked_elsewhere"
    REJECTED_BY_PERSON = "rejected_by_person"


# The pipeline's fault, not the picture's: the run is red and the next run tries again.
PIPELINE_FAULTS = frozenset(
    {
        ErrorCode.STORE_UNAVAILABLE,
        ErrorCode.ACCESS_DENIED,
        ErrorCode.BATCH_LOST,
        ErrorCode.NOT_CAPTIONED,
        ErrorCode.CAPTION_UNAVAILABLE,
        ErrorCode.IMAGE_NOT_SEEN,
    }
)
# Tried again, too, but nobody's fault: the run is green.
TRIED_AGAIN = PIPELINE_FAULTS | {ErrorCode.OBJECT_ARCHIVED, ErrorCode.BUDGET_SPENT, ErrorCode.ASKED_ELSEWHERE}


class Origin(StrEnum):
    """Where a caption came from. PERSON: a person decided on a caption of the same bytes."""

    MODEL = "model"
    REUSED = "reused"
    PERSON = "person"
    OFFLINE = "offline"


class Source(StrEnum):
    """How a picture came to us: out of a listing of S3, or uploaded by a person."""

    S3 = "s3"
    UPLOAD = "upload"


class ObjectRef(Record):
    """One object of a listing.

    Attributes:
        etag: Without quotes. It is no proof of content: different pictures may share it.
        address: What rows call it where it is not in S3: `sha256:<hex>`, of an upload that was not archived.
    """

    bucket: str
    key: str
    etag: str
    size_bytes: int = Field(ge=0)
    last_modified_at: datetime
    address: str | None = None

    @property
    def uri(self) -> str:
        """Return `s3://bucket/key`, or the address."""
        return self.address or f"s3://{self.bucket}/{self.key}"


class ImageMetadata(Record):
    """What `prepare` read of one object.

    Attributes:
        width_px, height_px: As displayed, EXIF orientation applied. None if it could not be decoded.
        etag, size_bytes, last_modified_at: Of the bytes that were read, which may be newer than the listing's.
        frames: 1 for a still picture.
        thumbnail_uri: `s3://…/thumbnails.zip#<sha256>.jpg`; None if it could not be decoded.
        phash, mean_colour: What it looks like, see `Fingerprint`.
        error_code: None when the picture is sound.
    """

    uri: str
    etag: str
    size_bytes: int
    last_modified_at: datetime
    sha256: str | None = None
    mime_type: str | None = None
    extension_matches: bool | None = None
    width_px: int | None = None
    height_px: int | None = None
    frames: int | None = None
    colour_mode: str | None = None
    thumbnail_uri: str | None = None
    phash: str | None = None
    mean_colour: str | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None


class Label(Record):
    """One class of a model with its softmax score, 0 to 1."""

    label: str
    score: float = Field(ge=0, le=1)


class Hint(Record):
    """The top labels of one picture, best first. Private: it is never shown in a caption or on a page."""

    sha256: str
    model: str
    labels: tuple[Label, ...]


class HintFile(Record):
    """What the hint step wrote for a batch.

    Attributes:
        model: Name of the model; `off` if hints are switched off or not asked for, `missing` if there is no model.
    """

    model: str
    hints: tuple[Hint, ...] = ()


class Reason(StrEnum):
    """Why a row of IMAGE_RESULTS is run through the steps again, by order of what is asked first of a row.

    FAILED: STATUS is failed, whoever's fault it was. BUDGET, CAPTION: it waits for budget, or for any other caption.
    LANGUAGE: there is no row in a wanted language. MODEL, PROMPT: another model, image detail or prompt wrote the caption.
    POLICY: it was checked against another wording policy. HINT: another hint model, or none, was used.
    """

    FAILED = "failed"
    BUDGET = "budget"
    CAPTION = "caption"
    LANGUAGE = "language"
    MODEL = "model"
    PROMPT = "prompt"
    POLICY = "policy"
    HINT = "hint"


class RunRequest(Record):
    """What one run is asked to do.

    Attributes:
        reprocess: Run rows of IMAGE_RESULTS again for these reasons, instead of looking for new objects.
        limit: Take at most so many objects; None for all.
        dry_run: Plan only: nothing is read, asked or written.
        canaries: Also caption test pictures whose right answer is known.
        from_day, to_day: Only objects that were last changed in S3 on these days, UTC, both included; None for any.
    """

    run_id: str
    bucket: str
    prefix: str
    languages: tuple[str, ...]
    steps: Steps = Steps.CAPTIONS
    limit: int | None = Field(None, ge=1)
    dry_run: bool = False
    canaries: bool = False
    reprocess: tuple[Reason, ...] = ()
    from_day: date | None = None
    to_day: date | None = None

    @model_validator(mode="after")
    def _window_is_open(self) -> RunRequest:
        if self.from_day and self.to_day and self.from_day > self.to_day:
            raise ValueError(f"from_day {self.from_day} is after to_day {self.to_day}: no object is from both")
        return self

    def concerns(self, changed_at: datetime) -> bool:
        """Tell whether an object that was last changed then is in the window of days."""
        day = changed_at.astimezone(UTC).date()
        return (self.from_day or day) <= day <= (self.to_day or day)


class ManifestEntry(Record):
    """One object to process, the languages it lacks, and what is already known of the same version of it."""

    object: ObjectRef
    languages: tuple[str, ...]
    known: ImageMetadata | None = None


class Manifest(Record):
    """The work of one mapped task group, or one upload."""

    run_id: str
    batch_id: str
    steps: Steps
    entries: tuple[ManifestEntry, ...]
    source: Source = Source.S3
    canaries: bool = False
    reprocess: bool = False


class BatchRef(Record):
    """What crosses XCom for one batch."""

    batch_id: str
    uri: str
    images: int


class Plan(Record):
    """What `discover` decided.

    Attributes:
        listed: Objects under the prefix.
        images: Objects that lack something.
        captions: Pairs of object and language to ask for.
        reprocess: Why rows are run again; empty for a run that looks for new objects.
        estimated_cost_usd: Upper bound if no picture is a duplicate; 0 for the offline describer; None if no price is known.
        notes: What people should know, such as an adapted batch size.
    """

    run_id: str
    steps: Steps
    dry_run: bool
    listed: int
    images: int
    captions: int
    batch_size: int
    estimated_cost_usd: float | None
    batches: tuple[BatchRef, ...]
    notes: tuple[str, ...] = ()
    reprocess: tuple[Reason, ...] = ()


class ContentKey(Record):
    """What is paid for once: the same bytes, language, prompt, model and image detail."""

    sha256: str
    language: str
    prompt_version: str
    model: str
    detail: str


class Usage(Record):
    """What one or several requests consumed. Tokens are None where the server does not report them."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    attempts: int = 0
    latency_s: float = 0.0


class CaptionFlags(Record):
    """What the model says of the picture beside the caption. None where it does not say.

    Attributes:
        decorative_reason: Why the picture needs no caption; None if it needs one.
        uncertain: The model is not sure of what it sees.
    """

    decorative_reason: str | None = None
    contains_person: bool | None = None
    visible_text: bool | None = None
    uncertain: bool | None = None


class Receipt(Record):
    """The stored answer to one content key, and who paid.

    Attributes:
        caption: The published text, empty for a decorative picture; None if the contract rejected it.
        policy_version: The wording policy that it was checked against.
        violations: Codes of the rules that any attempt broke, repaired ones included.
        rejected_caption: The last text that broke the contract.
        paid_by_uri: The image address whose row carries the cost.
        run_id: The run that paid.
    """

    key: ContentKey
    caption: str | None
    rejected_caption: str | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None
    policy_version: str | None = None
    violations: tuple[str, ...] = ()
    flags: CaptionFlags = CaptionFlags()
    words: int | None = None
    sentences: int | None = None
    usage: Usage
    origin: Origin
    paid_by_uri: str
    run_id: str


class CaptionRow(Record):
    """The caption of one image address in one language."""

    uri: str
    language: str
    receipt: Receipt | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None
