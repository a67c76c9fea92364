"""What the service takes and gives. Hints, rejected texts and costs of others stay inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from image_analyzer.languages import code_pattern
from image_analyzer.records import Status
from image_analyzer.steps.upload import Uploaded

_URI = "s3://images/incoming/2026/11/25/cat.jpg"
MOST_LANGUAGES = 8
LanguageCode = Annotated[str, Field(pattern=code_pattern(), examples=["en"])]
Languages = Annotated[
    list[LanguageCode], Field(max_length=MOST_LANGUAGES, description="BCP 47 codes; CAPTION_LANGUAGES if empty")
]


class AddressRequest(BaseModel):
    """Caption an object of S3 now."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"image_uri": _URI, "languages": ["en", "fr"]}]}
    )

    image_uri: str = Field(max_length=1_200, description="`s3://bucket/key`, below a prefix that the service may read")
    languages: Languages = []


class CaptionOut(BaseModel):
    """One caption, or why there is none."""

    language: str
    status: Status
    caption: str | None = Field(
        description="One sentence; empty if the picture is decorative; null if none is published"
    )
    words: int | None
    origin: str | None = Field(description="model, reused, person or offline")
    model: str | None
    decorative_reason: str | None
    contains_person: bool | None
    visible_text: bool | None
    violations: list[str] | None
    error_code: str | None
    error_message: str | None
    review_status: str | None = None
    cost_usd: float | None = Field(
        description="Of this caption; in the answer to a POST what this request paid: 0 if the caption was known"
    )
    updated_at: datetime | None = None


class ImageOut(BaseModel):
    """One image address and its captions."""

    image_uri: str = Field(examples=[_URI])
    file_name: str | None
    source: str
    sha256: str | None
    mime_type: str | None
    size_bytes: int | None
    width_px: int | None
    height_px: int | None
    captions: list[CaptionOut]


class CaptionedOut(BaseModel):
    """What came of a picture.

    Attributes:
        stored: Whether the rows are in IMAGE_RESULTS.
        storage_problem: Why not; the caption is not lost: the same request stores it later and costs nothing.
    """

    image: ImageOut
    stored: bool
    storage_problem: str | None = None


class NextPage(BaseModel):
    """Where the next page begins."""

    after_uri: str
    after_language: str


class ResultsOut(BaseModel):
    """A page of results."""

    images: list[ImageOut]
    next_page: NextPage | None = Field(description="Parameters of the next page; null after the last")


class FormRequest(BaseModel):
    """The fields of an upload beside its file."""

    model_config = ConfigDict(extra="forbid")

    languages: Languages = []
    archive: Literal["true", "false"] = Field("false", description="Keep the original in S3")


class Problem(BaseModel):
    """RFC 9457 problem document."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["the file ends before the picture does"])
    code: str | None = Field(None, examples=["truncated"])


def show_upload(uploaded: Uploaded) -> CaptionedOut:
    """Return what came of an upload."""
    rows = [
        {
            **{name.upper(): value for name, value in row.model_dump(mode="json").items()},
            "REVIEW_STATUS": uploaded.decided.get(row.language),
            "COST_USD": uploaded.paid_usd.get(row.language, 0.0),
        }
        for row in uploaded.rows
    ]
    (image,) = show_rows(rows)
    return CaptionedOut(image=image, stored=uploaded.stored, storage_problem=uploaded.problem or None)


def show_rows(rows: Sequence[Mapping[str, Any]]) -> list[ImageOut]:
    """Return rows of IMAGE_RESULTS by image, in their order."""
    images: dict[str, ImageOut] = {}
    for row in rows:
        uri = row["IMAGE_URI"]
        if uri not in images:
            facts = {name: row[name.upper()] for name in ImageOut.model_fields if name != "captions"}
            images[uri] = ImageOut(**facts, captions=[])
        images[uri].captions.append(_show_caption(row))
    return list(images.values())


def _show_caption(row: Mapping[str, Any]) -> CaptionOut:
    same = (
        "language",
        "status",
        "words",
        "decorative_reason",
        "contains_person",
        "visible_text",
        "error_code",
        "cost_usd",
    )
    violations = row["VIOLATIONS"]
    return CaptionOut(
        **{name: row[name.upper()] for name in same},
        # A text whose picture was replaced waits for its person.
        caption=row["GPT_SUMMARY"] if row["STATUS"] in (Status.OK, Status.DECORATIVE) else None,
        origin=row["CAPTION_ORIGIN"],
        model=row["CAPTION_MODEL"],
        error_message=row["ERROR_MESSAGE"],
        violations=json.loads(violations)
        if isinstance(violations, str)
        else violations,  # the connector gives JSON as text
        review_status=row.get("REVIEW_STATUS"),
        updated_at=row.get("UPDATED_AT"),
    )
