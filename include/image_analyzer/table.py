"""The one declaration of the columns of IMAGE_RESULTS."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from image_analyzer.records import ErrorCode, Origin, Record, Status


class Flag(StrEnum):
    """Why a person should look at a row although it is sound. The value is stable: people query it."""

    SAME_CAPTION = "same_caption"
    NEAR_DUPLICATE = "near_duplicate"


class ResultRow(Record):
    """One row of IMAGE_RESULTS as the pipeline writes it. Field names are the columns' names in lower case.

    `WAREHOUSE_COLUMNS` are set where it is merged.
    """

    image_uri: str
    language: str
    s3_path: str | None
    file_name: str | None
    source: str
    etag: str | None
    last_modified_at: datetime | None
    size_bytes: int | None
    mime_type: str | None
    extension_matches: bool | None
    sha256: str | None
    width_px: int | None
    height_px: int | None
    frames: int | None
    colour_mode: str | None
    thumbnail_uri: str | None
    phash: str | None
    mean_colour: str | None
    predicted_label: str | None
    predicted_score: float | None
    hints: list[dict[str, Any]] | None
    hint_model: str | None
    gpt_summary: str | None
    status: Status
    error_code: ErrorCode | None
    error_message: str | None
    rejected_caption: str | None
    caption_origin: Origin | None
    caption_model: str | None
    prompt_version: str | None
    image_detail: str | None
    policy_version: str | None
    violations: list[str] | None
    decorative_reason: str | None
    contains_person: bool | None
    visible_text: bool | None
    uncertain: bool | None
    reused_from_uri: str | None
    words: int | None
    sentences: int | None
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    latency_s: float | None
    row_hash: str
    run_id: str


class StandingRow(NamedTuple):
    """A row as it stands in IMAGE_RESULTS, and what a person decided on it."""

    row: ResultRow
    review_status: str | None


# Columns that only the warehouse sets: flags by comparison with other rows, people's decisions, time stamps.
WAREHOUSE_COLUMNS = (
    "flags",
    "proposed_caption",
    "review_status",
    "reviewed_by",
    "reviewed_at",
    "review_note",
    "created_at",
    "updated_at",
)
