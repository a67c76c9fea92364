"""What analysts get: views that say what they promise, the data dictionary, the example queries, the roles."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlglot
from conftest import Night
from test_reviews import Desk
from test_warehouse import obj, row

from image_analyzer.dictionary import read_relations, render_dictionary
from image_analyzer.records import ErrorCode
from image_analyzer.reviews import Choice
from image_analyzer.settings import PROJECT_ROOT
from image_analyzer.sql import SQL_FOLDER, statement, view_names

QUERIES = re.findall(
    r"^## (.*?)\n\n```sql\n(.*?);\n```", (PROJECT_ROOT / "docs/queries.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.fixture
def filled(night: Night) -> Desk:
    """Three runs, a copy, a flag, a failure, a refusal, French, an answer that is not used, and two decisions."""
    desk = Desk(night)
    desk.merge(
        row("A dog runs."),
        row(
            "A dog runs.",
            of=obj("copy.jpg"),
            caption_origin="reused",
            reused_from_uri="s3://b/a.jpg",
            cost_usd=0.0,
            attempts=0,
        ),
        row("Un chien court.", language="fr"),
        row("A cat sleeps.", of=obj("cat.jpg"), sha256="bb", violations=["too_long"]),
        row(None, of=obj("odd.jpg"), sha256="cc"),
        row(of=obj("bad.jpg"), sha256=None, error=ErrorCode.CORRUPT, width_px=None),
        row(of=obj("note.txt"), sha256=None, error=ErrorCode.UNSUPPORTED_TYPE),
    )
    desk.decide(Choice.EDITED, desk.see("s3://b/cat.jpg"), text="A grey cat sleeps.")
    desk.decide(Choice.APPROVED, desk.see("s3://b/copy.jpg"))
    desk.merge(row("A hound runs.", language="fr", run_id="r2", caption_model="m2", cost_usd=0.25))
    desk.merge(row(None, language="fr", run_id="r3", caption_model="m3", cost_usd=0.25))
    desk.query("UPDATE IMAGE_RESULTS SET FLAGS = PARSE_JSON(%(f)s) WHERE FILE_NAME = 'odd.jpg'",
               f='[{"flag": "near_duplicate", "image_uri": "s3://b/cat.jpg"}]')  # fmt: skip
    return desk


def view(desk: Desk, name: str) -> list[dict[str, Any]]:
    """Return a view's rows."""
    return desk.desk.read_view(name)


def test_the_views_say_what_they_promise(filled: Desk) -> None:
    """Captions, coverage, cost, quality, decisions, duplicates, runs and versions add up to what was written."""
    captions = {
        (r["FILE_NAME"], r["LANGUAGE"]): (r["CAPTION"], r["WRITTEN_BY"]) for r in view(filled, "IMAGE_CAPTIONS")
    }
    assert {
        ("a.jpg", "en"): ("A dog runs.", "person"), ("copy.jpg", "en"): ("A dog runs.", "person"),
        ("a.jpg", "fr"): ("A hound runs.", "model"), ("cat.jpg", "en"): ("A grey cat sleeps.", "person"),
    } == captions  # fmt: skip

    coverage = {r["LANGUAGE"]: r for r in view(filled, "IMAGE_COVERAGE")}
    numbers = ("IMAGES", "PUBLISHED", "COVERAGE", "IN_REVIEW", "WAITING", "FAILED", "NO_ROW")
    assert (5, 3, 0.6, 1, 0, 1, 0) == tuple(coverage["en"][n] for n in numbers)
    assert (5, 1, 0.2, 0, 0, 0, 4) == tuple(coverage["fr"][n] for n in numbers)

    costs = {(r["LANGUAGE"], r["CAPTION_MODEL"]): r for r in view(filled, "CAPTION_COST_DAILY")}
    assert (3, 1.5, 500.0, 1) == tuple(costs["en", "m"][n] for n in ("CAPTIONS", "COST_USD", "USD_PER_1000", "REUSED"))
    assert (0.5, 0.25) == (costs["fr", "m"]["COST_USD"], costs["fr", "m2"]["COST_USD"]), (
        "a replaced row was paid for, too"
    )

    quality = {(r["LANGUAGE"], r["CAPTION_MODEL"]): r for r in view(filled, "CAPTION_QUALITY_DAILY")}
    assert (3, 2, 1, 1) == tuple(quality["en", "m"][n] for n in ("ANSWERS", "PUBLISHED", "AT_ONCE", "IN_REVIEW"))

    (outcomes,) = view(filled, "REVIEW_OUTCOMES")
    assert (datetime.now(UTC).date(), 2, 1, 1, 0.5, 5.0) == tuple(
        outcomes[n] for n in ("DAY", "DECISIONS", "APPROVED", "EDITED", "ACCEPTANCE_RATE", "MEAN_EDIT_DISTANCE")
    )

    pairs = {(r["KIND"], r["FILE_NAME"], r["OTHER_URI"]) for r in view(filled, "DUPLICATE_IMAGES")}
    assert {("same_bytes", "copy.jpg", "s3://b/a.jpg"), ("near_duplicate", "odd.jpg", "s3://b/cat.jpg")} == pairs

    runs = {r["RUN_ID"]: r for r in view(filled, "PIPELINE_RUNS")}
    assert (7, 4, 1, 1, "corrupt") == tuple(
        runs["r1"][n] for n in ("ROWS_WRITTEN", "PUBLISHED", "IN_REVIEW", "FAILED", "TOP_FAILURE")
    )
    assert (1, 1, None) == tuple(runs["r2"][n] for n in ("ROWS_WRITTEN", "PUBLISHED", "TOP_FAILURE"))

    versions = [r for r in view(filled, "IMAGE_VERSIONS") if r["IMAGE_URI"] == "s3://b/cat.jpg"]
    assert ["A cat sleeps.", "A grey cat sleeps."] == [
        r["GPT_SUMMARY"] for r in sorted(versions, key=lambda r: r["VALID_FROM"])
    ]
    assert [True, False] == [
        r["VALID_TO"] is None for r in sorted(versions, key=lambda r: r["VALID_FROM"], reverse=True)
    ]


