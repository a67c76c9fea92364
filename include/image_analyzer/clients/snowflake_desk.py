"""ReviewDesk over the Snowflake connector: what faces read of IMAGE_RESULTS, and the decisions people write into it."""

from __future__ import annotations

import json
from typing import Any

from image_analyzer.clients.snowflake_session import Connect, first_row, open_session, read_rows
from image_analyzer.errors import ChangedMeanwhileError, ConfigurationError
from image_analyzer.ports import Queue, Search
from image_analyzer.reviews import Decided, Review
from image_analyzer.sql import statement, view_names


class SnowflakeDesk:
    """What people see and decide.

    Args:
        connect: Opens a connection whose session is in the right database and schema.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    def select_queue(self, queue: Queue, language: str, limit: int) -> list[dict[str, Any]]:
        """Return rows to decide on, oldest first."""
        binds = {"queue": queue.value, "language": language, "row_limit": limit}
        return self._read(statement("select_queue"), binds)

    def search(self, search: Search, limit: int, after: tuple[str, str] = ("", "")) -> list[dict[str, Any]]:
        """Return rows in order of address and language."""
        uri, language = after
        binds = {**search._asdict(), "after_uri": uri, "after_language": language, "row_limit": limit}
        return self._read(statement("search_results"), binds)

    def read_view(self, name: str) -> list[dict[str, Any]]:
        """Return all rows of a view for analysts."""
        if name not in view_names():
            raise ConfigurationError(f"there is no view {name}")
        return self._read(f"SELECT * FROM {name}", {})  # noqa: S608 - one of our own names

    def save(self, review: Review, decided: Decided) -> int:
        """Write a decision, its history and who took it, in one transaction."""
        sight = review.sight
        binds = {
            **decided.model_dump(mode="json", exclude={"overruled"}),
            "overruled": json.dumps(decided.overruled) if decided.overruled else None,
            "image_uri": sight.image_uri,
            "language": sight.language,
            "seen_sha256": sight.sha256,
            "seen_text": sight.text,
            "seen_rejected": sight.rejected,
            "seen_proposed": sight.proposed,
            "seen_review": sight.review,
            "reviewed_by": review.reviewed_by.strip(),
            "note": (review.note or "").strip() or None,
        }
        with open_session(self._connect) as cursor:
            cursor.execute(statement("stage_review"), binds)
            cursor.execute(statement("count_staged_review"))
            staged, seen = (int(count) for count in first_row(cursor))
            if not seen:
                raise ChangedMeanwhileError(self._who_changed(review))
            cursor.execute(
                "BEGIN"
            )  # not before: making a table commits. Whatever fails below: closing the session rolls back
            cursor.execute(statement("insert_history"))
            cursor.execute(statement("insert_reviews"))
            cursor.execute(statement("update_reviewed"))
            if int(first_row(cursor)[0]) != staged:
                raise ChangedMeanwhileError("the row is being changed right now: look again")
            cursor.execute("COMMIT")
        return staged

    def _who_changed(self, review: Review) -> str:
        uri, language = review.sight.image_uri, review.sight.language
        found = self._read(statement("select_row"), {"image_uri": uri, "language": language})
        if not found:
            return "the row is gone"
        (row,) = found
        if row["REVIEW_STATUS"] and row["REVIEW_STATUS"] != "picture_changed":
            return f"{row['REVIEWED_BY']} has decided on it meanwhile ({row['REVIEW_STATUS']}): look again"
        return f"run {row['RUN_ID']} has changed it meanwhile: look again"

    def _read(self, text: str, binds: dict[str, Any]) -> list[dict[str, Any]]:
        with open_session(self._connect) as cursor:
            cursor.execute(text, binds or None)
            return list(read_rows(cursor))
