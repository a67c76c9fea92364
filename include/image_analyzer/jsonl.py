"""Records as JSON lines, which is how steps hand rows on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from image_analyzer.records import Record

_Row = TypeVar("_Row", bound=Record)


def dump_lines(rows: Iterable[Record]) -> bytes:
    """Return one JSON document a line."""
    return "".join(row.model_dump_json() + "\n" for row in rows).encode()


def load_lines(content: bytes | None, kind: type[_Row]) -> list[_Row]:
    """Return the rows; none for a file that was never written."""
    return [kind.model_validate_json(line) for line in (content or b"").splitlines() if line]
