"""Single pictures through the steps of the night, on real servers: archived or not, paid once, stored beside a run's rows."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from conftest import Night, paint
from pipeline import Pipeline

from image_analyzer.errors import BudgetExceededError, ItemError, RetryableError
from image_analyzer.faces import make_faces
from image_analyzer.records import ErrorCode
from image_analyzer.reviews import Choice, Review, Sight
from image_analyzer.steps.asking import make_key
from image_analyzer.steps.review import review
from image_analyzer.steps.upload import DeskTools, Upload, caption_object, caption_upload, safe_name, store_rows
from image_analyzer.thumbnails import read_pack


@pytest.fixture
def pipeline(night: Night) -> Pipeline:
    """An empty bucket prefix and table."""
    return Pipeline(night)


def tools(pipeline: Pipeline, **changes: Any) -> DeskTools:
    """Return what single pictures are captioned with."""
    return make_faces(pipeline.night.settings(**changes)).tools


def objects(pipeline: Pipeline) -> list[str]:
    """Return the keys of all uploads in the bucket that belong to this test."""
    everything = pipeline.store.list_objects(pipeline.settings.s3_bucket, "")
    schema = pipeline.settings.snowflake_schema.lower()
    return [obj.key for obj in everything if obj.key.startswith((f"{schema}/work/uploads", "uploads/"))]


def test_an_archived_upload_is_a_row_with_its_place(pipeline: Pipeline) -> None:
    """The original lies under uploads/, the row says where, its thumbnail can be read; a run finds nothing left to do."""
    picture = paint("teal", (333, 222))

    found = caption_upload(tools(pipeline), Upload(picture, "../My trip/täst 1.jpg", ("en", "fr"), archive=True))

    row = pipeline.rows()["täst 1.jpg"]
    assert (True, "", 2) == (found.stored, found.problem, len(found.rows))
    assert row["IMAGE_URI"] == row["S3_PATH"] == found.rows[0].image_uri
    assert row["S3_PATH"].startswith("s3://images/uploads/20")
    assert ("upload", "ok", 333, "model") == tuple(row[c] for c in ("SOURCE", "STATUS", "WIDTH_PX", "CAPTION_ORIGIN"))
    assert row["RUN_ID"].startswith("adhoc-")
    desk = make_faces(pipeline.settings).desk
    assert desk is not None
    assert [] == desk.read_view("PIPELINE_RUNS"), "no run of the pipeline"
    assert row["ETAG"] == hashlib.md5(picture, usedforsecurity=False).hexdigest()
    assert picture == pipeline.store.read(row["S3_PATH"])
    pack = pipeline.store.read(row["THUMBNAIL_URI"].partition("#")[0])
    assert [row["SHA256"]] == [sha256 for sha256, _ in read_pack(pack)]

    key = row["S3_PATH"].removeprefix("s3://images/")
    plan = pipeline.run(prefix=key.rpartition("/")[0] + "/", languages=("en", "fr"))
    assert (1, 0) == (plan.listed, plan.images)


def test_without_an_archive_nothing_of_the_picture_is_kept(pipeline: Pipeline) -> None:
    """The row is keyed by the bytes; no original, no thumbnail; uploaded again under another name it is the same row."""
    picture = paint("olive", (120, 90))
    sha256 = hashlib.sha256(picture).hexdigest()

    first = caption_upload(tools(pipeline), Upload(picture, "olive.jpg", ("en",)))

    row = pipeline.rows()["olive.jpg"]
    assert (f"sha256:{sha256}", None, None, None, None) == tuple(
        row[c] for c in ("IMAGE_URI", "S3_PATH", "ETAG", "LAST_MODIFIED_AT", "THUMBNAIL_URI")
    )
    assert [] == [key for key in objects(pipeline) if sha256 in key or sha256[:16] in key]

    again = caption_upload(tools(pipeline), Upload(picture, "other name.jpg", ("en",)))

    assert (1, 1) == (len(pipeline.rows()), len(pipeline.night.calls()))
    assert ("model", None) == (again.rows[0].caption_origin, again.rows[0].reused_from_uri), "the row that paid"
    assert (row["COST_USD"], 0.0) == (first.paid_usd["en"], again.paid_usd["en"]), "paid once"


def test_what_the_night_knows_is_not_paid_for_again(pipeline: Pipeline) -> None:
    """An upload of bytes that a run has captioned, and a run over an upload's bytes, ask nobody."""
    red, blue = paint("red"), paint("blue")
    pipeline.land(red__jpg=red)
    pipeline.run()
    upload = caption_upload(tools(pipeline), Upload(red, "mine.jpg", ("en",)))
    caption_upload(tools(pipeline), Upload(blue, "blue.jpg", ("en",)))
    pipeline.land(later__jpg=blue)
    pipeline.run()

    assert 2 == len(pipeline.night.calls())
    assert ("reused", pipeline.uri("red.jpg"), 0.0) == (
        upload.rows[0].caption_origin, upload.rows[0].reused_from_uri, upload.rows[0].cost_usd,
    )  # fmt: skip
    assert f"sha256:{hashlib.sha256(blue).hexdigest()}" == pipeline.rows()["later.jpg"]["REUSED_FROM_URI"]


