"""Captions one picture at once, by the steps of the nightly run, and stores its rows beside theirs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import NamedTuple, cast
from uuid import uuid4

from pydantic import Field

from image_analyzer.errors import BudgetExceededError, ItemError, RetryableError
from image_analyzer.ports import Captioner, HeldFiles, HintModel, ObjectStore, Warehouse
from image_analyzer.records import (
    ContentKey,
    ErrorCode,
    Manifest,
    ManifestEntry,
    ObjectRef,
    Receipt,
    Record,
    Source,
    Status,
    Steps,
)
from image_analyzer.steps.asking import CaptionOptions, owner_name
from image_analyzer.steps.batchfiles import METADATA, BatchFiles
from image_analyzer.steps.caption import caption
from image_analyzer.steps.hint import hint
from image_analyzer.steps.jobfiles import Adopter
from image_analyzer.steps.ledger import Ledger
from image_analyzer.steps.merge import read_batch
from image_analyzer.steps.prepare import PrepareOptions, prepare
from image_analyzer.table import ResultRow
from image_analyzer.thumbnails import read_pack
from image_analyzer.workarea import WorkArea

log = logging.getLogger(__name__)
UPLOADS = "uploads"
ADHOC = "adhoc"  # begins the run's name of single pictures; pipeline_runs.sql leaves them out
_ANSWERED = frozenset({Status.OK, Status.DECORATIVE, Status.NEEDS_REVIEW})


class Upload(NamedTuple):
    """One picture.

    Attributes:
        name: Its file name; tells nothing but the extension and what the row is called.
        archive: Keep the original in S3. Else nothing of the picture is kept, not even a thumbnail.
        store: Write the rows into IMAGE_RESULTS, where there is a warehouse.
    """

    content: bytes
    name: str
    languages: tuple[str, ...]
    archive: bool = False
    store: bool = True


class Uploaded(Record):
    """What came of an upload.

    Attributes:
        rows: One for each language: as they stand in IMAGE_RESULTS if they were stored, else as they would.
        stored: Whether they were.
        paid_usd: What this upload paid, by language; 0 for what was known, null where the price is not.
        decided: REVIEW_STATUS by language, where a person decided.
        problem: Why not, in a sentence; empty if they are, or were not to be.
        thumbnail: What the models saw, JPEG.
    """

    rows: tuple[ResultRow, ...]
    stored: bool
    problem: str = ""
    thumbnail: bytes = b""
    paid_usd: dict[str, float | None] = Field(default_factory=dict)
    decided: dict[str, str] = Field(default_factory=dict)


class DeskTools(NamedTuple):
    """What single pictures are captioned with.

    Attributes:
        store: The bucket; None where there is none: nothing can be archived.
        bucket: Its name.
        kept: Where the ledger and the books of cost lie: the bucket, or a folder of this machine.
        work: Names files of ours in `kept`.
        warehouse: None where there is none: rows are returned, not stored.
        captioner: Builds who writes the captions, within the caps, for the named owner.
        hint_model: Model, or None and why not.
        hold: Holds a picture, and files of the steps, for as long as it is worked on.
    """

    store: ObjectStore | None
    bucket: str
    kept: ObjectStore
    work: WorkArea
    ledger: Ledger
    warehouse: Warehouse | None
    captioner: Callable[[str], Captioner]
    adopter: Callable[[], Adopter | None]
    hint_model: tuple[HintModel | None, str]
    prepare: PrepareOptions
    options: CaptionOptions
    hold: Callable[[bytes], AbstractContextManager[HeldFiles]]


def caption_upload(tools: DeskTools, upload: Upload) -> Uploaded:
    """Caption a picture that a person brings.

    Nothing is stored of a picture that is not sound, and nothing is asked before a wanted archive holds it.

    Raises:
        ItemError: It is no sound picture of a supported type, or too large.
        BudgetExceededError: A cap on cost leaves too little.
        RetryableError, FatalError: S3 or OpenAI do not answer; a caption that was paid for is in the ledger.
    """
    sha256 = hashlib.sha256(upload.content).hexdigest()
    if upload.archive and tools.store is None:
        raise ItemError(ErrorCode.STORE_UNAVAILABLE, "there is no bucket to archive in: S3_BUCKET is not set")
    name = safe_name(upload.name)
    held = _make_ref(tools.bucket or "local", f"{UPLOADS}/{sha256}/{name}", upload.content, address=f"sha256:{sha256}")
    with tools.hold(upload.content) as files:
        desk = _Desk(tools, files, sha256)
        desk.prepare(held, upload.languages, Source.UPLOAD)
        if upload.archive and tools.store is not None:
            desk.move_to(_archive(tools.store, tools.bucket, sha256, name, upload.content))
        return desk.caption(store=upload.store)


def caption_object(tools: DeskTools, bucket: str, key: str, languages: tuple[str, ...]) -> Uploaded:
    """Caption an object of S3 now, instead of by the next run; its row is the one that the run would write.

    Raises:
        ItemError: It is not there, or no sound picture of a supported type, or too large.
        BudgetExceededError: A cap on cost leaves too little.
        RetryableError, FatalError: S3 or OpenAI do not answer.
    """
    if tools.store is None:
        raise ItemError(ErrorCode.STORE_UNAVAILABLE, "S3_BUCKET is not set")
    with tools.store.open_object(bucket, key) as (ref, body):
        most = tools.prepare.max_image_bytes
        content = body.read(most + 1) if ref.size_bytes <= most else b""
    if ref.size_bytes > most or len(content) > most:
        raise ItemError(ErrorCode.TOO_LARGE, f"{ref.size_bytes} bytes are more than MAX_IMAGE_BYTES ({most})")
    with tools.hold(content) as files:
        desk = _Desk(tools, files, hashlib.sha256(content).hexdigest())
        desk.prepare(ref, languages, Source.S3)
        return desk.caption(store=True)


def store_rows(warehouse: Warehouse, uploaded: Uploaded) -> Uploaded:
    """Write the rows of an upload, also again if it could not be done at first; what cannot be stored now is not lost."""
    answered = [row for row in uploaded.rows if row.status in _ANSWERED]
    try:
        standing = {found.row.language: found for found in warehouse.settle(answered)}
    except RetryableError as error:
        log.warning("upload %s is not stored: %s", answered[0].image_uri, error)
        return uploaded.model_copy(update={"problem": str(error)})
    rows = tuple(standing[row.language].row if row.language in standing else row for row in uploaded.rows)
    asked = {row.language for row in rows}
    decided = {name: found.review_status for name, found in standing.items() if found.review_status and name in asked}
    return uploaded.model_copy(update={"rows": rows, "stored": True, "problem": "", "decided": decided})


def safe_name(name: str) -> str:
    """Return the last part of a file name without what confuses paths and people; `picture` if nothing is left."""
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join(letter if letter.isalnum() or letter in "-_. ()" else "-" for letter in last)
    return kept.strip(". ")[-120:] or "picture"


class _Desk:
    """One picture on its way through the steps."""

    def __init__(self, tools: DeskTools, files: HeldFiles, sha256: str) -> None:
        self._tools, self._store, self._sha256 = tools, files, sha256
        # As the thumbnail's address in the rows begins.
        self._files = BatchFiles(files, f"{tools.work.root_uri}/{UPLOADS}/{sha256}/manifest.json")

    def prepare(self, ref: ObjectRef, languages: tuple[str, ...], source: Source) -> None:
        """Read the picture."""
        self._store.hold(ref)
        entry = ManifestEntry(object=ref, languages=languages)
        # A name of its own: of two who bring the same picture at once one asks, the other waits for the answer, and it
        # is told who paid.
        run_id, batch_id = f"{ADHOC}-{uuid4().hex[:12]}", f"upload-{self._sha256[:16]}"
        manifest = Manifest(run_id=run_id, batch_id=batch_id, steps=Steps.CAPTIONS, entries=(entry,), source=source)
        self._files.write_record("manifest.json", manifest)
        prepare(self._store, self._files.manifest_uri, self._tools.prepare)
        (facts,) = self._files.metadata()
        if facts.error_code is not None:
            raise ItemError(facts.error_code, facts.error_message or "")

    def move_to(self, ref: ObjectRef) -> None:
        """Say where the picture, which was read already, now lies."""
        manifest = self._files.manifest()
        entry = manifest.entries[0].model_copy(update={"object": ref})
        self._files.write_record("manifest.json", manifest.model_copy(update={"entries": (entry,)}))
        (facts,) = self._files.metadata()
        place = {"uri": ref.uri, "etag": ref.etag, "last_modified_at": ref.last_modified_at}
        self._files.write_lines(METADATA, [facts.model_copy(update=place)])

    def caption(self, *, store: bool) -> Uploaded:
        """Write hints and captions, then store the rows; where the warehouse is down they are returned all the same."""
        tools, uri = self._tools, self._files.manifest_uri
        hint(self._store, uri, *tools.hint_model)
        patient = cast("Warehouse", _Patient(tools.warehouse)) if tools.warehouse else None
        captioner, adopter = tools.captioner(owner_name(self._files.manifest())), tools.adopter()
        caption(self._store, patient, tools.ledger, uri, captioner, tools.options, adopter=adopter)
        rows = tuple(read_batch(self._store, uri).rows)
        answered = [row for row in rows if row.status in _ANSWERED]
        if not answered:
            message = rows[0].error_message or ""
            raise BudgetExceededError(message) if rows[0].status is Status.PENDING_BUDGET else RetryableError(message)
        self._keep_thumbnail(answered[0].thumbnail_uri)
        thumbnail = next((jpeg for _, jpeg in read_pack(self._files.thumbnails())), b"")
        uploaded = Uploaded(rows=rows, stored=False, thumbnail=thumbnail, paid_usd=self._paid())
        return store_rows(tools.warehouse, uploaded) if tools.warehouse and store else uploaded

    def _paid(self) -> dict[str, float | None]:
        run_id = self._files.manifest().run_id
        receipts = {row.language: row.receipt for row in self._files.captions() if row.receipt}
        return {name: r.usage.cost_usd if r.run_id == run_id else 0.0 for name, r in receipts.items()}

    def _keep_thumbnail(self, thumbnail_uri: str | None) -> None:
        """Put the thumbnail where the rows say it is; there is none of what is not archived."""
        if self._tools.store is not None and thumbnail_uri is not None:
            pack_uri = thumbnail_uri.partition("#")[0]
            self._tools.store.write(pack_uri, self._files.thumbnails() or b"", "application/zip")


class _Patient:
    """A warehouse that may be down: then nothing is known from it, and the ledger alone keeps us from paying twice."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def __getattr__(self, name: str) -> object:
        return getattr(self._warehouse, name)

    def select_receipts(self, keys: Sequence[ContentKey], *, of_any_model: bool = False) -> dict[ContentKey, Receipt]:
        """Return what is known; nothing if the warehouse does not answer."""
        try:
            return self._warehouse.select_receipts(keys, of_any_model=of_any_model)
        except RetryableError as error:
            log.warning("IMAGE_RESULTS does not answer, the ledger is asked alone: %s", error)
            return {}


def _make_ref(bucket: str, key: str, content: bytes, *, address: str | None) -> ObjectRef:
    return ObjectRef(
        bucket=bucket, key=key, etag="", size_bytes=len(content), last_modified_at=datetime.now(UTC), address=address
    )


def _archive(store: ObjectStore, bucket: str, sha256: str, name: str, content: bytes) -> ObjectRef:
    """Put an original into the bucket; return it as a listing shows it. The same file on one day is one object."""
    key = f"{UPLOADS}/{datetime.now(UTC):%Y/%m/%d}/{sha256[:16]}/{name}"
    found = {obj.key: obj for obj in store.list_objects(bucket, key)}
    if key not in found:
        store.write(f"s3://{bucket}/{key}", content, "application/octet-stream")
        found = {obj.key: obj for obj in store.list_objects(bucket, key)}
    if key not in found:
        raise RetryableError(f"s3://{bucket}/{key} was written and is not listed yet")
    return found[key]
