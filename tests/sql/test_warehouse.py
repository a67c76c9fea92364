"""The real connector against an emulated server: MERGE, history, people's text, checks."""

from __future__ import annotations

import io
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import snowflake.connector
from conftest import Night
from PIL import Image

from image_analyzer import wiring
from image_analyzer.clients import snowflake_warehouse
from image_analyzer.clients.snowflake_warehouse import SnowflakeWarehouse
from image_analyzer.errors import FatalError, RetryableError
from image_analyzer.fingerprints import make_fingerprint
from image_analyzer.ports import DiscoverQuery
from image_analyzer.records import (
    CaptionFlags,
    CaptionRow,
    ContentKey,
    ErrorCode,
    ImageMetadata,
    Manifest,
    ManifestEntry,
    ObjectRef,
    Origin,
    Receipt,
    Steps,
    Usage,
)
from image_analyzer.results import make_rows
from image_analyzer.sql import check_names
from image_analyzer.table import Flag, ResultRow

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
QUERY = DiscoverQuery(("en", "fr"), Steps.CAPTIONS, replace_offline=False)


class Bench:
    """A warehouse of one's own and short ways to fill it."""

    def __init__(self, night: Night) -> None:
        self.warehouse = wiring.make_warehouse(night.settings())
        self.warehouse.create_tables()

    def query(self, text: str, **binds: Any) -> list[tuple[Any, ...]]:
        """Run any statement."""
        with self.warehouse._session() as cursor:
            return list(cursor.execute(text, binds or None).fetchall())

    def merge(self, *rows: ResultRow) -> tuple[int, int, int]:
        """Return (inserted, updated, unchanged)."""
        report = self.warehouse.merge([rows])
        return report.inserted, report.updated, report.unchanged


@pytest.fixture
def bench(night: Night) -> Bench:
    """An empty table."""
    return Bench(night)


def obj(key: str = "a.jpg", etag: str = "e1", at: datetime = NOW) -> ObjectRef:
    """Return an object of a listing."""
    return ObjectRef(bucket="b", key=key, etag=etag, size_bytes=5, last_modified_at=at)


def row(
    text: str | None = "A dog's “run” – 100% \\ 'fun'.",
    *,
    of: ObjectRef | None = None,
    sha256: str | None = "aa",
    language: str = "en",
    run_id: str = "r1",
    error: ErrorCode | None = None,
    **changes: Any,
) -> ResultRow:
    """Return a row as the pipeline makes it."""
    of = of or obj()
    manifest = Manifest(
        run_id=run_id, batch_id="b", steps=Steps.CAPTIONS, entries=(ManifestEntry(object=of, languages=(language,)),)
    )
    facts = ImageMetadata(
        uri=of.uri, etag=of.etag, size_bytes=5, last_modified_at=of.last_modified_at, sha256=sha256,
        mime_type="image/jpeg", extension_matches=True, width_px=4, height_px=3, frames=1, colour_mode="RGB",
        thumbnail_uri=f"s3://b/p.zip#{sha256}.jpg", error_code=error, error_message="why" if error else None,
    )  # fmt: skip
    key = ContentKey(sha256=sha256 or "", language=language, prompt_version="1", model="m", detail="high")
    receipt = Receipt(
        key=key, caption=text, words=3, sentences=1, usage=Usage(input_tokens=5, output_tokens=6, cost_usd=0.5, attempts=1),
        policy_version="en-1.abc", error_code=None if text else ErrorCode.CAPTION_REJECTED,
        origin=Origin.MODEL, paid_by_uri=of.uri, run_id=run_id,
    )  # fmt: skip
    captions = [] if error else [CaptionRow(uri=of.uri, language=language, receipt=receipt)]
    (made,) = make_rows(manifest, [facts], [], captions, "off")
    return ResultRow.model_validate({**made.model_dump(), **changes})


