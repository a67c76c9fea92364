"""Running rows of IMAGE_RESULTS again: only what is stale, only what changed is paid for, people's rows stay."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from conftest import Night, paint, photograph
from pipeline import Pipeline, numbered
from pydantic import ValidationError

from image_analyzer import wiring
from image_analyzer.captions import CaptionAnswer, Payer, judge, make_receipt, renew
from image_analyzer.guardrails import policy_version
from image_analyzer.records import ContentKey, ErrorCode, Origin, Reason, Receipt, Steps, Usage
from image_analyzer.reports import Tally


@pytest.fixture
def pipeline(night: Night) -> Pipeline:
    """A bucket and a table of one's own, captions by the test server."""
    return Pipeline(night)


def execute(pipeline: Pipeline, text: str, **binds: Any) -> list[tuple[Any, ...]]:
    """Run any statement on the table."""
    with pipeline.warehouse._session() as cursor:
        return list(cursor.execute(text, binds or None).fetchall())


def drop_ledger(pipeline: Pipeline) -> None:
    """Forget every stored answer, so that only the table knows."""
    work = wiring.make_work_area(pipeline.settings).root_uri.removeprefix("s3://")
    bucket, _, prefix = work.partition("/")
    for obj in list(pipeline.store.list_objects(bucket, f"{prefix}/ledger/")):
        pipeline.store.delete(obj.uri)


def test_another_model_writes_anew_what_it_is_told_to(pipeline: Pipeline) -> None:
    """A changed model alone asks for nothing; an order to reprocess asks once a content, and keeps the old rows."""
    cat = photograph("chelsea.png")
    pipeline.land(cat__jpg=cat, copy__jpg=cat, cup__jpg=photograph("coffee.png"))
    pipeline.run()
    newer = pipeline.night.settings(openai_model="gpt-5.6-luna")

    assert 0 == pipeline.run(newer).calls
    plan = pipeline.run(newer, reprocess=(Reason.MODEL,), dry_run=True)
    summary = pipeline.run(newer, reprocess=(Reason.MODEL,))

    assert plan.notes[0].startswith("model: 3 captions, at most $0.00")
    assert (2, 3, 3) == (summary.calls, summary.merge.updated, len(pipeline.store.opened))  # type: ignore[union-attr]
    assert {"gpt-5.6-luna"} == {row["CAPTION_MODEL"] for row in pipeline.rows().values()}
    assert [(3,)] == execute(pipeline, "SELECT COUNT(*) FROM IMAGE_RESULTS_HISTORY")
    assert (0, 0) == (pipeline.run(newer, reprocess=tuple(Reason)).images, pipeline.run(newer).calls)


def test_back_to_the_old_model_costs_nothing(pipeline: Pipeline) -> None:
    """Answers of the old model are in the ledger: a stored answer is never asked for again."""
    pipeline.land(**numbered(3))
    pipeline.run()
    before = [(row["GPT_SUMMARY"], row["CAPTION_MODEL"]) for row in pipeline.rows().values()]
    pipeline.run(pipeline.night.settings(openai_model="gpt-5.6-luna"), reprocess=(Reason.MODEL,))

    summary = pipeline.run(reprocess=(Reason.MODEL,))

    assert (3, 0, 6) == (summary.images, summary.calls, len(pipeline.night.calls()))
    assert Tally(by_origin={"model": 3}) == summary.tally, "their latencies are the first run's"
    assert before == [(row["GPT_SUMMARY"], row["CAPTION_MODEL"]) for row in pipeline.rows().values()]


def test_a_worse_answer_takes_no_caption_down(pipeline: Pipeline) -> None:
    """Where the new model's answers break the contract, the published caption of the old one stays."""
    pipeline.land(a__jpg=paint("red"), b__jpg=paint("blue"))
    pipeline.run(limit=1)
    before = pipeline.rows()["a.jpg"]
    pipeline.night.order({"kind": "two_sentences", "times": 2})

    summary = pipeline.run(pipeline.night.settings(openai_model="gpt-5.6-luna"), reprocess=(Reason.MODEL,))

    assert {"needs_review:caption_rejected": 1} == summary.by_status
    assert before == pipeline.rows()["a.jpg"]


def test_peoples_rows_are_left_alone(pipeline: Pipeline) -> None:
    """A row that a person decided on is no row to reprocess, whatever is stale about it."""
    pipeline.land(a__jpg=paint("red"), b__jpg=paint("blue"))
    pipeline.run()
    execute(pipeline, "UPDATE IMAGE_RESULTS SET REVIEW_STATUS = 'edited' WHERE FILE_NAME = 'a.jpg'")
    execute(pipeline, "UPDATE IMAGE_RESULTS SET PROMPT_VERSION = '0', POLICY_VERSION = 'old', HINT_MODEL = 'old'")

    assert 1 == pipeline.run(reprocess=tuple(Reason), dry_run=True).images


