"""Reads each original once: hash, metadata and thumbnail come from that one pass."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import BinaryIO, NamedTuple

from image_analyzer.errors import ItemError, RetryableError
from image_analyzer.fingerprints import make_fingerprint
from image_analyzer.metadata import decode, decoder_errors, open_image, sniff_mime
from image_analyzer.ports import ObjectStore
from image_analyzer.records import TRIED_AGAIN, ErrorCode, ImageMetadata, ManifestEntry, ObjectRef, Record
from image_analyzer.reports import BatchReport
from image_analyzer.steps.batchfiles import METADATA, THUMBNAILS, BatchFiles, with_progress
from image_analyzer.thumbnails import paint_thumbnail, read_pack, thumbnail_uri, write_pack

log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 18
_READ_TRIES = 3
# Finished work is kept after so many objects: a killed task loses no more than these.
_KEEP_EVERY = 50
# A picture above this is decoded alone, so that memory stays bounded however many threads there are.
_LARGE_PIXELS = 25_000_000
_large_picture = threading.Lock()


class PrepareOptions(Record):
    """Bounds of what is read; see the settings of the same names."""

    max_image_bytes: int
    max_image_pixels: int
    thumbnail_px: int
    threads: int


class Prepared(NamedTuple):
    """One object's row and its thumbnail; the latter None if it could not be decoded."""

    metadata: ImageMetadata
    thumbnail: bytes | None
    read_original: bool = True


def prepare(store: ObjectStore, manifest_uri: str, options: PrepareOptions) -> BatchReport:
    """Write metadata and thumbnails of a batch.

    Raises:
        FatalError: The store refuses us; what was kept before that is taken up by the next try.
    """
    started = time.monotonic()
    files = BatchFiles(store, manifest_uri)
    manifest = files.manifest()
    done = _read_earlier_try(files)
    todo = [entry for entry in manifest.entries if entry.object.uri not in done]
    work = partial(prepare_object, store, files.uri(THUMBNAILS), options, _read_known_thumbnails(store, todo))
    originals = 0
    with ThreadPoolExecutor(options.threads, thread_name_prefix="prepare") as pool:
        outcomes = with_progress("prepare", manifest.batch_id, pool.map(work, todo), len(todo))
        for count, outcome in enumerate(outcomes, start=1):
            done[outcome.metadata.uri] = outcome
            originals += outcome.read_original
            if count % _KEEP_EVERY == 0:
                _keep(files, done)
    _keep(files, done)
    counts = Counter(str(outcome.metadata.error_code or "ok") for outcome in done.values())
    counts["originals_read"] = originals
    report = BatchReport(
        batch_id=manifest.batch_id, step="prepare", counts=dict(counts), seconds=round(time.monotonic() - started, 3)
    )
    files.write_report(report)
    return report


def _keep(files: BatchFiles, done: Mapping[str, Prepared]) -> None:
    """Write what is done so far; the pack first, since a row promises its thumbnail."""
    files.write_pack(
        write_pack((o.metadata.sha256 or "", o.thumbnail) for o in done.values() if o.thumbnail is not None)
    )
    files.write_lines(METADATA, (outcome.metadata for outcome in done.values()))


def _read_earlier_try(files: BatchFiles) -> dict[str, Prepared]:
    """Return what an earlier try of this very task kept, so that a retry reads no original again."""
    rows = [row for row in files.metadata() if row.error_code not in TRIED_AGAIN]
    if not rows:
        return {}
    thumbnails = dict(read_pack(files.thumbnails()))
    prepared = (Prepared(row, thumbnails.get(row.sha256 or ""), read_original=False) for row in rows)
    return {p.metadata.uri: p for p in prepared if p.thumbnail is not None or p.metadata.error_code is not None}


def prepare_object(
    store: ObjectStore, pack_uri: str, options: PrepareOptions, known: dict[str, bytes], entry: ManifestEntry
) -> Prepared:
    """Return the row of one object, whatever is wrong with it; only a `FatalError` gets out."""
    if entry.known is not None and (thumbnail := known.get(entry.known.thumbnail_uri or "")):
        own = thumbnail_uri(pack_uri, entry.known.sha256 or "")
        looks = make_fingerprint(thumbnail)._asdict()
        known_now = entry.known.model_copy(update={"thumbnail_uri": own, **looks})
        return Prepared(known_now, thumbnail, read_original=False)
    if entry.object.size_bytes > options.max_image_bytes:
        too_large = _failed(entry.object, None, _too_large(entry.object.size_bytes, options))
        return Prepared(too_large, None, read_original=False)
    reason = ""
    for attempt in range(_READ_TRIES):
        try:
            return _read_object(store, pack_uri, options, entry.object)
        except RetryableError as error:
            reason = str(error)
            time.sleep(0.2 * 2**attempt)
    log.warning("%s: not read after %d tries: %s", entry.object.uri, _READ_TRIES, reason)
    return Prepared(_failed(entry.object, None, ItemError(ErrorCode.STORE_UNAVAILABLE, reason)), None)