def test_merge_twice_is_merge_once(bench: Bench) -> None:
    """The same rows again change nothing: not the row, not its time, not the history."""
    assert (1, 0, 0) == bench.merge(row())
    before = bench.query("SELECT * FROM IMAGE_RESULTS")

    assert (0, 0, 1) == bench.merge(row(run_id="r2"))
    assert before == bench.query("SELECT * FROM IMAGE_RESULTS")
    assert [(0,)] == bench.query("SELECT COUNT(*) FROM IMAGE_RESULTS_HISTORY")


@pytest.mark.parametrize("rows", [1, 2, 101])
def test_text_survives_as_it_is(bench: Bench, rows: int) -> None:
    """Quotes, backslashes, percent signs, emoji and other scripts come back the same, staged as a few rows or as a file."""
    text = 'O\'Hara: "50% \\n" 猫 \U0001f600 %(x)s ?.'
    bench.merge(*(row(text, of=obj(f"{number}'\\\n.jpg")) for number in range(rows)))

    assert [(text, rows)] == bench.query("SELECT GPT_SUMMARY, COUNT(*) FROM IMAGE_RESULTS GROUP BY 1")
    assert [("0'\\\n.jpg",)] == bench.query("SELECT FILE_NAME FROM IMAGE_RESULTS WHERE IMAGE_URI LIKE 's3://b/0%%'")


def test_types_are_the_tables(bench: Bench) -> None:
    """Times are times in UTC, numbers numbers, and what is unknown is NULL."""
    bench.merge(row())
    (found,) = bench.warehouse.select_results(1, {})

    assert (NOW, 5, 4, True, None, 0.5) == (
        found["LAST_MODIFIED_AT"].astimezone(UTC), found["SIZE_BYTES"], found["WIDTH_PX"], found["EXTENSION_MATCHES"],
        found["REVIEWED_AT"], found["COST_USD"],
    )  # fmt: skip


def looks(name: str, phash: str, colour: str = "#808080", text: str = "A dog runs.", **changes: Any) -> ResultRow:
    """Return a row of a content of its own that looks as given."""
    return row(text, of=obj(name), sha256=name, phash=phash, mean_colour=colour, **changes)


def flags(bench: Bench, flag: str) -> dict[str, list[str]]:
    """Return the siblings of the rows with a flag, by image address and language."""
    found = bench.query("SELECT IMAGE_URI, LANGUAGE, FLAGS FROM IMAGE_RESULTS WHERE FLAGS IS NOT NULL")
    siblings = {
        f"{uri.removeprefix('s3://b/')} {language}": [
            one["image_uri"].removeprefix("s3://b/") for one in json.loads(text) if one["flag"] == flag
        ]
        for uri, language, text in found
    }
    return {name: uris for name, uris in siblings.items() if uris}


def test_the_same_caption_of_clearly_different_pictures_is_flagged(bench: Bench) -> None:
    """Both are, in one run, each with the other; a version of the same picture and another language are not."""
    rows = [
        looks("a", "00" * 8),
        looks("b", "ff" * 8),
        looks("c", "ff" * 7 + "f0"),
        looks("d", "0f" * 8, text="A cat."),
    ]
    report = bench.warehouse.merge([[*rows, looks("e", "0f" * 8, language="fr"), looks("a", "00" * 8, language="fr")]])

    assert {
        "a en": ["b", "c"], "b en": ["a"], "c en": ["a"], "a fr": ["e"], "e fr": ["a"],
    } == flags(bench, "same_caption")  # fmt: skip
    assert 5 == report.flagged[Flag.SAME_CAPTION]
    assert {("ok",)} == set(bench.query("SELECT STATUS FROM IMAGE_RESULTS"))