def test_answers_that_made_nothing_better_are_billed_all_the_same(night: Night) -> None:
    """A newer model that refuses leaves the caption as it is; its cost and its refusal are told, once however often merged."""
    desk = Desk(night)
    desk.merge(row("A dog runs."))
    refused = row(None, run_id="r2", caption_model="m2", cost_usd=0.25, error_code=ErrorCode.REFUSED)

    desk.merge(refused)
    desk.merge(refused)

    assert ("A dog runs.", "m") == (desk.row()["GPT_SUMMARY"], desk.row()["CAPTION_MODEL"])
    assert [("r2", "needs_review", "refused")] == desk.query(
        "SELECT RUN_ID, STATUS, ERROR_CODE FROM IMAGE_UNUSED_ANSWERS"
    )
    costs = {r["CAPTION_MODEL"]: (r["CAPTIONS"], r["COST_USD"]) for r in view(desk, "CAPTION_COST_DAILY")}
    assert {"m": (1, 0.5), "m2": (1, 0.25)} == costs
    quality = {
        r["CAPTION_MODEL"]: (r["ANSWERS"], r["PUBLISHED"], r["IN_REVIEW"]) for r in view(desk, "CAPTION_QUALITY_DAILY")
    }
    assert {"m": (1, 1, 0), "m2": (1, 0, 1)} == quality


def test_a_run_that_was_tried_again_tells_how_it_ended(night: Night) -> None:
    """The last version that a run wrote counts, whatever a person decided after it; single pictures are no run."""
    desk = Desk(night)
    failed = row(error=ErrorCode.CAPTION_UNAVAILABLE)
    desk.merge(failed, row("A cat sleeps.", of=obj("cat.jpg"), sha256="bb", run_id="adhoc-1"))
    desk.merge(row("A dog runs."))
    desk.decide(Choice.REJECTED, note="It sits.")

    (run,) = view(desk, "PIPELINE_RUNS")
    names = ("RUN_ID", "ROWS_WRITTEN", "PUBLISHED", "FAILED", "IN_REVIEW", "COST_USD", "TOP_FAILURE")
    assert ("r1", 1, 1, 0, 0, 0.5, None) == tuple(run[name] for name in names)


def test_what_lies_nowhere_is_no_duplicate(night: Night) -> None:
    """The only copy in S3 is not called a duplicate of an upload that was not kept."""
    desk = Desk(night)
    nowhere = {"s3_path": None, "image_uri": "sha256:aa", "source": "upload"}
    desk.merge(row("A dog runs.", **nowhere))
    desk.merge(row("A dog runs."))

    assert [] == view(desk, "DUPLICATE_IMAGES")


def test_the_views_stand_on_an_empty_table(night: Night) -> None:
    """Nothing divides by zero before the first night."""
    desk = Desk(night)

    assert [[]] * len(view_names()) == [view(desk, name) for name in view_names()]


def test_a_views_columns_are_those_of_its_statement(filled: Desk) -> None:
    """Every column of a view has a name and a comment; the dictionary lists them all."""
    for relation in read_relations():
        found = filled.query(f"SELECT * FROM {relation.name} LIMIT 1")  # noqa: S608 - a name of ours
        assert [len(relation.columns)] == [len(found[0])], relation.name
        assert all(len(column.comment) > 5 for column in relation.columns)


def test_ten_queries_run(filled: Desk) -> None:
    """Each example answers with rows on a table that has something of everything."""
    assert 10 == len(QUERIES)
    for title, text in QUERIES:
        assert filled.query(text), title


def test_the_dictionary_is_up_to_date() -> None:
    """`make dictionary` was run after the last change of the SQL."""
    assert render_dictionary() == (PROJECT_ROOT / "docs/data-dictionary.md").read_text()


def test_every_view_is_made() -> None:
    """A file in the folder that nobody creates would be a view that nobody has."""
    assert sorted(view_names()) == sorted(file.stem.upper() for file in (SQL_FOLDER / "views").glob("*.sql"))


def test_roles_only_analysts_cannot_write() -> None:
    """The file parses, names every table, and gives analysts nothing but reading."""
    grants = [line for line in statement("roles").splitlines() if line.startswith("GRANT")]
    assert all(sqlglot.parse_one(line.rstrip(";"), dialect="snowflake") for line in grants)
    for_analysts = {line.split(" ON ")[0] for line in grants if line.endswith("IMAGE_ANALYST;")}
    assert {"GRANT USAGE", "GRANT SELECT"} == for_analysts
    assert not [line for line in grants if "DELETE" in line or "OWNERSHIP" in line or "ALL PRIVILEGES" in line]
