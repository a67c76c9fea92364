"""People's decisions in the warehouse: stored, kept as history, told apart, reused for the same bytes, never overwritten."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Night
from test_warehouse import Bench, obj, row

from image_analyzer.errors import ChangedMeanwhileError, ReviewError
from image_analyzer.faces import make_faces
from image_analyzer.ports import Queue, Search
from image_analyzer.records import ContentKey, ErrorCode, Origin
from image_analyzer.reviews import Choice, Review, Sight
from image_analyzer.steps.review import review as decide

KEY = ContentKey(sha256="aa", language="en", prompt_version="2", model="another", detail="high")


class Desk(Bench):
    """A table, and a person who decides on it."""

    def __init__(self, night: Night) -> None:
        super().__init__(night)
        self.desk = make_faces(night.settings()).desk

    def see(self, uri: str = "s3://b/a.jpg") -> Sight:
        """Return what a person sees of a row now."""
        return Sight.of_row(self.row(uri))

    def row(self, uri: str = "s3://b/a.jpg") -> dict[str, Any]:
        """Return a row."""
        (found,) = [r for r in self.warehouse.select_results(100, {}) if r["IMAGE_URI"] == uri]
        return found

    def decide(self, choice: Choice, sight: Sight | None = None, by: str = "Ada", **more: Any) -> int:
        """Decide."""
        return decide(self.desk, Review(sight=sight or self.see(), choice=choice, reviewed_by=by, **more))


@pytest.fixture
def desk(night: Night) -> Desk:
    """An empty table."""
    return Desk(night)


def test_an_edited_caption_is_kept_with_its_history(desk: Desk) -> None:
    """The row carries the person's words and their counts, history the row before, IMAGE_REVIEWS who changed what."""
    desk.merge(row("A dog runs."))

    assert 1 == desk.decide(Choice.EDITED, text="  A brown dog\n runs. ")

    found = desk.row()
    assert ("A brown dog runs.", "ok", "edited", "Ada", 4, 1) == tuple(
        found[name] for name in ("GPT_SUMMARY", "STATUS", "REVIEW_STATUS", "REVIEWED_BY", "WORDS", "SENTENCES")
    )
    (old,) = desk.query("SELECT OLD_ROW FROM IMAGE_RESULTS_HISTORY")
    assert ("A dog runs.", None) == tuple(json.loads(old[0])[name] for name in ("GPT_SUMMARY", "REVIEW_STATUS"))
    assert [("edited", "A dog runs.", "A brown dog runs.", "m", False)] == desk.query(
        "SELECT DECISION, TEXT_BEFORE, TEXT_AFTER, CAPTION_MODEL, IS_COPY FROM IMAGE_REVIEWS"
    )
    assert (0, 0, 1) == desk.merge(row("A dog runs.")), "the same answer again changes nothing"


def test_the_second_of_two_reviewers_is_told(desk: Desk) -> None:
    """Who decides on what is no longer there stores nothing and reads who was quicker."""
    desk.merge(row("A dog runs."))
    seen_by_both = desk.see()
    desk.decide(Choice.APPROVED, seen_by_both, by="Ada")

    with pytest.raises(ChangedMeanwhileError, match="Ada has decided on it meanwhile"):
        desk.decide(Choice.REJECTED, seen_by_both, by="Ben", note="wrong")

    assert ("approved", "Ada") == (desk.row()["REVIEW_STATUS"], desk.row()["REVIEWED_BY"])
    assert [(1,)] == desk.query("SELECT COUNT(*) FROM IMAGE_REVIEWS")


def test_a_run_that_was_quicker_is_told_too(desk: Desk) -> None:
    """A caption that a run changed since it was looked at is not approved unseen."""
    desk.merge(row("A dog runs."))
    seen = desk.see()
    desk.merge(row("A cat sleeps.", run_id="r2"))

    with pytest.raises(ChangedMeanwhileError, match="run r2 has changed it meanwhile"):
        desk.decide(Choice.APPROVED, seen)


def test_a_rejected_caption_is_published_nowhere(desk: Desk) -> None:
    """Its row is taken down, so are its copies, and no later copy gets it."""
    desk.merge(
        row("A dog runs."), row("A dog runs.", of=obj("copy.jpg")), row("A cat sleeps.", of=obj("cat.jpg"), sha256="bb")
    )

    assert 2 == desk.decide(Choice.REJECTED, note="it is a fox")

    for uri in ("s3://b/a.jpg", "s3://b/copy.jpg"):
        found = desk.row(uri)
        assert (None, "A dog runs.", "needs_review", "rejected_by_person", "it is a fox") == tuple(
            found[name] for name in ("GPT_SUMMARY", "REJECTED_CAPTION", "STATUS", "ERROR_CODE", "REVIEW_NOTE")
        )
    assert "ok" == desk.row("s3://b/cat.jpg")["STATUS"]
    assert [(True,), (False,)] == desk.query("SELECT IS_COPY FROM IMAGE_REVIEWS ORDER BY IS_COPY DESC")
    receipt = desk.warehouse.select_receipts([KEY])[KEY]
    assert (None, ErrorCode.REJECTED_BY_PERSON, Origin.PERSON) == (receipt.caption, receipt.error_code, receipt.origin)