def test_near_duplicates_are_flagged_with_their_sibling(bench: Bench) -> None:
    """By few differing bits, in this run and against earlier ones; other pictures, other colours and the same bytes are not."""
    base = 0x9E3779B97F4A7C15
    bench.merge(looks("old", f"{base:016x}", text="One."))
    bench.merge(
        looks("near", f"{base ^ 0b1110_0000_0101:016x}", text="Two.", run_id="r2"),
        looks("far", f"{base ^ 0x0101_0101_0101_0101_0:016x}", text="Three.", run_id="r2"),
        looks("red", f"{base:016x}", "#ff0000", text="Four.", run_id="r2"),
        row("Five.", of=obj("copy"), sha256="old", phash=f"{base:016x}", mean_colour="#808080", run_id="r2"),
    )

    assert {"near en": ["copy"], "copy en": ["near"]} == flags(bench, "near_duplicate")


def test_a_new_version_of_a_picture_is_no_duplicate_of_the_old(bench: Bench) -> None:
    """A picture that was saved anew under its name replaces the row it resembles."""
    bench.merge(looks("a", "9e3779b97f4a7c15"))
    report = bench.warehouse.merge(
        [[row("Two.", of=obj("a", "e2"), sha256="b", phash="9e3779b97f4a7c15", mean_colour="#808080")]]
    )

    assert (1, {}) == (report.updated, report.flagged)


def test_a_later_run_flags_its_own_rows_only(bench: Bench) -> None:
    """A row of an earlier run is a sibling and is not written again; the next run with nothing new changes nothing."""
    bench.merge(looks("a", "00" * 8))

    assert (1, 0, 0) == bench.merge(looks("b", "00" * 8, "#ff0000", run_id="r2"))
    assert (0, 0, 1) == bench.merge(looks("b", "00" * 8, "#ff0000", run_id="r3"))
    assert {"b en": ["a"]} == flags(bench, "same_caption")


@pytest.mark.parametrize(
    "changes",
    [
        {"caption_origin": "offline"},
        {"status": "needs_review"},
        {"phash": None},
        {"sha256": "b"},
        {"gpt_summary": "A dog runs!"},
    ],
)
def test_what_says_nothing_about_a_model_is_not_flagged(bench: Bench, changes: dict[str, Any]) -> None:
    """Offline captions are alike by their making; what is not published, not seen, the same bytes or other words is no case."""

    def changed(name: str) -> ResultRow:
        return ResultRow.model_validate({**looks(name, "00" * 8).model_dump(), **changes})

    for night in (changed("a"), looks("b", "ff" * 8), changed("c")):
        bench.merge(night)

    assert {} == flags(bench, "same_caption")


def test_a_row_that_is_replaced_is_no_sibling(bench: Bench) -> None:
    """The old caption of a picture that gets a new one tonight does not flag another picture's."""
    bench.merge(looks("a", "00" * 8))
    bench.merge(looks("a", "00" * 8, text="Another."), looks("b", "ff" * 8))

    assert {} == flags(bench, "same_caption")


def test_a_caption_that_a_model_always_gives_stays_cheap(bench: Bench) -> None:
    """Thousands of pictures with one caption are compared with a few looks each, and name a few siblings each."""
    bench.merge(*(looks(f"n{index:04d}", f"{index * 0x9E3779B97F4A7C15 % 2**64:016x}") for index in range(2_000)))

    found = flags(bench, "same_caption")
    assert 2_000 == len(found)
    assert 3 == max(len(siblings) for siblings in found.values())


