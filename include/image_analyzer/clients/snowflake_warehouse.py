"""Warehouse over the Snowflake connector: staging, MERGE, checks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, Any, TypeVar

from image_analyzer.clients.snowflake_session import Connect, first_row, open_session, read_rows
from image_analyzer.fingerprints import Fingerprint, Pair, flag_pairs
from image_analyzer.guardrails import count_sentences, count_words, policy_version
from image_analyzer.ports import DiscoverQuery, StalePicture, StaleQuery
from image_analyzer.records import (
    TRIED_AGAIN,
    CaptionFlags,
    ContentKey,
    ErrorCode,
    ImageMetadata,
    ManifestEntry,
    ObjectRef,
    Origin,
    Reason,
    Receipt,
    Steps,
    Usage,
)
from image_analyzer.reports import CheckOutcome, MergeReport
from image_analyzer.reviews import Choice
from image_analyzer.sql import check_names, statement, view_names
from image_analyzer.table import Flag, ResultRow, StandingRow

if TYPE_CHECKING:
    from snowflake.connector.cursor import SnowflakeCursor

_STAGE_CHUNK = 20_000
# A few rows are one INSERT; a file on a stage takes half a dozen statements. Snowflake's text of a statement ends at 1 MB.
_INSERTED, _INSERTED_LETTERS = 100, 200_000
_MOST_OFFENDERS = 20
_TRIED_AGAIN = json.dumps(sorted(TRIED_AGAIN))
_Item = TypeVar("_Item")


class SnowflakeWarehouse:
    """IMAGE_RESULTS in Snowflake.

    Args:
        connect: Opens a connection whose session is in the right database and schema. It is called once per method,
            so that a task holds no session while it waits for pictures.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    def create_tables(self) -> None:
        """Create what is missing, tables and columns; replace the views."""
        names = ("create_tables", "add_columns", *(f"views/{name.lower()}" for name in view_names()))
        texts = (text for name in names for text in statement(name).split(";\n"))
        with self._session() as cursor:
            for text in texts:
                if text.strip():
                    cursor.execute(text)

    def select_missing(self, listing: Iterable[ObjectRef], query: DiscoverQuery) -> list[ManifestEntry]:
        """Compare the listing with IMAGE_RESULTS inside the warehouse."""
        with self._session() as cursor:
            documents = (
                {"uri": o.uri, "etag": o.etag, "size_bytes": o.size_bytes, "last_modified_at": _iso(o.last_modified_at)}
                for o in listing
            )
            if _stage(cursor, documents) == 0:
                return []
            cursor.execute(
                statement("select_missing"),
                {
                    "languages": json.dumps(query.languages),
                    "tried_again": _TRIED_AGAIN,
                    "want_captions": query.steps is Steps.CAPTIONS,
                    "want_hints": query.steps is Steps.HINTS,
                    "replace_offline": query.replace_offline,
                    "row_limit": query.limit,
                },
            )
            return [_read_entry(row) for row in read_rows(cursor)]

    def select_stale(self, query: StaleQuery) -> list[StalePicture]:
        """Return what was written by other means than today's, or not at all."""
        policies = [(language, policy_version(language)) for language in query.languages]
        with self._session() as cursor:
            cursor.execute(
                statement("select_stale"),
                {
                    "languages": json.dumps(query.languages),
                    "reasons": json.dumps(query.reasons),
                    "policies": json.dumps(policies),
                    "prefix": query.prefix_uri,
                    "prompt_version": query.prompt_version,
                    "model": query.model,
                    "detail": query.detail,
                    "hint_model": query.hint_model,
                    "from_day": str(query.from_day or ""),
                    "to_day": str(query.to_day or ""),
                },
            )
            return [_read_stale(list(rows)) for _, rows in groupby(read_rows(cursor), key=lambda row: row["IMAGE_URI"])]

    def select_receipts(self, keys: Sequence[ContentKey], *, of_any_model: bool = False) -> dict[ContentKey, Receipt]:
        """Return what the tables hold for these keys, which share prompt, model and detail."""
        if not keys:
            return {}
        by_pair = {(key.sha256, key.language): key for key in keys}
        ours = keys[0]
        exact = {"prompt_version": ours.prompt_version, "model": ours.model, "detail": ours.detail}
        with self._session() as cursor:
            _stage(cursor, ({"sha256": sha256, "language": language} for sha256, language in by_pair))
            cursor.execute(statement("select_receipts"), dict.fromkeys(exact, "") if of_any_model else exact)
            found = ((by_pair[row["SHA256"], row["LANGUAGE"]], row) for row in read_rows(cursor))
            return {key: _read_receipt(key, row) for key, row in found}

    def merge(self, batches: Iterable[Sequence[ResultRow]]) -> MergeReport:
        """Stage all rows, then write history and MERGE in one transaction."""
        with self._session() as cursor:
            return _merge(cursor, chain.from_iterable(batches))

    def settle(self, rows: Sequence[ResultRow]) -> list[StandingRow]:
        """MERGE a few rows and return all rows of their addresses as they stand then."""
        with self._session() as cursor:
            _merge(cursor, rows)
            cursor.execute(statement("select_standing"), {"uris": json.dumps(sorted({row.image_uri for row in rows}))})
            return [_read_standing(row) for row in read_rows(cursor)]

    def check(self, run_id: str) -> list[CheckOutcome]:
        """Run every check on the rows of this run."""
        outcomes = []
        with self._session() as cursor:
            for name in check_names():
                cursor.execute(statement(f"checks/{name}"), {"run_id": run_id})
                found = [
                    f"{row['IMAGE_URI']} [{row['LANGUAGE']}]" for row in islice(read_rows(cursor), _MOST_OFFENDERS)
                ]
                outcomes.append(CheckOutcome(name=name, offending=tuple(found)))
        return outcomes

    def select_results(self, limit: int, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return rows for people, column names as in the table."""
        binds = {"status": "", "language": "", "run_id": "", **filters, "row_limit": limit}
        with self._session() as cursor:
            cursor.execute(statement("select_results"), binds)
            return list(read_rows(cursor))

    def _session(self) -> AbstractContextManager[SnowflakeCursor]:
        return open_session(self._connect)


def _merge(cursor: SnowflakeCursor, rows: Iterable[ResultRow]) -> MergeReport:
    staged = _stage(cursor, (row.model_dump(mode="json") for row in rows))
    if staged == 0:
        return MergeReport(staged=0, inserted=0, updated=0)
    cursor.execute(statement("stage_rows"), {"tried_again": _TRIED_AGAIN})
    cursor.execute(statement("insert_unused"))
    flagged = _flag_rows(cursor)
    cursor.execute("BEGIN")  # whatever fails below: closing the session rolls back
    cursor.execute(statement("insert_history"))
    cursor.execute(statement("merge_image_results"))
    inserted, updated = (int(count) for count in first_row(cursor)[:2])
    cursor.execute("COMMIT")
    return MergeReport(staged=staged, inserted=inserted, updated=updated, flagged=flagged)


def _flag_rows(cursor: SnowflakeCursor) -> dict[Flag, int]:
    """Flag what only a comparison with other rows shows; return how many rows, by flag."""
    flagged = flag_pairs(_pairs(cursor, "select_same_captions"), _pairs(cursor, "select_look_alikes"))
    if flagged:
        _stage(cursor, flagged)
        cursor.execute(statement("flag_rows"))
    return Counter(flag for row in flagged for flag in {one["flag"] for one in row["flags"]})


def _pairs(cursor: SnowflakeCursor, name: str) -> Iterator[Pair]:
    cursor.execute(statement(name))
    for row in read_rows(cursor):
        looks = Fingerprint(row["PHASH"], row["MEAN_COLOUR"])
        other_looks = Fingerprint(row["OTHER_PHASH"], row["OTHER_MEAN_COLOUR"])
        yield Pair(row["IMAGE_URI"], row["LANGUAGE"], looks, row["OTHER_URI"], other_looks)


def _stage(cursor: SnowflakeCursor, documents: Iterable[Mapping[str, Any]]) -> int:
    """Load documents into RUN_STAGE, a chunk at a time so that memory stays flat; return how many."""
    import pandas as pd
    from snowflake.connector.pandas_tools import write_pandas

    cursor.execute(statement("create_stage"))
    staged = 0
    for chunk in _chunks((_dump(document) for document in documents), _STAGE_CHUNK):
        if len(chunk) <= _INSERTED and sum(map(len, chunk)) <= _INSERTED_LETTERS:
            cursor.executemany(statement("insert_stage"), [{"row_json": document} for document in chunk])
        else:
            frame = pd.DataFrame({"ROW_JSON": chunk})
            write_pandas(cursor.connection, frame, "RUN_STAGE", quote_identifiers=False, compression="gzip")
        staged += len(chunk)
    return staged


def _dump(document: Mapping[str, Any]) -> str:
    """Return JSON without null members: a JSON null is not an SQL NULL."""
    return json.dumps({name: value for name, value in document.items() if value is not None}, ensure_ascii=False)


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _read_entry(row: Mapping[str, Any]) -> ManifestEntry:
    bucket, _, key = str(row["IMAGE_URI"]).removeprefix("s3://").partition("/")
    obj = ObjectRef(
        bucket=bucket,
        key=key,
        etag=row["ETAG"],
        size_bytes=row["SIZE_BYTES"],
        last_modified_at=row["LAST_MODIFIED_AT"].astimezone(UTC),
    )
    known = None
    if row["THUMBNAIL_URI"] is not None:
        facts = {name: row[name.upper()] for name in ("sha256", "mime_type", "extension_matches", "width_px",
                 "height_px", "frames", "colour_mode", "thumbnail_uri")}  # fmt: skip
        known = ImageMetadata(
            uri=obj.uri, etag=obj.etag, size_bytes=obj.size_bytes, last_modified_at=obj.last_modified_at, **facts
        )
    return ManifestEntry(object=obj, languages=tuple(row["LANGUAGES"].split(",")), known=known)


def _read_stale(rows: Sequence[Mapping[str, Any]]) -> StalePicture:
    languages = ",".join(row["LANGUAGE"] for row in rows)
    return StalePicture(_read_entry({**rows[0], "LANGUAGES": languages}), tuple(Reason(row["REASON"]) for row in rows))


def _read_standing(row: Mapping[str, Any]) -> StandingRow:
    values = {name: row[name.upper()] for name in ResultRow.model_fields}
    for name in ("hints", "violations"):  # the connector gives JSON as text
        values[name] = json.loads(values[name]) if isinstance(values[name], str) else values[name]
    return StandingRow(ResultRow.model_validate(values), row["REVIEW_STATUS"])


def _read_receipt(asked: ContentKey, row: Mapping[str, Any]) -> Receipt:
    """Return what is known; its key names the model that wrote it, of a person's decision who asks."""
    key, text = asked, row["GPT_SUMMARY"]
    if row["DECISION"] is None:
        by = {"prompt_version": row["PROMPT_VERSION"], "model": row["CAPTION_MODEL"], "detail": row["IMAGE_DETAIL"]}
        key = asked.model_copy(update=by)
    elif text and row["WORDS"] is None:  # as IMAGE_REVIEWS keeps it
        row = {**row, "WORDS": count_words(text, key.language), "SENTENCES": count_sentences(text, key.language)}
    usage = Usage(
        input_tokens=row["INPUT_TOKENS"],
        output_tokens=row["OUTPUT_TOKENS"],
        cost_usd=row["COST_USD"],
        attempts=row["ATTEMPTS"] or 0,
        latency_s=row["LATENCY_S"] or 0.0,
    )
    code = ErrorCode.REJECTED_BY_PERSON if row["DECISION"] == Choice.REJECTED else row["ERROR_CODE"]
    return Receipt(
        key=key,
        caption=row["GPT_SUMMARY"],
        rejected_caption=row["REJECTED_CAPTION"],
        error_code=ErrorCode(code) if code else None,
        error_message=row["ERROR_MESSAGE"],
        policy_version=row["POLICY_VERSION"],
        violations=tuple(json.loads(row["VIOLATIONS"] or "[]")),
        flags=CaptionFlags(**{name: row[name.upper()] for name in CaptionFlags.model_fields}),
        words=row["WORDS"],
        sentences=row["SENTENCES"],
        usage=usage,
        origin=Origin.PERSON if row["DECISION"] else Origin.MODEL,
        paid_by_uri=row["PAID_BY_URI"],
        run_id=row["RUN_ID"],
    )