def test_what_a_person_wrote_holds_for_the_same_bytes(desk: Desk) -> None:
    """Another address, another model, another prompt: the same bytes get the person's words and nobody is asked."""
    desk.merge(row("A dog runs."))
    desk.decide(Choice.EDITED, text="A fox runs.")

    receipt = desk.warehouse.select_receipts([KEY])[KEY]

    assert ("A fox runs.", Origin.PERSON, "s3://b/a.jpg") == (receipt.caption, receipt.origin, receipt.paid_by_uri)


def test_text_must_keep_the_contract(desk: Desk) -> None:
    """A person may overrule a rule of wording with a reason, never length or form; nothing is stored otherwise."""
    desk.merge(row("A dog runs."))

    with pytest.raises(ReviewError, match="multi_sentence"):
        desk.decide(Choice.EDITED, text="A dog runs. It barks.", overrule=True, note="I like it")
    with pytest.raises(ReviewError, match="identity"):
        desk.decide(Choice.EDITED, text="Nelson Mandela waves to a crowd.")
    with pytest.raises(ReviewError, match="say why"):
        desk.decide(Choice.EDITED, text="Nelson Mandela waves to a crowd.", overrule=True)
    assert (None, [(0,)]) == (desk.row()["REVIEW_STATUS"], desk.query("SELECT COUNT(*) FROM IMAGE_REVIEWS"))

    desk.decide(Choice.EDITED, text="Nelson Mandela waves to a crowd.", overrule=True, note="A statue with that name.")

    assert [('["identity"]', "A statue with that name.")] == [
        (json.dumps(json.loads(codes)), note)
        for codes, note in desk.query("SELECT OVERRULED, REVIEW_NOTE FROM IMAGE_REVIEWS")
    ]


def test_a_replaced_picture_comes_back_to_its_person(desk: Desk) -> None:
    """The proposed text is what is decided on; approved, it is published and the row is whole again."""
    desk.merge(row("A dog runs."))
    desk.decide(Choice.APPROVED)
    desk.merge(row("A cat sleeps.", of=obj(etag="e2"), sha256="cc", run_id="r2"))
    assert ("picture_changed", "A cat sleeps.") == (desk.see().review, desk.see().candidate)
    (waiting,) = desk.desk.select_queue(Queue.WAITING, "en", 10)

    desk.decide(Choice.APPROVED, Sight.of_row(waiting))

    assert ("A cat sleeps.", "ok", "approved", None) == tuple(
        desk.row()[name] for name in ("GPT_SUMMARY", "STATUS", "REVIEW_STATUS", "PROPOSED_CAPTION")
    )


def test_queues_hold_what_they_say(desk: Desk) -> None:
    """Waiting, flagged, published by chance, rejected; a decorative picture needs a reason."""
    desk.merge(
        row(None, of=obj("refused.jpg"), sha256="r1"),
        row("A dog runs.", of=obj("dog.jpg"), sha256="d1"),
        row("A cat sleeps.", of=obj("line.jpg"), sha256="l1"),
    )
    desk.query("UPDATE IMAGE_RESULTS SET FLAGS = PARSE_JSON('[{\"flag\": \"near_duplicate\"}]') WHERE SHA256 = 'd1'")

    def names(queue: Queue) -> list[str]:
        return sorted(r["FILE_NAME"] for r in desk.desk.select_queue(queue, "", 10))

    assert (["refused.jpg"], ["dog.jpg"], ["dog.jpg", "line.jpg"], []) == tuple(names(queue) for queue in Queue)
    with pytest.raises(ReviewError, match="say why"):
        desk.decide(Choice.DECORATIVE, desk.see("s3://b/line.jpg"))
    desk.decide(Choice.DECORATIVE, desk.see("s3://b/line.jpg"), note="a divider")
    desk.decide(Choice.REJECTED, desk.see("s3://b/refused.jpg"), note="useless")
    assert ([], ["dog.jpg"], ["refused.jpg"]) == tuple(
        names(q) for q in (Queue.WAITING, Queue.PUBLISHED, Queue.REJECTED)
    )
    assert ("", "decorative", "a divider") == tuple(
        desk.row("s3://b/line.jpg")[name] for name in ("GPT_SUMMARY", "STATUS", "DECORATIVE_REASON")
    )


def test_search_finds_by_every_field_page_by_page(desk: Desk) -> None:
    """Words, status, label, bytes, day; a page begins after the last row of the one before; nothing is SQL."""
    desk.merge(
        row("A dog runs.", predicted_label="beagle"), row("Un chien court.", language="fr"),
        row("50% off, it's \\ cheap.", of=obj("sale.jpg"), sha256="bb"),
    )  # fmt: skip

    def found(**fields: str) -> list[str]:
        return [f"{r['FILE_NAME']} {r['LANGUAGE']}" for r in desk.desk.search(Search(**fields), 10)]

    assert ["a.jpg en"] == found(words="DOG") == found(label="beag")
    assert ["sale.jpg en"] == found(words="50% off, it's \\") == found(sha256="bb") == found(words="SALE.")
    assert [] == found(words="' OR 1=1 --") == found(to_day="2020-01-01")
    assert 3 == len(found(from_day="2020-01-01", status="ok"))
    first = desk.desk.search(Search(), 2)
    assert ["sale.jpg"] == [
        r["FILE_NAME"] for r in desk.desk.search(Search(), 2, (first[-1]["IMAGE_URI"], first[-1]["LANGUAGE"]))
    ]
