"""Reads and writes the files of one batch and says how far a step is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from image_analyzer.errors import FolderGoneError
from image_analyzer.jsonl import dump_lines, load_lines
from image_analyzer.ports import ObjectStore
from image_analyzer.records import CaptionRow, HintFile, ImageMetadata, Manifest, Record
from image_analyzer.reports import BatchReport
from image_analyzer.workarea import sibling_uri

log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_LOG_EVERY_S = 2.0

METADATA, THUMBNAILS, HINTS, CAPTIONS = "metadata.jsonl", "thumbnails.zip", "hints.json", "captions.jsonl"
STEP_NAMES = ("prepare", "hint", "caption")


class BatchFiles:
    """The files beside one manifest. A step that runs again writes the same names.

    Args:
        manifest_uri: Where the manifest lies.
    """

    def __init__(self, store: ObjectStore, manifest_uri: str) -> None:
        self._store, self.manifest_uri = store, manifest_uri

    def uri(self, name: str) -> str:
        """Return the address of one of the batch's files."""
        return sibling_uri(self.manifest_uri, name)

    def manifest(self) -> Manifest:
        """Read the manifest.

        Raises:
            FatalError: It is gone; no retry brings it back.
        """
        content = self._store.read(self.manifest_uri)
        if content is None:
            raise FolderGoneError(f"{self.manifest_uri} is gone: was the work prefix emptied during the run?")
        return Manifest.model_validate_json(content)

    def metadata(self) -> list[ImageMetadata]:
        """Read what `prepare` wrote; empty if it did not end."""
        return load_lines(self._store.read(self.uri(METADATA)), ImageMetadata)

    def thumbnails(self) -> bytes | None:
        """Read the pack of thumbnails; None if `prepare` did not end."""
        return self._store.read(self.uri(THUMBNAILS))

    def hints(self) -> HintFile | None:
        """Read what `hint` wrote; None if it did not end."""
        content = self._store.read(self.uri(HINTS))
        return HintFile.model_validate_json(content) if content else None

    def captions(self) -> list[CaptionRow]:
        """Read what `caption` wrote; empty if it did not end."""
        return load_lines(self._store.read(self.uri(CAPTIONS)), CaptionRow)

    def reports(self) -> list[BatchReport]:
        """Read the reports of the steps that ended."""
        contents = (self._store.read(self.uri(f"{step}.report.json")) for step in STEP_NAMES)
        return [BatchReport.model_validate_json(content) for content in contents if content]

    def write_lines(self, name: str, rows: Iterable[Record]) -> None:
        """Write rows as JSON lines."""
        self._store.write(self.uri(name), dump_lines(rows), "application/x-ndjson")

    def write_record(self, name: str, record: Record) -> None:
        """Write one record as JSON."""
        self._store.write(self.uri(name), record.model_dump_json().encode(), "application/json")

    def write_pack(self, content: bytes) -> None:
        """Write the pack of thumbnails."""
        self._store.write(self.uri(THUMBNAILS), content, "application/zip")

    def write_report(self, report: BatchReport) -> None:
        """Write and log what a step did."""
        self.write_record(f"{report.step}.report.json", report)
        log.info("%s %s: %s in %.1f s", report.step, report.batch_id, report.counts, report.seconds)


def with_progress(step: str, batch_id: str, items: Iterable[_Item], total: int) -> Iterator[_Item]:
    """Pass items through and log how many went by, every few seconds and at the end."""
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if count == total or time.monotonic() - last >= _LOG_EVERY_S:
            last = time.monotonic()
            log.info("progress %s %s %d/%d", step, batch_id, count, total)
