"""Rows of IMAGE_RESULTS and the page that shows them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from conftest import paint

from image_analyzer.contactsheet import Card, render_sheet, shrink
from image_analyzer.records import (
    CaptionRow,
    ContentKey,
    ErrorCode,
    Hint,
    ImageMetadata,
    Label,
    Manifest,
    ManifestEntry,
    ObjectRef,
    Origin,
    Receipt,
    Status,
    Steps,
    Usage,
)
from image_analyzer.reports import RunReport
from image_analyzer.results import make_rows
from image_analyzer.table import ResultRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
URI = "s3://b/in/a.jpg"


def _manifest(steps: Steps = Steps.CAPTIONS) -> Manifest:
    obj = ObjectRef(bucket="b", key="in/a.jpg", etag="e", size_bytes=5, last_modified_at=NOW)
    return Manifest(run_id="r", batch_id="b", steps=steps, entries=(ManifestEntry(object=obj, languages=("en", "fr")),))


def _facts(error: ErrorCode | None = None) -> ImageMetadata:
    return ImageMetadata(
        uri=URI, etag="e", size_bytes=5, last_modified_at=NOW, sha256="aa", mime_type="image/jpeg", width_px=4,
        height_px=3, frames=1, error_code=error, error_message="why" if error else None,
    )  # fmt: skip


def _receipt(language: str, paid_by: str = URI, caption: str | None = "A dog.") -> Receipt:
    key = ContentKey(sha256="aa", language=language, prompt_version="1", model="m", detail="high")
    code = None if caption else ErrorCode.CAPTION_REJECTED
    usage = Usage(input_tokens=7, output_tokens=3, cost_usd=0.25, attempts=2, latency_s=1.5)
    return Receipt(
        key=key, caption=caption, error_code=code, words=2, sentences=1, usage=usage, origin=Origin.MODEL,
        paid_by_uri=paid_by, run_id="r",
    )  # fmt: skip


def _rows(*captions: CaptionRow, error: ErrorCode | None = None, steps: Steps = Steps.CAPTIONS) -> list[ResultRow]:
    return make_rows(_manifest(steps), [_facts(error)], [], captions, "off")


def test_every_object_and_language_has_a_row_even_if_nothing_was_done() -> None:
    """A batch that died before reading leaves a row for each object and language, to be tried again."""
    rows = make_rows(_manifest(), [], [], [], None)

    assert [("en", Status.FAILED), ("fr", Status.FAILED)] == [(row.language, row.status) for row in rows]
    assert {ErrorCode.BATCH_LOST} == {row.error_code for row in rows}


def test_a_caption_that_was_not_asked_is_pending_not_failed() -> None:
    """Nothing is marked failed that was not tried."""
    (english, french) = _rows(CaptionRow(uri=URI, language="en", receipt=_receipt("en")))

    assert (Status.OK, "A dog.") == (english.status, english.gpt_summary)
    assert (Status.PENDING, ErrorCode.NOT_CAPTIONED, None) == (french.status, french.error_code, french.gpt_summary)


def test_a_metadata_run_is_pending_without_blame() -> None:
    """Where no caption was wanted, none is missed."""
    assert {(Status.PENDING, None)} == {(row.status, row.error_code) for row in _rows(steps=Steps.METADATA)}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.UNSUPPORTED_TYPE, Status.SKIPPED),
        (ErrorCode.OBJECT_DELETED, Status.SKIPPED),
        (ErrorCode.CORRUPT, Status.FAILED),
        (ErrorCode.STORE_UNAVAILABLE, Status.FAILED),
    ],
)
def test_a_bad_picture_is_a_row(code: ErrorCode, status: Status) -> None:
    """It has its status and its reason, and no hint model."""
    row = _rows(error=code)[0]

    assert (status, code, "why", None) == (row.status, row.error_code, row.error_message, row.hint_model)


def test_who_did_not_pay_costs_nothing() -> None:
    """A caption paid by another address is reused: cost 0, and a link to the row that paid."""
    row = _rows(CaptionRow(uri=URI, language="en", receipt=_receipt("en", paid_by="s3://b/other.jpg")))[0]

    assert (Origin.REUSED, 0.0, 0, 0, "s3://b/other.jpg") == (
        row.caption_origin, row.cost_usd, row.attempts, row.input_tokens, row.reused_from_uri,
    )  # fmt: skip


def test_who_paid_says_so_again_and_again() -> None:
    """The row that paid keeps its cost when the same receipt is met once more, so its hash stays."""
    first, again = (_rows(CaptionRow(uri=URI, language="en", receipt=_receipt("en")))[0] for _ in range(2))

    assert (Origin.MODEL, 0.25, 2) == (first.caption_origin, first.cost_usd, first.attempts)
    assert first.row_hash == again.row_hash


def test_a_rejected_caption_needs_review() -> None:
    """No caption is published, the reason is there."""
    row = _rows(CaptionRow(uri=URI, language="en", receipt=_receipt("en", caption=None)))[0]

    assert (Status.NEEDS_REVIEW, None, ErrorCode.CAPTION_REJECTED) == (row.status, row.gpt_summary, row.error_code)


def test_the_sheet_escapes_text_and_shows_no_hint() -> None:
    """Other people's text cannot become markup, and the private label is not on the page."""
    hint = Hint(sha256="aa", model="m", labels=(Label(label="sombrero", score=0.9),))
    row = make_rows(_manifest(), [_facts()], [hint], [CaptionRow(uri=URI, language="en", receipt=_receipt("en"))], "m")[
        0
    ]
    columns = {name.upper(): value for name, value in row.model_dump().items()}
    columns |= {
        "GPT_SUMMARY": '<script>alert("x")</script>',
        "FILE_NAME": "<b>.jpg",
        "REJECTED_CAPTION": "rejected-text",
        "FLAGS": '[{"flag": "same_caption", "image_uri": "<u>"}]',
    }
    report = RunReport(
        run_id="r", listed=1, images=1, batches=1, merge=None, by_status={}, calls=0, cost_usd=0, seconds_by_step={},
        problems=("<i>",), notes=(),
    )  # fmt: skip

    page = render_sheet(report, [Card.from_row(columns, shrink(paint("red")))])

    assert "sombrero" in str(columns)
    for word in ("sombrero", "<script>", "<b>", "<i>", "<u>", "rejected-text"):
        assert word not in page
    assert "data:image/jpeg;base64," in page
