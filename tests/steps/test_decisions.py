"""Nights after a person decided: copies follow the decision, nobody is asked, nothing a person wrote is overwritten."""

from __future__ import annotations

from conftest import Night, paint
from pipeline import Pipeline

from image_analyzer.faces import make_faces
from image_analyzer.reviews import Choice, Review, Sight
from image_analyzer.steps.review import review
from image_analyzer.steps.upload import caption_object


def test_later_copies_follow_the_decision(night: Night) -> None:
    """The next night gives copies of an edited caption the person's words, those of a rejected one none; no call, green."""
    pipeline = Pipeline(night)
    red, blue = paint("red"), paint("blue")
    pipeline.land(red__jpg=red, blue__jpg=blue)
    pipeline.run()
    desk = make_faces(pipeline.settings).desk
    for name, choice, more in (
        ("red.jpg", Choice.EDITED, {"text": "A red field under a black corner."}),
        ("blue.jpg", Choice.REJECTED, {"note": "It says nothing."}),
    ):
        sight = Sight.of_row(pipeline.rows()[name])
        review(desk, Review(sight=sight, choice=choice, reviewed_by="Ada", **more))

    pipeline.land(red2__jpg=red, blue2__jpg=blue)
    pipeline.run(
        pipeline.night.settings(openai_model="gpt-6-terra", openai_input_usd_per_mtok=1, openai_output_usd_per_mtok=1)
    )

    rows = pipeline.rows()
    assert ({}, 2) == (pipeline.errors, len(night.calls()))
    columns = ("GPT_SUMMARY", "STATUS", "ERROR_CODE", "CAPTION_ORIGIN", "CAPTION_MODEL", "REUSED_FROM_URI", "COST_USD")
    assert ("A red field under a black corner.", "ok", None, "person", None, pipeline.uri("red.jpg"), 0.0) == tuple(
        rows["red2.jpg"][c] for c in columns
    )
    assert (None, "needs_review", "rejected_by_person", "person", None, pipeline.uri("blue.jpg"), 0.0) == tuple(
        rows["blue2.jpg"][c] for c in columns
    )
    assert ("A red field under a black corner.", "edited") == (
        rows["red.jpg"]["GPT_SUMMARY"], rows["red.jpg"]["REVIEW_STATUS"],
    )  # fmt: skip


def test_a_decision_outlives_its_address(night: Night) -> None:
    """What was decided on a picture holds for its copies after its own address got another picture; nobody is asked."""
    pipeline = Pipeline(night)
    red, blue, gold = paint("red"), paint("blue"), paint("gold")
    pipeline.land(red__jpg=red, blue__jpg=blue, gold__jpg=gold)
    pipeline.run()
    desk = make_faces(pipeline.settings).desk
    for name, choice, more in (
        ("red.jpg", Choice.REJECTED, {"note": "It says nothing."}),
        ("blue.jpg", Choice.EDITED, {"text": "A blue field, quite plain."}),
        ("gold.jpg", Choice.DECORATIVE, {"note": "A background."}),
    ):
        review(desk, Review(sight=Sight.of_row(pipeline.rows()[name]), choice=choice, reviewed_by="Ada", **more))
    pipeline.land(red__jpg=paint("teal"), blue__jpg=paint("olive"), gold__jpg=paint("navy"))
    pipeline.run()
    asked = len(night.calls())

    pipeline.land(red2__jpg=red, blue2__jpg=blue, gold2__jpg=gold)
    pipeline.run()

    rows = pipeline.rows()
    columns = ("STATUS", "GPT_SUMMARY", "ERROR_CODE", "CAPTION_ORIGIN", "WORDS", "DECORATIVE_REASON")
    assert asked == len(night.calls())
    assert ("needs_review", None, "rejected_by_person", "person", None, None) == tuple(
        rows["red2.jpg"][c] for c in columns
    )
    assert ("ok", "A blue field, quite plain.", None, "person", 5, None) == tuple(rows["blue2.jpg"][c] for c in columns)
    assert ("decorative", "", None, "person", None, "A background.") == tuple(rows["gold2.jpg"][c] for c in columns)


def test_stand_ins_take_nothing_down(night: Night) -> None:
    """Where captions are written offline, what a model wrote or a person decided on the same bytes stays, and copies get it."""
    pipeline = Pipeline(night)
    red, blue = paint("red"), paint("blue")
    pipeline.land(red__jpg=red, blue__jpg=blue)
    pipeline.run()
    written = pipeline.rows()["red.jpg"]
    desk = make_faces(pipeline.settings).desk
    rejected = Review(
        sight=Sight.of_row(pipeline.rows()["blue.jpg"]), choice=Choice.REJECTED, reviewed_by="Ada", note="Says nothing."
    )
    review(desk, rejected)
    offline = pipeline.night.settings(caption_backend="offline")
    tools = make_faces(offline).tools

    found = caption_object(tools, "images", pipeline.uri("red.jpg").removeprefix("s3://images/"), ("en",))
    pipeline.land(red2__jpg=red, blue2__jpg=blue, new__jpg=paint("teal"))
    pipeline.run(offline)

    rows = pipeline.rows()
    assert (written["GPT_SUMMARY"], "model", written["COST_USD"]) == tuple(
        rows["red.jpg"][c] for c in ("GPT_SUMMARY", "CAPTION_ORIGIN", "COST_USD")
    )
    assert (written["GPT_SUMMARY"], 0.0) == (found.rows[0].gpt_summary, found.paid_usd["en"])
    assert (written["GPT_SUMMARY"], "reused", written["CAPTION_MODEL"]) == tuple(
        rows["red2.jpg"][c] for c in ("GPT_SUMMARY", "CAPTION_ORIGIN", "CAPTION_MODEL")
    )
    assert (None, "rejected_by_person") == tuple(rows["blue2.jpg"][c] for c in ("GPT_SUMMARY", "ERROR_CODE"))
    assert "offline" == rows["new.jpg"]["CAPTION_ORIGIN"]