def test_a_new_policy_checks_again_and_asks_only_where_it_must(pipeline: Pipeline) -> None:
    """A caption that keeps today's policy gets its version for nothing; one that does not is asked for."""
    pipeline.land(good__jpg=paint("red"), bad__jpg=paint("blue"))
    pipeline.run()
    execute(pipeline, "UPDATE IMAGE_RESULTS SET POLICY_VERSION = 'en-0.old', ROW_HASH = FILE_NAME")
    execute(pipeline, "UPDATE IMAGE_RESULTS SET GPT_SUMMARY = 'An old man sits.' WHERE FILE_NAME = 'bad.jpg'")
    drop_ledger(pipeline)

    summary = pipeline.run(reprocess=(Reason.POLICY,))

    rows = pipeline.rows()
    assert ({"ok": 2}, 1) == (summary.by_status, summary.calls)
    assert {policy_version("en")} == {row["POLICY_VERSION"] for row in rows.values()}
    assert "An old man sits." != rows["bad.jpg"]["GPT_SUMMARY"]
    assert 0 == pipeline.run(reprocess=(Reason.POLICY,)).images


def test_a_hint_is_made_without_asking(pipeline: Pipeline) -> None:
    """Rows of a night without hints get them from the thumbnail; the caption and what it cost stay."""
    pipeline.land(cat__jpg=photograph("chelsea.png"))
    pipeline.run(pipeline.night.settings(use_tf_hint=False))
    before = pipeline.rows()["cat.jpg"]

    summary = pipeline.run(pipeline.night.settings(use_tf_hint=True), reprocess=(Reason.HINT,))

    after = pipeline.rows()["cat.jpg"]
    assert (0, 1) == (summary.calls, len(pipeline.store.opened))
    assert ("off", "imagenet-mobilenet-v2") == (before["HINT_MODEL"], after["HINT_MODEL"])
    for name in ("GPT_SUMMARY", "COST_USD", "CAPTION_ORIGIN", "ATTEMPTS"):
        assert before[name] == after[name]


def test_what_waits_and_what_failed(pipeline: Pipeline) -> None:
    """Rows of a metadata run are captioned, budget's are, a broken file is read again and stays what it is."""
    pipeline.land(a__jpg=paint("red"), cut__jpg=paint("red")[:300])
    pipeline.run(steps=Steps.METADATA)
    assert 1 == pipeline.run(reprocess=(Reason.CAPTION,)).calls
    pipeline.land(b__jpg=paint("blue"))
    pipeline.run(pipeline.night.settings(max_run_cost_usd=0.000001))
    assert 1 == pipeline.run(reprocess=(Reason.BUDGET,)).calls

    reads = len(pipeline.store.opened)
    summary = pipeline.run(reprocess=(Reason.FAILED,))

    assert (1, 0, 1) == (summary.images, summary.merge.updated, len(pipeline.store.opened) - reads)  # type: ignore[union-attr]
    assert {"a.jpg": "ok", "b.jpg": "ok", "cut.jpg": "failed"} == {
        name: row["STATUS"] for name, row in pipeline.rows().items()
    }


def test_what_the_offline_describer_wrote(pipeline: Pipeline) -> None:
    """With a model its rows are stale, at a price; without one it never writes over a model's."""
    pipeline.land(a__jpg=paint("red"))
    offline = pipeline.night.settings(caption_backend="offline")
    pipeline.run(offline)

    assert pipeline.run(reprocess=tuple(Reason), dry_run=True).notes[0].startswith("model: 1 captions, at most $0.0")
    assert 1 == pipeline.run(reprocess=(Reason.MODEL,)).calls
    assert 0 == pipeline.run(offline, reprocess=tuple(Reason)).images
    assert "model" == pipeline.rows()["a.jpg"]["CAPTION_ORIGIN"]


def test_a_picture_that_is_gone_keeps_its_row(pipeline: Pipeline) -> None:
    """Neither object nor thumbnail is there: what was published stays, and the run is green."""
    pipeline.land(a__jpg=paint("red"), b__jpg=paint("blue"))
    pipeline.run()
    before = pipeline.rows()["a.jpg"]
    pipeline.store.delete(pipeline.uri("a.jpg"))
    pipeline.store.delete(before["THUMBNAIL_URI"].partition("#")[0])

    summary = pipeline.run(pipeline.night.settings(openai_model="gpt-5.6-luna"), reprocess=(Reason.MODEL,))

    assert ({"ok": 1}, {}) == (summary.by_status, pipeline.errors)
    assert before == pipeline.rows()["a.jpg"]


def test_a_cap_holds_for_an_order_too(pipeline: Pipeline) -> None:
    """What does not fit keeps its published caption; the report says that the order has to be given again."""
    pipeline.land(**numbered(3))
    pipeline.run()
    before = pipeline.rows()
    newer = pipeline.night.settings(openai_model="gpt-5.6-luna", max_run_cost_usd=0.000001)

    summary = pipeline.run(newer, reprocess=(Reason.MODEL,))

    assert any(note.endswith("give the order again") for note in summary.notes)
    assert (before, 3) == (pipeline.rows(), len(pipeline.night.calls()))


