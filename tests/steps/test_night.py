"""Whole nights on real servers: what lands, what is asked, what becomes a row."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable

import pytest
from conftest import Night, paint, photograph
from PIL import Image
from pipeline import Pipeline, numbered

from image_analyzer.errors import FatalError, RetryableError
from image_analyzer.local.openai_control import API_KEY
from image_analyzer.local.stack import SECRET_KEY
from image_analyzer.records import Steps


@pytest.fixture
def pipeline(night: Night) -> Pipeline:
    """An empty bucket prefix and table, captions by the OpenAI test server."""
    return Pipeline(night)


def test_a_mixed_night(pipeline: Pipeline) -> None:
    """Good pictures get captions, bad ones a reason; the run is green, since no fault was the pipeline's."""
    cat = photograph("chelsea.png")
    pipeline.land(
        cat__jpg=cat, copy__jpg=cat, lying__png=paint("red"), cut__jpg=cat[: len(cat) // 2], empty__jpg=b"",
        drawing__svg=b"<svg/>", text__jpg=b"hello", bomb__png=paint("red", (4000, 4000), "PNG"),
        large__bmp=paint("red", (900, 900), "BMP"),
    )  # fmt: skip
    settings = pipeline.night.settings(max_image_pixels=10_000_000, max_image_bytes=2_000_000)

    summary = pipeline.run(settings)

    assert {} == pipeline.errors
    assert {
        "cat.jpg": ("ok", None), "copy.jpg": ("ok", None), "lying.png": ("ok", None), "cut.jpg": ("failed", "truncated"),
        "empty.jpg": ("failed", "empty_file"), "drawing.svg": ("skipped", "unsupported_type"),
        "text.jpg": ("skipped", "unsupported_type"), "bomb.png": ("failed", "too_many_pixels"),
        "large.bmp": ("failed", "too_large"),
    } == {name: (row["STATUS"], row["ERROR_CODE"]) for name, row in pipeline.rows().items()}  # fmt: skip
    assert (9, 9, 0) == (summary.listed, summary.merge.inserted, summary.merge.updated)  # type: ignore[union-attr]
    assert 2 == summary.calls == len(pipeline.night.calls())
    assert pipeline.rows()["lying.png"]["EXTENSION_MATCHES"] is False


def test_a_second_night_without_new_pictures_does_nothing(pipeline: Pipeline) -> None:
    """No call, no original read, no row changed, green."""
    pipeline.land(a__jpg=paint("red"), bad__jpg=b"")
    pipeline.run()
    before = pipeline.rows()

    summary = pipeline.run()

    assert (0, 1, 2) == (summary.images, len(pipeline.night.calls()), len(pipeline.store.opened))
    assert before == pipeline.rows()
    assert {} == pipeline.errors


def test_an_empty_bucket_is_green(pipeline: Pipeline) -> None:
    """Nothing at all is a night like any other."""
    assert (0, ()) == (pipeline.run().listed, pipeline.run().problems)


def test_a_night_of_bad_files_is_green(pipeline: Pipeline) -> None:
    """A bad picture is a row, also when all are bad; nobody is asked for a caption."""
    pipeline.land(a__jpg=b"", b__jpg=b"\xff\xd8\xff junk", c__svg=b"<svg/>")

    summary = pipeline.run()

    assert ({"failed", "skipped"}, {}) == ({row["STATUS"] for row in pipeline.rows().values()}, pipeline.errors)
    assert (0, ()) == (summary.calls, summary.problems)
    assert [] == pipeline.night.calls()


def test_the_same_bytes_are_paid_for_once(pipeline: Pipeline) -> None:
    """Twice in one night and once more in another: one call; the copies cost 0 and name who paid."""
    red = paint("red")
    pipeline.land(a__jpg=red, b__jpg=red)
    pipeline.run()
    pipeline.land(c__jpg=red)
    pipeline.run()

    rows = pipeline.rows()
    assert 1 == len(pipeline.night.calls())
    assert ["model", "reused", "reused"] == [rows[f"{name}.jpg"]["CAPTION_ORIGIN"] for name in "abc"]
    assert [True, False, False] == [rows[f"{name}.jpg"]["COST_USD"] > 0 for name in "abc"]
    assert {pipeline.uri("a.jpg")} == {rows[f"{name}.jpg"]["REUSED_FROM_URI"] for name in "bc"}
    assert 1 == len({rows[f"{name}.jpg"]["GPT_SUMMARY"] for name in "abc"})


def test_an_object_replaced_during_the_run_is_described_as_read(pipeline: Pipeline) -> None:
    """The row is about the bytes that were read, ETag included, so that the next night has nothing to do."""
    pipeline.land(a__jpg=paint("red"))
    pipeline.store.before_open = lambda _key: pipeline.land(a__jpg=paint("blue", (300, 200)))
    pipeline.run()
    pipeline.store.before_open = lambda _key: None

    row = pipeline.rows()["a.jpg"]
    assert (300, "ok") == (row["WIDTH_PX"], row["STATUS"])
    assert 0 == pipeline.run().images


def test_an_object_replaced_later_is_captioned_anew(pipeline: Pipeline) -> None:
    """Another picture under the same name gets its own caption; the old row goes to history."""
    pipeline.land(a__jpg=paint("red"))
    pipeline.run()
    pipeline.land(a__jpg=paint("blue", (300, 200)))

    summary = pipeline.run()

    assert (1, 2) == (summary.merge.updated, len(pipeline.night.calls()))  # type: ignore[union-attr]
    assert 300 == pipeline.rows()["a.jpg"]["WIDTH_PX"]


def test_an_object_deleted_during_the_run_is_a_row(pipeline: Pipeline) -> None:
    """What was sensed and is gone is skipped by name; the others go on."""
    pipeline.land(a__jpg=paint("red"), b__jpg=paint("blue"))

    def delete(key: str) -> None:
        if key.endswith("a.jpg"):
            pipeline.store._client.delete_object(Bucket=pipeline.settings.s3_bucket, Key=key)

    pipeline.store.before_open = delete
    pipeline.run()

    assert ("skipped", "object_deleted") == tuple(pipeline.rows()["a.jpg"][name] for name in ("STATUS", "ERROR_CODE"))
    assert "ok" == pipeline.rows()["b.jpg"]["STATUS"]


def test_the_same_bytes_uploaded_again_cost_nothing(pipeline: Pipeline) -> None:
    """A new time stamp makes the object new to look at, and its content known: no call."""
    pipeline.land(a__jpg=paint("red"))
    pipeline.run()
    cost = pipeline.rows()["a.jpg"]["COST_USD"]
    time.sleep(1.1)  # S3 keeps whole seconds
    pipeline.land(a__jpg=paint("red"))

    summary = pipeline.run()

    assert (1, 1) == (summary.images, len(pipeline.night.calls()))
    assert (cost, "model") == tuple(pipeline.rows()["a.jpg"][name] for name in ("COST_USD", "CAPTION_ORIGIN"))


def test_one_caption_for_all_pictures_is_flagged(pipeline: Pipeline) -> None:
    """A model that says the same of a cat and of a cup: both stay published, both are flagged, the report says so."""
    pipeline.night.order({"kind": "say", "text": "An animal looks into the camera.", "times": 2})
    cat = photograph("chelsea.png")
    pipeline.land(cat__jpg=cat, copy__jpg=cat, coffee__jpg=photograph("coffee.png"))

    summary = pipeline.run()

    rows = pipeline.rows()
    assert {"same_caption": 3} == summary.merge.flagged  # type: ignore[union-attr]
    assert ["3 rows are flagged same_caption: look at them (column FLAGS)"] == list(summary.notes)
    assert {pipeline.uri("coffee.jpg")} == {one["image_uri"] for one in json.loads(rows["copy.jpg"]["FLAGS"])}
    assert {"ok"} == {row["STATUS"] for row in rows.values()}
    assert (rows["cat.jpg"]["PHASH"], rows["cat.jpg"]["MEAN_COLOUR"]) == (
        rows["copy.jpg"]["PHASH"],
        rows["copy.jpg"]["MEAN_COLOUR"],
    )
    sheet = pipeline.store.read(summary.contact_sheet_uri or "") or b""
    assert b"same_caption: as s3://" in sheet


def test_a_smaller_copy_is_flagged_and_paid_for(pipeline: Pipeline) -> None:
    """A near duplicate is another content: it gets a caption of its own, and a flag with its sibling."""
    cat = photograph("chelsea.png")
    small, buffer = Image.open(io.BytesIO(cat)), io.BytesIO()
    small.resize((small.width // 2, small.height // 2)).save(buffer, "JPEG", quality=60)
    pipeline.land(cat__jpg=cat, coffee__jpg=photograph("coffee.png"))
    pipeline.run()
    pipeline.land(small__jpg=buffer.getvalue())

    summary = pipeline.run()

    row = pipeline.rows()["small.jpg"]
    assert ({"near_duplicate": 1}, 1) == (summary.merge.flagged, summary.calls)  # type: ignore[union-attr]
    assert [{"flag": "near_duplicate", "image_uri": pipeline.uri("cat.jpg")}] == json.loads(row["FLAGS"])
    assert ("ok", "model") == (row["STATUS"], row["CAPTION_ORIGIN"])


def test_a_picture_known_from_before_hashes_is_compared_too(pipeline: Pipeline) -> None:
    """A row that an earlier version wrote has no hash; a language added later makes it from the thumbnail."""
    pipeline.land(cat__jpg=photograph("chelsea.png"))
    pipeline.run()
    expected = pipeline.rows()["cat.jpg"]["PHASH"]
    with pipeline.warehouse._session() as cursor:
        cursor.execute("UPDATE IMAGE_RESULTS SET PHASH = NULL, MEAN_COLOUR = NULL")

    pipeline.run(languages=("fr",))

    assert (expected, 1) == (pipeline.rows("fr")["cat.jpg"]["PHASH"], len(pipeline.store.opened))


def test_a_new_language_reads_no_original(pipeline: Pipeline) -> None:
    """An original is read once: a language that is added later is asked with the thumbnail of the first night."""
    pipeline.land(a__jpg=paint("red"), b__jpg=paint("blue"))
    pipeline.run()

    summary = pipeline.run(languages=("en", "fr"))

    assert (2, 2) == (len(pipeline.store.opened), summary.calls)
    assert {"ok"} == {row["STATUS"] for row in pipeline.rows("fr").values()}
    assert "fr" == pipeline.night.calls()[-1]["language"]


def test_a_thumbnail_that_expired_is_made_again(pipeline: Pipeline) -> None:
    """If the work prefix was emptied, the original is read once more and nothing is lost."""
    pipeline.land(a__jpg=paint("red"))
    pipeline.run()
    pipeline.store.write(
        pipeline.rows()["a.jpg"]["THUMBNAIL_URI"].partition("#")[0], b"PK\5\6" + b"\0" * 18, "application/zip"
    )

    pipeline.run(languages=("fr",))

    assert "ok" == pipeline.rows("fr")["a.jpg"]["STATUS"]
    assert 2 == len(pipeline.store.opened)


@pytest.mark.parametrize("steps", [Steps.METADATA, Steps.HINTS])
def test_a_run_may_stop_early_and_another_goes_on(pipeline: Pipeline, steps: Steps) -> None:
    """Without captions rows are pending, with hints if asked for; the next full run asks and reads no original again."""
    pipeline.land(cat__jpg=photograph("chelsea.png"))
    pipeline.run(steps=steps)
    row = pipeline.rows()["cat.jpg"]
    assert ("pending", 0) == (row["STATUS"], len(pipeline.night.calls()))
    assert ("Egyptian cat" if steps is Steps.HINTS else None) == row["PREDICTED_LABEL"]

    pipeline.run()

    assert ("ok", "Egyptian cat") == tuple(pipeline.rows()["cat.jpg"][name] for name in ("STATUS", "PREDICTED_LABEL"))
    assert 1 == len(pipeline.store.opened)


def test_a_limit_leaves_the_rest_for_later(pipeline: Pipeline) -> None:
    """A run with a limit takes so many, the next takes the others."""
    pipeline.land(**numbered(5))

    assert [2, 3, 0] == [pipeline.run(limit=2).images, pipeline.run().images, pipeline.run().images]


def test_a_dry_run_touches_nothing(pipeline: Pipeline) -> None:
    """It counts and estimates; no file, no row, no call, no original read."""
    pipeline.land(**numbered(3))

    summary = pipeline.run(dry_run=True)

    assert (3, 0) == (summary.images, summary.calls)
    assert [] == pipeline.night.calls() == pipeline.store.opened
    assert {} == pipeline.rows()
    work = pipeline.settings.work_prefix_uri.removeprefix("s3://images/")
    assert [] == list(pipeline.store.list_objects("images", work))


def test_our_own_files_are_never_pictures(make_night: Callable[..., Night]) -> None:
    """With the whole bucket as landing prefix, what the runs write below it is not sensed."""
    pipeline = Pipeline(make_night())
    inside = f"s3://images/{pipeline.settings.s3_prefix}work"
    pipeline.land(a__jpg=paint("red"))

    settings = pipeline.night.settings(work_uri=inside)

    assert [1, 0] == [pipeline.run(settings).listed, pipeline.run(settings).images]


def test_a_strong_hint_goes_along_marked_and_a_weak_one_does_not(pipeline: Pipeline) -> None:
    """The label is told as possibly wrong at or above the threshold; the file's name never is."""
    pipeline.land(secretname__jpg=photograph("chelsea.png"))
    pipeline.run()
    pipeline.run(pipeline.night.settings(hint_min_score=0.99), languages=("fr",))

    strong, weak = (call["text"] for call in pipeline.night.calls())
    assert '"Egyptian cat"; it may be wrong' in strong
    assert "Egyptian" not in weak
    assert "secretname" not in strong + weak


@pytest.mark.parametrize(
    ("changes", "expected"), [({"use_tf_hint": False}, "off"), ({"hint_model": "no-such-model"}, "missing")]
)
def test_without_a_model_the_night_goes_on(pipeline: Pipeline, changes: dict[str, object], expected: str) -> None:
    """Captions are written without hints, and the rows say why there are none."""
    pipeline.land(cat__jpg=photograph("chelsea.png"))

    summary = pipeline.run(pipeline.night.settings(**changes))

    row = pipeline.rows()["cat.jpg"]
    assert ("ok", expected, None) == (row["STATUS"], row["HINT_MODEL"], row["PREDICTED_LABEL"])
    assert (expected == "missing") is bool(summary.notes)


@pytest.mark.parametrize(
    "how", [{"openai_send_image": "false"}, {"caption_backend": "offline"}, {"openai_api_key": ""}]
)
def test_nothing_leaves_where_nothing_may_leave(make_night: Callable[..., Night], how: dict[str, str]) -> None:
    """With a key and a reachable server, not one byte arrives there; captions are marked as written offline."""
    changes = {"CAPTION_BACKEND": "auto", **{name.upper(): value for name, value in how.items()}}
    pipeline = Pipeline(make_night(**changes))
    pipeline.land(cat__jpg=photograph("chelsea.png"), dog__jpg=paint("red"))

    summary = pipeline.run()

    rows = pipeline.rows()
    assert [] == pipeline.night.calls()
    assert {("ok", "offline", 0.0)} == {(r["STATUS"], r["CAPTION_ORIGIN"], r["COST_USD"]) for r in rows.values()}
    assert rows["cat.jpg"]["GPT_SUMMARY"].startswith("Egyptian cat: ")
    assert 0 == summary.calls


def test_offline_captions_give_way_to_a_model(make_night: Callable[..., Night]) -> None:
    """Once there is a key, stand-ins are replaced; without it again, the model's captions stay."""
    pipeline = Pipeline(make_night())
    pipeline.land(a__jpg=paint("red"))
    offline = pipeline.night.settings(caption_backend="offline")
    pipeline.run(offline)

    pipeline.run()
    again = pipeline.run(offline)

    assert ("model", 0, 1) == (pipeline.rows()["a.jpg"]["CAPTION_ORIGIN"], again.images, len(pipeline.store.opened))


def test_no_secret_is_logged(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    """A whole night at the finest log level holds neither the API key nor S3's secret nor a picture."""
    caplog.set_level(logging.DEBUG, logger="image_analyzer")
    caplog.set_level(logging.DEBUG, logger="openai")
    pipeline.land(a__jpg=paint("red"))
    pipeline.night.order({"kind": "invalid_key"})
    pipeline.run()

    assert "progress caption" in caplog.text or "caption batch" in caplog.text
    for secret in (API_KEY, SECRET_KEY, "data:image"):
        assert secret not in caplog.text + str(pipeline.errors)


def test_refused_by_the_store_is_fatal(pipeline: Pipeline) -> None:
    """A wrong secret stops at once and names what to check; it is no picture's fault."""
    from image_analyzer import wiring

    store = wiring.make_store(pipeline.night.settings(aws_secret_access_key="wrong"))

    with pytest.raises(FatalError, match="credentials"):
        list(store.list_objects("images", ""))
    with pytest.raises(FatalError, match="NoSuchBucket"):
        list(wiring.make_store(pipeline.settings).list_objects("no-such-bucket", ""))


def test_a_second_try_of_prepare_reads_no_original_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare dies after two thirds of its objects; the retry reads the others, and what was being read."""
    from image_analyzer.errors import FatalError
    from image_analyzer.steps import prepare as module

    monkeypatch.setattr(module, "_KEEP_EVERY", 5)
    pipeline.land(**numbered(30))

    def die_once(key: str) -> None:
        if key.endswith("n0020.png") and pipeline.store.opened.count(key) == 1:
            raise FatalError("killed (ordered by the test)")

    pipeline.store.before_open = die_once
    pipeline.run(pipeline.night.settings(prepare_threads=1), tries=2)

    assert {} == pipeline.errors
    assert {"ok"} == {row["STATUS"] for row in pipeline.rows().values()}
    # Each once, but for those since the last keeping, and one that a thread had begun.
    assert 30 <= len(pipeline.store.opened) <= 30 + 5 + 2


def test_a_read_that_breaks_is_read_again_and_then_waits(pipeline: Pipeline) -> None:
    """One broken read costs nothing; a lasting one is a row that the next night tries again, and a red run."""
    pipeline.land(once__jpg=paint("red"), always__jpg=paint("blue"))
    broken: list[str] = []

    def break_read(key: str) -> None:
        if key.endswith("always.jpg") or key not in broken:
            broken.append(key)
            raise RetryableError("connection reset (ordered by the test)")

    pipeline.store.before_open = break_read
    pipeline.run()
    rows = pipeline.rows()
    assert ("ok", "store_unavailable") == (rows["once.jpg"]["STATUS"], rows["always.jpg"]["ERROR_CODE"])
    assert "store_unavailable" in str(pipeline.errors["report"])

    pipeline.store.before_open = lambda _key: None
    pipeline.run()

    assert ({}, "ok") == (pipeline.errors, pipeline.rows()["always.jpg"]["STATUS"])
