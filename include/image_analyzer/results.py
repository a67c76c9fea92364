"""Joins what the steps wrote about one batch into rows of IMAGE_RESULTS. Nothing of the manifest is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from image_analyzer.keys import row_hash
from image_analyzer.records import (
    PIPELINE_FAULTS,
    CaptionRow,
    ErrorCode,
    Hint,
    ImageMetadata,
    Manifest,
    ManifestEntry,
    ObjectRef,
    Origin,
    Receipt,
    Status,
    Steps,
)
from image_analyzer.table import ResultRow

_UNANSWERED: dict[ErrorCode | None, Status] = {
    ErrorCode.NOT_CAPTIONED: Status.PENDING,
    ErrorCode.BUDGET_SPENT: Status.PENDING_BUDGET,
    ErrorCode.ASKED_ELSEWHERE: Status.PENDING,
}
_SKIPPED = frozenset({ErrorCode.UNSUPPORTED_TYPE, ErrorCode.OBJECT_DELETED})


def make_rows(
    manifest: Manifest,
    metadata: Iterable[ImageMetadata],
    hints: Iterable[Hint],
    captions: Iterable[CaptionRow],
    hint_model: str | None,
) -> list[ResultRow]:
    """Return one row for every object and language of the manifest, whatever is missing.

    Of pictures that are run again, those that are gone are left out.

    Args:
        hint_model: Who made the hints: a model's name, `off`, `missing`; None if the step did not end.
    """
    by_uri = {row.uri: row for row in metadata}
    by_sha = {hint.sha256: hint for hint in hints}
    by_pair = {(row.uri, row.language): row for row in captions}
    rows = []
    for entry in manifest.entries:
        uri = entry.object.uri
        facts = by_uri.get(uri) or _lost(entry)
        if manifest.reprocess and facts.error_code is ErrorCode.OBJECT_DELETED:
            continue  # its row is there and stays: nobody asked whether the picture is
        hint = by_sha.get(facts.sha256 or "")
        for language in entry.languages:
            caption = by_pair.get((uri, language))
            rows.append(_make_row(manifest, entry.object, facts, hint, caption, language, hint_model))
    return rows


def _lost(entry: ManifestEntry) -> ImageMetadata:
    """Return the row of an object whose batch died before it was read."""
    return ImageMetadata(
        uri=entry.object.uri,
        etag=entry.object.etag,
        size_bytes=entry.object.size_bytes,
        last_modified_at=entry.object.last_modified_at,
        error_code=ErrorCode.BATCH_LOST,
        error_message="the batch ended before this object was read; the next run tries again",
    )


def _make_row(
    manifest: Manifest,
    listed: ObjectRef,
    facts: ImageMetadata,
    hint: Hint | None,
    caption: CaptionRow | None,
    language: str,
    hint_model: str | None,
) -> ResultRow:
    status, code, message = _verdict(facts, caption, manifest.steps)
    columns: dict[str, Any] = {
        "image_uri": facts.uri,
        "language": language,
        "s3_path": facts.uri,
        "file_name": PurePosixPath(listed.key).name,
        "source": manifest.source,
        **facts.model_dump(mode="json", exclude={"uri", "error_code", "error_message"}),
        **_hint_columns(hint, hint_model if facts.error_code is None else None),
        "status": status,
        "error_code": code,
        "error_message": message,
        **_caption_columns(facts.uri, caption.receipt if caption else None),
    }
    if listed.address is not None:  # nothing of it lies in S3
        columns |= dict.fromkeys(("s3_path", "etag", "last_modified_at", "thumbnail_uri"))
    return ResultRow.model_validate({**columns, "row_hash": row_hash(columns), "run_id": manifest.run_id})


def _verdict(  # noqa: PLR0911 - one return for each way a row can end
    facts: ImageMetadata, caption: CaptionRow | None, steps: Steps
) -> tuple[Status, ErrorCode | None, str | None]:
    if facts.error_code is not None:
        status = Status.SKIPPED if facts.error_code in _SKIPPED else Status.FAILED
        return status, facts.error_code, facts.error_message
    if caption is None:
        if steps is not Steps.CAPTIONS:
            return Status.PENDING, None, None
        return Status.PENDING, ErrorCode.NOT_CAPTIONED, "the caption step did not reach this picture; the next run does"
    if caption.receipt is None:
        return _UNANSWERED.get(caption.error_code, Status.FAILED), caption.error_code, caption.error_message
    if caption.receipt.error_code in PIPELINE_FAULTS:
        return Status.FAILED, caption.receipt.error_code, caption.receipt.error_message
    if caption.receipt.caption is None:
        return Status.NEEDS_REVIEW, caption.receipt.error_code, caption.receipt.error_message
    return Status.OK if caption.receipt.caption else Status.DECORATIVE, None, None


def _hint_columns(hint: Hint | None, hint_model: str | None) -> dict[str, Any]:
    best = hint.labels[0] if hint and hint.labels else None
    return {
        "predicted_label": best.label if best else None,
        "predicted_score": best.score if best else None,
        "hints": [label.model_dump() for label in hint.labels] if hint else None,
        "hint_model": hint.model if hint else hint_model,
    }


def _caption_columns(uri: str, receipt: Receipt | None) -> dict[str, Any]:
    """Return the caption's columns. Who paid carries tokens and cost; every other address says `reused` and costs 0.

    What a person decided on the same bytes was written by no model and costs nothing.
    """
    if receipt is None:
        names = ("gpt_summary", "rejected_caption", "caption_origin", "caption_model", "prompt_version", "image_detail",
                 "policy_version", "violations", "decorative_reason", "contains_person", "visible_text", "uncertain",
                 "reused_from_uri", "words", "sentences", "input_tokens", "output_tokens", "cost_usd", "latency_s")  # fmt: skip
        return {**dict.fromkeys(names), "attempts": 0}
    by_person = receipt.origin is Origin.PERSON
    reused = by_person or (receipt.origin is not Origin.OFFLINE and receipt.paid_by_uri != uri)
    usage = receipt.usage
    return {
        "gpt_summary": receipt.caption,
        "rejected_caption": receipt.rejected_caption,
        "caption_origin": Origin.REUSED if reused and not by_person else receipt.origin,
        "caption_model": None if by_person else receipt.key.model,
        "prompt_version": None if by_person else receipt.key.prompt_version,
        "image_detail": None if by_person else receipt.key.detail,
        "policy_version": receipt.policy_version,
        "violations": list(receipt.violations) or None,
        **receipt.flags.model_dump(),
        "reused_from_uri": receipt.paid_by_uri if reused else None,
        "words": receipt.words,
        "sentences": receipt.sentences,
        "attempts": 0 if reused else usage.attempts,
        "input_tokens": 0 if reused else usage.input_tokens,
        "output_tokens": 0 if reused else usage.output_tokens,
        "cost_usd": 0.0 if reused else usage.cost_usd,
        "latency_s": None if reused else usage.latency_s,
    }


def count_by_status(rows: Iterable[ResultRow]) -> Mapping[str, int]:
    """Return how many rows have each status, with the error code where there is one: `failed:corrupt`."""
    counts: dict[str, int] = {}
    for row in rows:
        word = f"{row.status}:{row.error_code}" if row.error_code else str(row.status)
        counts[word] = counts.get(word, 0) + 1
    return counts