def test_of_many_look_alikes_the_nearest_are_compared(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that never moves: of a hundred pictures 20 are handed on for each, the one most alike among them."""
    handed_on: Counter[str] = Counter()
    read_pairs = snowflake_warehouse._pairs

    def count_pairs(cursor: Any, name: str) -> Iterator[Any]:
        for pair in read_pairs(cursor, name):
            handed_on[name] += 1
            yield pair

    monkeypatch.setattr(snowflake_warehouse, "_pairs", count_pairs)
    # All share the first eight digits, each shares the others with one only, whose address is the last.
    bench.merge(
        *(looks(f"n{n:03d}", f"0123abcd{n % 50 * 0x9E3779B1 % 2**32:08x}", text=f"Dog {n} runs.") for n in range(100))
    )

    assert {"select_look_alikes": 100 * 20} == handed_on
    assert ["n093"] == flags(bench, "near_duplicate")["n043 en"]


def test_a_thousand_different_pictures(bench: Bench) -> None:
    """Looks as pictures have them, not as numbers do: a join of theirs once brought the emulator down for good."""
    noise = random.Random(0)
    rows = []
    for number in range(1_000):
        buffer = io.BytesIO()
        squares = Image.frombytes("RGB", (4, 3), noise.randbytes(36))
        squares.resize((64, 48), Image.Resampling.NEAREST).save(buffer, "JPEG")
        seen = make_fingerprint(buffer.getvalue())
        rows.append(looks(f"n{number:04d}", seen.phash, seen.mean_colour, text=f"Dog {number % 20} runs."))

    assert (1_000, 0, 0) == bench.merge(*rows)


def test_a_text_means_what_its_session_says(make_night: Callable[..., Night]) -> None:
    """The emulator translates a text once; schema, variables and what it lists are still those of who sends it."""
    schemas = [f"SESSION_{number}_{uuid.uuid4().hex[:8].upper()}" for number in range(2)]
    said = []
    for number, schema in enumerate(schemas):
        bench = Bench(make_night(SNOWFLAKE_SCHEMA=schema))
        bench.merge(row(f"Dog {number} runs."))
        with bench.warehouse._session() as cursor:
            cursor.execute(f"SET wanted = {number}")
            said.append([
                cursor.execute(text).fetchall()[0][0]
                for text in (
                    "SELECT GPT_SUMMARY FROM IMAGE_RESULTS", "SELECT $wanted", "SELECT CURRENT_SCHEMA()",
                    "SELECT TABLE_SCHEMA FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = CURRENT_SCHEMA()",
                )
            ])  # fmt: skip

    assert [[f"Dog {number} runs.", number, schema, schema] for number, schema in enumerate(schemas)] == said


def test_one_source_row_per_key(bench: Bench) -> None:
    """Two staged rows of one key become one, so that the MERGE is deterministic; the newer object wins."""
    newer = obj(etag="e2", at=NOW + timedelta(hours=1))

    assert (1, 0, 1) == bench.merge(row("Old one."), row("New one.", of=newer))
    assert [("New one.",)] == bench.query("SELECT GPT_SUMMARY FROM IMAGE_RESULTS")


def test_a_changed_row_goes_to_history_first(bench: Bench) -> None:
    """The old row is kept whole, with the run that replaced it, in the same transaction."""
    bench.merge(row("Old one."))

    assert (0, 1, 0) == bench.merge(row("New one.", run_id="r2"))
    assert [("en", "r2", "Old one.", "r1")] == bench.query(
        "SELECT LANGUAGE, REPLACED_BY_RUN_ID, OLD_ROW:GPT_SUMMARY::VARCHAR, OLD_ROW:RUN_ID::VARCHAR FROM IMAGE_RESULTS_HISTORY"
    )


def test_a_failed_merge_leaves_no_history(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """History and MERGE are one transaction: if the MERGE fails, neither happened."""
    import image_analyzer.clients.snowflake_warehouse as module

    bench.merge(row("Old one."))
    real = module.statement
    broken = "MERGE INTO NO_SUCH_TABLE AS T USING RUN_ROWS AS S ON T.X = S.X WHEN MATCHED THEN DELETE"
    monkeypatch.setattr(module, "statement", lambda name: broken if name == "merge_image_results" else real(name))

    with pytest.raises(FatalError):
        bench.merge(row("New one."))
    assert [(0,)] == bench.query("SELECT COUNT(*) FROM IMAGE_RESULTS_HISTORY")
    assert [("Old one.",)] == bench.query("SELECT GPT_SUMMARY FROM IMAGE_RESULTS")


@pytest.mark.parametrize("review", ["approved", "edited", "rejected"])
def test_a_persons_text_stays_while_the_picture_stays(bench: Bench, review: str) -> None:
    """New facts of the same picture are taken, text, status and review are not touched."""
    bench.merge(row("Machine."))
    bench.query(
        "UPDATE IMAGE_RESULTS SET GPT_SUMMARY = 'Person.', REVIEW_STATUS = %(r)s, REVIEWED_BY = 'ann'", r=review
    )

    bench.merge(row("Machine again.", of=obj(etag="e2", at=NOW + timedelta(hours=1))))

    found = bench.query("SELECT GPT_SUMMARY, REVIEW_STATUS, REVIEWED_BY, ETAG, STATUS FROM IMAGE_RESULTS")
    assert [("Person.", review, "ann", "e2", "ok")] == found


def test_another_picture_flags_a_persons_row(bench: Bench) -> None:
    """The person's text stays, is no longer published, and the model's text waits beside it."""
    bench.merge(row("Machine."))
    bench.query("UPDATE IMAGE_RESULTS SET GPT_SUMMARY = 'Person.', REVIEW_STATUS = 'edited'")

    for _ in range(2):
        bench.merge(row("Machine of the new picture.", sha256="bb", of=obj(etag="e2")))

    found = bench.query("SELECT GPT_SUMMARY, REVIEW_STATUS, STATUS, PROPOSED_CAPTION, SHA256 FROM IMAGE_RESULTS")
    assert [("Person.", "picture_changed", "needs_review", "Machine of the new picture.", "bb")] == found
    assert [("Person.",)] == bench.query("SELECT OLD_ROW:GPT_SUMMARY::VARCHAR FROM IMAGE_RESULTS_HISTORY")


def test_a_night_that_cannot_read_does_not_touch_a_persons_row(bench: Bench) -> None:
    """A picture that could not be read tonight says nothing about a reviewed row."""
    bench.merge(row("Machine."))
    bench.query("UPDATE IMAGE_RESULTS SET GPT_SUMMARY = 'Person.', REVIEW_STATUS = 'edited'")

    assert (0, 0, 1) == bench.merge(row(None, sha256=None, error=ErrorCode.STORE_UNAVAILABLE))
    assert [("Person.", "ok")] == bench.query("SELECT GPT_SUMMARY, STATUS FROM IMAGE_RESULTS")


def test_a_reviewed_row_whose_new_file_is_no_picture_is_flagged(bench: Bench) -> None:
    """The object was replaced by something unreadable: the row says so, and is not looked at every night."""
    bench.merge(row("Machine."))
    bench.query("UPDATE IMAGE_RESULTS SET GPT_SUMMARY = 'Person.', REVIEW_STATUS = 'edited'")
    large = obj(etag="e2")

    assert (0, 1, 0) == bench.merge(row(None, sha256=None, of=large, error=ErrorCode.TOO_LARGE))
    assert [("Person.", "picture_changed", "needs_review", "too_large")] == bench.query(
        "SELECT GPT_SUMMARY, REVIEW_STATUS, STATUS, ERROR_CODE FROM IMAGE_RESULTS"
    )
    assert [] == bench.warehouse.select_missing([large], DiscoverQuery(("en",), Steps.CAPTIONS, replace_offline=True))


def test_a_proposal_that_failed_is_asked_for_again(bench: Bench) -> None:
    """Another picture, and no caption for it tonight: the next night proposes one, and its cost is in the row."""
    bench.merge(row("Machine."))
    bench.query("UPDATE IMAGE_RESULTS SET GPT_SUMMARY = 'Person.', REVIEW_STATUS = 'edited'")
    new = obj(etag="e2")
    failed = row(
        None, sha256="bb", of=new, status="failed", error_code="caption_unavailable", row_hash="x", cost_usd=None
    )
    bench.merge(failed)

    (again,) = bench.warehouse.select_missing([new], DiscoverQuery(("en",), Steps.CAPTIONS, replace_offline=False))
    bench.merge(row("Proposal.", sha256="bb", of=again.object, cost_usd=0.75))

    found = bench.query("SELECT GPT_SUMMARY, PROPOSED_CAPTION, REVIEW_STATUS, COST_USD, ERROR_CODE FROM IMAGE_RESULTS")
    assert [("Person.", "Proposal.", "picture_changed", 0.75, None)] == found


@pytest.mark.parametrize(
    ("sha256", "changes"),
    [
        ("aa", {"status": "pending", "error_code": "not_captioned"}),
        ("aa", {"status": "failed", "error_code": "caption_unavailable"}),
        ("aa", {"status": "pending", "error_code": None}),
        (None, {"status": "failed", "error_code": "store_unavailable"}),
        (None, {"status": "failed", "error_code": "batch_lost"}),
    ],
)
def test_a_night_that_cannot_caption_takes_no_caption_down(
    bench: Bench, sha256: str | None, changes: dict[str, Any]
) -> None:
    """A published caption stays while no better word is known of its picture, and is asked for again."""
    bench.merge(row("Published.", caption_origin="offline"))
    later = obj(at=NOW + timedelta(hours=1))

    assert (0, 0, 1) == bench.merge(row(None, sha256=sha256, of=later, row_hash="other", **changes))
    assert [("Published.", "ok")] == bench.query("SELECT GPT_SUMMARY, STATUS FROM IMAGE_RESULTS")
    assert 1 == len(
        bench.warehouse.select_missing([later], DiscoverQuery(("en",), Steps.CAPTIONS, replace_offline=True))
    )


def test_another_picture_takes_a_caption_down(bench: Bench) -> None:
    """A caption of a picture that is no longer there is not published, even if there is no new one yet."""
    bench.merge(row("Of the old picture."))

    bench.merge(row(None, sha256="bb", of=obj(etag="e2"), status="pending", error_code="not_captioned", row_hash="x"))

    assert [(None, "pending")] == bench.query("SELECT GPT_SUMMARY, STATUS FROM IMAGE_RESULTS")


@pytest.mark.parametrize("error", [ErrorCode.TOO_LARGE, ErrorCode.OBJECT_DELETED])
def test_a_new_file_that_is_no_picture_takes_a_caption_down(bench: Bench, error: ErrorCode) -> None:
    """The caption was of the old file; a new one that was not even read is not described by it."""
    bench.merge(row("Of the old picture."))

    assert (0, 1, 0) == bench.merge(row(None, sha256=None, of=obj(etag="e2"), error=error))
    assert [(None,)] == bench.query("SELECT GPT_SUMMARY FROM IMAGE_RESULTS")


def test_a_rejected_answer_waits_for_its_person(bench: Bench) -> None:
    """A night without an answer does not take a text out of the review queue; a new answer does."""
    bench.merge(row(None, rejected_caption="Two. Sentences."))

    assert (0, 0, 1) == bench.merge(
        row(None, status="pending_budget", error_code="budget_spent", prompt_version=None, row_hash="x")
    )
    assert [("needs_review", "Two. Sentences.")] == bench.query("SELECT STATUS, REJECTED_CAPTION FROM IMAGE_RESULTS")
    assert (0, 1, 0) == bench.merge(row("One.", row_hash="y"))


def test_checks_leave_peoples_text_alone(bench: Bench) -> None:
    """A person's sentence has no machine's word count; that is no fault of the run."""
    bench.merge(row("Machine.", words=None, sentences=None))
    bench.query("UPDATE IMAGE_RESULTS SET GPT_SUMMARY = 'Person.', REVIEW_STATUS = 'edited'")

    assert {()} == {outcome.offending for outcome in bench.warehouse.check("r1")}


def test_what_is_done_is_not_missing(bench: Bench) -> None:
    """An object is missing in the languages it has no row in, and anew when ETag or time differ."""
    bench.merge(row(), row(language="fr"), row(of=obj("b.jpg")))
    listing = [obj(), obj("b.jpg"), obj("c.jpg")]

    missing = bench.warehouse.select_missing(listing, QUERY)

    assert [("b.jpg", ("fr",)), ("c.jpg", ("en", "fr"))] == [(e.object.key, e.languages) for e in missing]
    later = bench.warehouse.select_missing([obj(at=NOW + timedelta(seconds=1)), obj("b.jpg", etag="x")], QUERY)
    assert [("en", "fr"), ("en", "fr")] == [e.languages for e in later]


def test_what_is_known_of_the_same_version_comes_along(bench: Bench) -> None:
    """For a language that is new to a known object, its metadata and thumbnail are found; not after a change."""
    bench.merge(row())

    (same,) = bench.warehouse.select_missing([obj()], QUERY)
    (changed,) = bench.warehouse.select_missing([obj(etag="x")], QUERY)

    assert same.known
    assert ("aa", "s3://b/p.zip#aa.jpg", 4) == (same.known.sha256, same.known.thumbnail_uri, same.known.width_px)
    assert changed.known is None


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"status": "needs_review"}, False),
        ({"status": "skipped", "error_code": "unsupported_type", "caption_origin": None}, False),
        ({"status": "failed", "error_code": "corrupt"}, False),
        ({"status": "failed", "error_code": "access_denied"}, True),
        ({"status": "failed", "error_code": "object_archived"}, True),
        ({"status": "failed", "error_code": "store_unavailable"}, True),
        ({"status": "failed", "error_code": "batch_lost"}, True),
        ({"status": "failed", "error_code": "caption_unavailable"}, True),
        ({"status": "pending", "error_code": "not_captioned"}, True),
        ({"status": "pending", "error_code": None}, True),
    ],
)
def test_a_pipelines_fault_is_tried_again_a_pictures_is_not(bench: Bench, changes: dict[str, Any], again: bool) -> None:
    """Only what another night can mend is asked for again."""
    bench.merge(row(**changes))

    missing = bench.warehouse.select_missing([obj()], DiscoverQuery(("en",), Steps.CAPTIONS, replace_offline=True))

    assert again is bool(missing)


def test_metadata_rows_are_done_for_a_metadata_run_only(bench: Bench) -> None:
    """A run with captions picks up what a run for metadata left."""
    bench.merge(row(status="pending", error_code=None, hint_model="off"))

    def missing(steps: Steps) -> int:
        return len(bench.warehouse.select_missing([obj()], DiscoverQuery(("en",), steps, replace_offline=False)))

    assert (0, 1, 1) == (missing(Steps.METADATA), missing(Steps.HINTS), missing(Steps.CAPTIONS))


def test_offline_captions_are_replaced_once_there_is_a_model(bench: Bench) -> None:
    """The describer's sentence is a stand-in: it counts as missing when a real captioner is set, else not."""
    bench.merge(row(caption_origin="offline"))

    def missing(replace: bool) -> int:
        return len(bench.warehouse.select_missing([obj()], DiscoverQuery(("en",), Steps.CAPTIONS, replace)))

    assert (0, 1) == (missing(False), missing(True))


def test_a_known_caption_is_found_by_content(bench: Bench) -> None:
    """The same bytes, language, prompt, model and detail find the row that paid; any other does not."""
    bench.merge(
        row("A dog."), row("A dog.", of=obj("copy.jpg"), caption_origin="reused", reused_from_uri="s3://b/a.jpg")
    )
    key = ContentKey(sha256="aa", language="en", prompt_version="1", model="m", detail="high")

    found = bench.warehouse.select_receipts([key, key.model_copy(update={"sha256": "zz"})])

    assert {key} == set(found)
    assert ("A dog.", "s3://b/a.jpg", 0.5) == (found[key].caption, found[key].paid_by_uri, found[key].usage.cost_usd)
    for name in ("language", "prompt_version", "model", "detail"):
        assert {} == bench.warehouse.select_receipts([key.model_copy(update={name: "x"})])


def test_an_answer_comes_back_whole(bench: Bench) -> None:
    """Flags, broken rules and policy of a reused answer are those of the row that paid; unknown stays unknown."""
    bench.merge(row("A dog.", violations=["chatter", "no_terminal"], contains_person=False, uncertain=True))
    key = ContentKey(sha256="aa", language="en", prompt_version="1", model="m", detail="high")

    found = bench.warehouse.select_receipts([key])[key]

    assert (("chatter", "no_terminal"), "en-1.abc") == (found.violations, found.policy_version)
    assert CaptionFlags(contains_person=False, uncertain=True) == found.flags


def test_a_decorative_picture_is_done(bench: Bench) -> None:
    """An empty caption is stored as empty, not as missing, passes the checks, is reused and not asked for again."""
    bench.merge(row("A dog.", gpt_summary="", status="decorative", decorative_reason="a divider", words=0, sentences=0))
    key = ContentKey(sha256="aa", language="en", prompt_version="1", model="m", detail="high")

    assert [("", "decorative")] == bench.query("SELECT GPT_SUMMARY, STATUS FROM IMAGE_RESULTS")
    assert [] == [outcome.name for outcome in bench.warehouse.check("r1") if outcome.offending]
    assert "" == bench.warehouse.select_receipts([key])[key].caption
    assert [] == bench.warehouse.select_missing([obj()], QUERY._replace(languages=("en",)))


def test_tables_of_an_earlier_version_get_the_new_columns(bench: Bench) -> None:
    """Setting up again adds what is missing and keeps the rows."""
    bench.merge(row("A dog."))
    for name in ("POLICY_VERSION", "VIOLATIONS", "DECORATIVE_REASON", "CONTAINS_PERSON", "VISIBLE_TEXT", "UNCERTAIN"):
        bench.query(f"ALTER TABLE IMAGE_RESULTS DROP COLUMN {name}")

    bench.warehouse.create_tables()
    bench.merge(row("A cat.", run_id="r2"))

    assert [("A cat.", "en-1.abc")] == bench.query("SELECT GPT_SUMMARY, POLICY_VERSION FROM IMAGE_RESULTS")


BROKEN = {
    "caption_is_one_sentence": {"sentences": 2},
    "caption_is_short": {"words": 26},
    "caption_is_one_line": {"gpt_summary": "A\ndog."},
    "published_has_caption": {"gpt_summary": None},
    "published_has_origin": {"caption_model": None},
    "published_has_policy": {"policy_version": None},
    "decorative_has_reason": {"status": "decorative", "gpt_summary": "", "decorative_reason": None},
    "read_has_sha256": {"sha256": None},
    "failure_has_reason": {"status": "failed", "gpt_summary": None},
    "cost_is_sound": {"cost_usd": -1.0},
    "score_is_sound": {"predicted_score": 1.5},
}


@pytest.mark.parametrize("name", check_names())
def test_each_check_finds_what_it_is_for(bench: Bench, name: str) -> None:
    """A good row passes all checks; a row broken in one way is found by that check, by name, and by run only."""
    bench.merge(row(run_id="good", of=obj("good.jpg")), row(run_id="bad", **BROKEN.get(name, {})))
    if name == "key_is_unique":
        bench.query("INSERT INTO IMAGE_RESULTS SELECT * FROM IMAGE_RESULTS WHERE RUN_ID = 'bad'")

    found = {outcome.name: outcome.offending for outcome in bench.warehouse.check("bad")}

    assert ("s3://b/a.jpg [en]",) == found[name]
    assert all(() == outcome.offending for outcome in bench.warehouse.check("good"))


def test_a_missing_table_says_what_to_run(night: Night) -> None:
    """Without `init` the error names it and is not retried."""
    with pytest.raises(FatalError, match="image-analyzer init"):
        wiring.make_warehouse(night.settings()).select_results(1, {})


def test_a_server_that_is_down_is_retryable(make_night: Callable[..., Night]) -> None:
    """No server at all is worth another try, and the message holds no password."""

    def connect() -> Any:
        return snowflake.connector.connect(
            account="a", user="u", password="very-secret", host="localhost", port=1, login_timeout=1, network_timeout=1
        )

    with pytest.raises(RetryableError) as caught:
        SnowflakeWarehouse(connect).check("r")
    assert "very-secret" not in str(caught.value)