def test_a_persons_words_are_shown_again(pipeline: Pipeline) -> None:
    """Who uploads a picture whose caption a person edited gets that caption, and overwrites nothing."""
    picture = paint("gold")
    caption_upload(tools(pipeline), Upload(picture, "gold.jpg", ("en",)))
    sight = Sight.of_row(pipeline.rows()["gold.jpg"])
    edited = Review(sight=sight, choice=Choice.EDITED, reviewed_by="Ada", text="A plain gold field.")
    review(make_faces(pipeline.settings).desk, edited)

    found = caption_upload(tools(pipeline), Upload(picture, "again.jpg", ("en",)))

    assert ("A plain gold field.", "edited", 0.0) == (
        found.rows[0].gpt_summary, found.decided["en"], found.paid_usd["en"],
    )  # fmt: skip
    assert ("A plain gold field.", "edited") == tuple(
        pipeline.rows()["again.jpg"][c] for c in ("GPT_SUMMARY", "REVIEW_STATUS")
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"<svg/>", "unsupported_type"),
        (paint("red")[:400], "truncated"),
        (b"hello", "unsupported_type"),
    ],
)
def test_a_bad_file_is_said_and_nothing_is_kept(pipeline: Pipeline, content: bytes, code: str) -> None:
    """Neither row nor object nor call comes of what is no sound picture."""
    with pytest.raises(ItemError) as raised:
        caption_upload(tools(pipeline), Upload(content, "x.jpg", ("en",), archive=True))

    assert (code, {}, []) == (raised.value.code, pipeline.rows(), pipeline.night.calls())


def test_the_caption_is_not_lost_while_the_warehouse_is_down(pipeline: Pipeline) -> None:
    """The caption is returned with the reason; later its rows are stored, and nothing is paid for twice."""
    down = tools(pipeline, snowflake_port=1)
    picture = paint("pink")

    found = caption_upload(down, Upload(picture, "pink.jpg", ("en",)))

    assert (False, "ok") == (found.stored, found.rows[0].status)
    assert "Snowflake" in found.problem
    assert store_rows(pipeline.warehouse, found).stored
    assert found.rows[0].gpt_summary == pipeline.rows()["pink.jpg"]["GPT_SUMMARY"]
    caption_upload(tools(pipeline), Upload(picture, "pink.jpg", ("en",)))
    assert 1 == len(pipeline.night.calls())


def test_no_answer_is_an_error_not_a_row(pipeline: Pipeline) -> None:
    """OpenAI down, no money: said as what it is, nothing stored; the next try goes through."""
    pipeline.night.order({"kind": "server_error", "times": 2})
    with pytest.raises(RetryableError):
        caption_upload(tools(pipeline, openai_max_attempts=2), Upload(paint("red"), "a.jpg", ("en",)))
    with pytest.raises(BudgetExceededError, match="MAX_DAY_COST_USD"):
        caption_upload(tools(pipeline, max_day_cost_usd=1e-9), Upload(paint("red"), "a.jpg", ("en",)))
    assert {} == pipeline.rows()

    assert caption_upload(tools(pipeline), Upload(paint("red"), "a.jpg", ("en",))).stored


