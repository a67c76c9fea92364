"""Nights after a person decided: copies follow the decision, nobody is asked, nothing a person wrote is overwritten."""

from __future__ import annotations

from conftest import Night, paint
from pipeline import Pipeline

from image_analyzer.faces import make_faces
from image_analyzer.reviews import Choice, Review, Sight
from image_analyzer.steps.review import review


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