def test_a_language_is_added_without_a_listing(pipeline: Pipeline) -> None:
    """Also for a picture that is no longer there: the thumbnail is."""
    pipeline.land(a__jpg=paint("red"), b__jpg=paint("blue"), notes__txt=b"no picture")
    pipeline.run()
    pipeline.store.delete(pipeline.uri("a.jpg"))

    summary = pipeline.run(reprocess=(Reason.LANGUAGE,), languages=("en", "fr"))

    assert ({"ok": 2}, {"a.jpg", "b.jpg"}) == (summary.by_status, set(pipeline.rows("fr")))


def test_a_limit_and_a_prefix_narrow_it_down(pipeline: Pipeline) -> None:
    """A few pictures first, or one folder."""
    pipeline.land(**numbered(4))
    pipeline.run()
    newer = pipeline.night.settings(openai_model="gpt-5.6-luna")
    folder = pipeline.settings.s3_prefix

    assert 2 == pipeline.run(newer, reprocess=(Reason.MODEL,), limit=2).calls
    assert 1 == pipeline.run(newer, reprocess=(Reason.MODEL,), prefix=f"{folder}n0003", dry_run=True).images
    assert 0 == pipeline.run(newer, reprocess=(Reason.MODEL,), prefix=f"{folder}elsewhere/", dry_run=True).images


def test_a_window_of_days_narrows_it_down(pipeline: Pipeline) -> None:
    """By the day, UTC, on which an object was last changed in S3: for what is new and for rows to run again."""
    pipeline.land(**numbered(3))
    today = datetime.now(UTC).date()
    one = timedelta(days=1)
    assert (0, 0) == _listed(pipeline.run(from_day=today + one, dry_run=True))
    assert (0, 0) == _listed(pipeline.run(to_day=today - one, dry_run=True))
    assert (3, 3) == _listed(pipeline.run(from_day=today, to_day=today + one))
    # In Berlin it was the 6th already.
    at = "2026-01-06 00:30:00 +01:00"
    execute(pipeline, "UPDATE IMAGE_RESULTS SET LAST_MODIFIED_AT = %(at)s::TIMESTAMP_TZ WHERE FILE_NAME = %(name)s",
            at=at, name=min(pipeline.rows()))  # fmt: skip
    newer = pipeline.night.settings(openai_model="gpt-5.6-luna")
    day = date(2026, 1, 5)
    windows: list[dict[str, date]] = [
        {"from_day": day, "to_day": day}, {"from_day": day + one, "to_day": day + one}, {"to_day": day - one},
        {"from_day": day + one},
    ]  # fmt: skip

    assert [1, 0, 0, 2] == [
        pipeline.run(newer, reprocess=(Reason.MODEL,), dry_run=True, **window).images for window in windows
    ]
    with pytest.raises(ValidationError, match="no object is from both"):
        pipeline.run(from_day=today + one, to_day=today)


def _listed(report: Any) -> tuple[int, int]:
    return report.listed, report.images


KEY = ContentKey(sha256="s", language="en", prompt_version="1", model="m", detail="high")


def stored(text: str, **changes: Any) -> Receipt:
    """Return the receipt of an answer, judged by an older policy."""
    answer = CaptionAnswer(text=text, usage=Usage(cost_usd=0.5, attempts=1))
    receipt = make_receipt(KEY, answer, judge(answer, "en"), Payer(Origin.MODEL, "s3://b/a", "r1"))
    return receipt.model_copy(update={"policy_version": "en-0.old", **changes})


def test_a_stored_answer_is_judged_by_todays_policy() -> None:
    """Sound ones stay, rejected ones that are sound now are published at no cost, broken ones are asked for again."""
    sound = stored("A dog runs.")
    forgiven = stored(
        "A dog runs.", caption=None, rejected_caption="A dog runs.", error_code=ErrorCode.CAPTION_REJECTED
    )
    still_bad = stored("An old man sits.")
    broken = stored("A dog runs.", caption="An old man sits.")
    leaked = stored("A dog runs.", caption=None, rejected_caption="A dog runs.", error_code=ErrorCode.CAPTION_REJECTED,
                    violations=("label_leak",))  # fmt: skip
    no_text = stored("A dog runs.", caption=None)
    cut = stored("A dog runs.", caption=None, rejected_caption="A dog runs.", error_code=ErrorCode.CAPTION_REJECTED,
                 violations=("truncated",))  # fmt: skip

    assert ("A dog runs.", policy_version("en")) == _said(renew(sound))
    assert ("A dog runs.", policy_version("en")) == _said(renew(forgiven))
    assert (None, policy_version("en")) == _said(renew(still_bad))
    for unforgiven in (cut, leaked, no_text):
        assert (None, policy_version("en")) == _said(renew(unforgiven))
    assert renew(broken) is None
    assert (0.5, "s3://b/a", "r1") == (sound.usage.cost_usd, sound.paid_by_uri, sound.run_id)


def _said(receipt: Receipt | None) -> tuple[str | None, str | None]:
    assert receipt is not None
    return receipt.caption, receipt.policy_version
