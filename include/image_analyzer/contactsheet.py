"""The contact sheet: one page with each picture, its captions and its status. Hints stay out of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from image_analyzer.pages import load_template
from image_analyzer.reports import RunReport

SHEET_LIMIT = 400
_EDGE_PX = 320


class Card(NamedTuple):
    """One row of IMAGE_RESULTS as the page shows it.

    Attributes:
        picture: `data:` address of a small JPEG; empty where there is none.
    """

    name: str
    uri: str
    language: str
    status: str
    caption: str
    reason: str
    origin: str
    size: str
    picture: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any], picture: str) -> Card:
        """Pick what people may see of a row: never a hint, never a rejected caption."""
        error = f"{row['ERROR_CODE']}: {row['ERROR_MESSAGE'] or ''}" if row["ERROR_CODE"] else ""
        size = f"{row['WIDTH_PX']} x {row['HEIGHT_PX']}" if row["WIDTH_PX"] else ""
        return cls(
            name=row["FILE_NAME"] or row["IMAGE_URI"],
            uri=row["IMAGE_URI"],
            language=row["LANGUAGE"],
            status=row["STATUS"],
            caption=row["GPT_SUMMARY"] or "",
            reason=error or row["DECORATIVE_REASON"] or _flags(row["FLAGS"]),
            origin=row["CAPTION_ORIGIN"] or "",
            size=" · ".join(part for part in (row["MIME_TYPE"] or "", size) if part),
            picture=picture,
        )


class Picture(NamedTuple):
    """All rows of one image address; languages that say the same share a card."""

    first: Card
    cards: tuple[Card, ...]


def render_sheet(report: RunReport, cards: Sequence[Card]) -> str:
    """Return the page as HTML that needs nothing else."""
    return load_template("contact_sheet").render(
        report=report, pictures=group_cards(cards), limit=SHEET_LIMIT, full=len(cards) >= SHEET_LIMIT
    )


def render_gallery(cards: Sequence[Card]) -> str:
    """Return pictures with their captions as a part of a page, with its style."""
    return load_template("gallery").render(pictures=group_cards(cards))


def group_cards(cards: Sequence[Card]) -> list[Picture]:
    """Return cards by image address, in order of these."""
    by_uri: dict[str, list[Card]] = {}
    for card in cards:
        by_uri.setdefault(card.uri, []).append(card)
    return [Picture(group[0], _join_languages(group)) for _, group in sorted(by_uri.items())]


def _join_languages(cards: Sequence[Card]) -> tuple[Card, ...]:
    """Say once what is true in all languages, such as that a file is no picture."""
    same: dict[tuple[str, str, str], list[Card]] = {}
    for card in cards:
        same.setdefault((card.status, card.caption, card.reason), []).append(card)
    return tuple(group[0]._replace(language=", ".join(card.language for card in group)) for group in same.values())


def _flags(column: str | None) -> str:
    """Return what FLAGS says for people: `same_caption: as s3://…`; empty if there is none."""
    return "; ".join(f"{one['flag']}: as {one['image_uri']}" for one in json.loads(column or "[]"))


def shrink(jpeg: bytes) -> str:
    """Return a thumbnail as the `data:` address of a smaller JPEG."""
    with Image.open(io.BytesIO(jpeg)) as image:
        image.thumbnail((_EDGE_PX, _EDGE_PX))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