def _read_object(store: ObjectStore, pack_uri: str, options: PrepareOptions, obj: ObjectRef) -> Prepared:
    try:
        with store.open_object(obj.bucket, obj.key) as (current, body):
            content, sha256 = _stream(body, options)
    except ItemError as error:
        return Prepared(_failed(obj, None, error), None)
    # From here on the row is about the bytes that were read, which may be newer than the listing.
    try:
        with _large_picture if _is_large(content, options) else nullcontext():
            return describe_bytes(current, content, sha256, pack_uri, options)
    except ItemError as error:
        return Prepared(_failed(current, sha256, error, sniff_mime(content) if content else None), None)


def describe_bytes(obj: ObjectRef, content: bytes, sha256: str, pack_uri: str, options: PrepareOptions) -> Prepared:
    """Return metadata and thumbnail of a picture in memory.

    Raises:
        ItemError: It is no sound picture of a supported type.
    """
    image = open_image(content, max_pixels=options.max_image_pixels)
    facts = decode(image, obj.key, options.thumbnail_px)
    with decoder_errors():
        thumbnail = paint_thumbnail(image, facts.orientation, options.thumbnail_px)
    metadata = ImageMetadata(
        uri=obj.uri,
        etag=obj.etag,
        size_bytes=len(content),
        last_modified_at=obj.last_modified_at,
        sha256=sha256,
        mime_type=facts.mime_type,
        extension_matches=facts.extension_matches,
        width_px=facts.width_px,
        height_px=facts.height_px,
        frames=facts.frames,
        colour_mode=facts.colour_mode,
        thumbnail_uri=thumbnail_uri(pack_uri, sha256),
        **make_fingerprint(thumbnail)._asdict(),
    )
    return Prepared(metadata, thumbnail)


def _stream(body: BinaryIO, options: PrepareOptions) -> tuple[bytes, str]:
    """Read a body once, hashing on the way; stop as soon as it is larger than allowed, whatever was announced."""
    digest, content = hashlib.sha256(), bytearray()
    while chunk := body.read(_CHUNK_BYTES):
        digest.update(chunk)
        content += chunk
        if len(content) > options.max_image_bytes:
            raise _too_large(len(content), options)
    return bytes(content), digest.hexdigest()


def _is_large(content: bytes, options: PrepareOptions) -> bool:
    try:
        width, height = open_image(content, max_pixels=options.max_image_pixels).size
    except ItemError:
        return False
    return width * height > _LARGE_PIXELS


def _too_large(size_bytes: int, options: PrepareOptions) -> ItemError:
    return ItemError(
        ErrorCode.TOO_LARGE, f"{size_bytes} bytes are more than MAX_IMAGE_BYTES ({options.max_image_bytes})"
    )


def _failed(obj: ObjectRef, sha256: str | None, error: ItemError, mime: str | None = None) -> ImageMetadata:
    return ImageMetadata(
        uri=obj.uri,
        etag=obj.etag,
        size_bytes=obj.size_bytes,
        last_modified_at=obj.last_modified_at,
        sha256=sha256,
        mime_type=mime,
        error_code=ErrorCode(error.code),
        error_message=str(error),
    )


def _read_known_thumbnails(store: ObjectStore, entries: Iterable[ManifestEntry]) -> dict[str, bytes]:
    """Return thumbnails of earlier runs by address, each pack read once; packs that expired are left out."""
    wanted = {entry.known.thumbnail_uri for entry in entries if entry.known and entry.known.thumbnail_uri}
    found: dict[str, bytes] = {}
    for pack_uri in sorted({uri.partition("#")[0] for uri in wanted}):
        content = store.read(pack_uri)
        for sha256, jpeg in read_pack(content):
            uri = thumbnail_uri(pack_uri, sha256)
            if uri in wanted:
                found[uri] = jpeg
    return found