def test_who_asks_already_is_waited_for_but_not_for_long(pipeline: Pipeline) -> None:
    """A caption that another process is asking for is not paid for a second time; whoever waits is told to come again."""
    desk = tools(pipeline, openai_timeout_s=0.5)
    picture = paint("red")
    captioner = desk.captioner("another")
    key = make_key(hashlib.sha256(picture).hexdigest(), "en", captioner)
    claim = desk.ledger.claim(key, "another")

    with pytest.raises(RetryableError, match="another process asks"):
        caption_upload(desk, Upload(picture, "red.jpg", ("en",)))
    assert ({}, []) == (pipeline.rows(), pipeline.night.calls())

    assert claim is not None
    desk.ledger.release(key, claim, None)
    assert caption_upload(desk, Upload(picture, "red.jpg", ("en",))).stored


def test_an_object_captioned_at_once_is_the_runs_row(pipeline: Pipeline) -> None:
    """An s3:// address gets the row that the next run would write; that run finds it done."""
    pipeline.land(now__jpg=paint("red"))

    caption_object(tools(pipeline), pipeline.settings.s3_bucket, f"{pipeline.settings.s3_prefix}now.jpg", ("en",))

    assert (pipeline.uri("now.jpg"), "s3", "ok") == tuple(
        pipeline.rows()["now.jpg"][c] for c in ("IMAGE_URI", "SOURCE", "STATUS")
    )
    assert 0 == pipeline.run().images
    with pytest.raises(ItemError) as raised:
        caption_object(tools(pipeline), pipeline.settings.s3_bucket, "nothing/there.jpg", ("en",))
    assert ErrorCode.OBJECT_DELETED == raised.value.code
    with pytest.raises(ItemError) as raised:
        caption_object(
            tools(pipeline, max_image_bytes=100),
            pipeline.settings.s3_bucket,
            f"{pipeline.settings.s3_prefix}now.jpg",
            ("en",),
        )
    assert ErrorCode.TOO_LARGE == raised.value.code


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\a.jpg", "a.jpg"),
        ("a\0b?.jpg", "a-b-.jpg"),
        ("..", "picture"),
        ("猫.png", "猫.png"),
        ("x" * 300 + ".jpg", "x" * 116 + ".jpg"),
    ],
)
def test_file_names_are_names(name: str, safe: str) -> None:
    """Neither a path nor a control character gets into a key."""
    assert safe == safe_name(name)


def test_what_is_told_is_what_the_table_says(pipeline: Pipeline) -> None:
    """Where a person's text or a better answer stays, that is what an upload gets to hear, and what it paid all the same."""
    pipeline.land(red__jpg=paint("red"), blue__jpg=paint("blue"))
    pipeline.run()
    sight = Sight.of_row(pipeline.rows()["red.jpg"])
    edited = Review(sight=sight, choice=Choice.EDITED, reviewed_by="Ada", text="A plain red field.")
    review(make_faces(pipeline.settings).desk, edited)
    pipeline.land(red__jpg=paint("teal"))
    prefix = pipeline.settings.s3_prefix

    replaced = caption_object(tools(pipeline), "images", f"{prefix}red.jpg", ("en",))
    pipeline.night.order({"kind": "refusal", "times": 9})
    newer = {"openai_model": "gpt-6-terra", "openai_input_usd_per_mtok": 1, "openai_output_usd_per_mtok": 1}
    refused = caption_object(tools(pipeline, **newer), "images", f"{prefix}blue.jpg", ("en",))

    rows = pipeline.rows()
    for found, name in ((replaced, "red.jpg"), (refused, "blue.jpg")):
        assert tuple(rows[name][c] for c in ("STATUS", "GPT_SUMMARY", "CAPTION_MODEL")) == (
            found.rows[0].status, found.rows[0].gpt_summary, found.rows[0].caption_model,
        )  # fmt: skip
        assert (found.paid_usd["en"] or 0) > 0
    assert ("needs_review", "picture_changed") == (replaced.rows[0].status, replaced.decided["en"])
    assert ("ok", {}) == (refused.rows[0].status, refused.decided)
