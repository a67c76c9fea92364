"""The SQL files of `include/sql/`, by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# IMAGE_VERSIONS first: others read it.
_VIEWS = ("image_versions", "image_captions", "image_coverage", "caption_cost_daily", "caption_quality_daily", "review_outcomes",
          "duplicate_images", "pipeline_runs", "unpublished_reasons")  # fmt: skip
SQL_FOLDER = Path(__file__).resolve().parents[1] / "sql"


@cache
def statement(name: str) -> str:
    """Return the text of `include/sql/<name>.sql`.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return (SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def check_names() -> list[str]:
    """Return the names of the checks, sorted; a file that is dropped into the folder is run."""
    return sorted(path.stem for path in (SQL_FOLDER / "checks").glob("*.sql"))


def view_names() -> list[str]:
    """Return the names of the views for analysts, in the order in which they are made: one may read another."""
    return [name.upper() for name in _VIEWS]
