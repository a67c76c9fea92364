"""The caps on cost hold, what does not fit waits, and nothing is lost or paid twice by waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Night, paint
from pipeline import Pipeline, drawn_usd, numbered

from image_analyzer import wiring
from image_analyzer.captions import CaptionAnswer
from image_analyzer.clients.folder_store import FolderStore
from image_analyzer.commands import caption_rows
from image_analyzer.errors import BudgetExceededError, RetryableError
from image_analyzer.prompts import CaptionRequest
from image_analyzer.records import ContentKey, Origin, Usage
from image_analyzer.steps.budget import Book, BudgetedCaptioner, Cap, Entry


@pytest.fixture
def pipeline(night: Night) -> Pipeline:
    """A bucket and a table of one's own, captions by the test server."""
    return Pipeline(night)


def test_what_does_not_fit_waits_for_the_next_run(pipeline: Pipeline) -> None:
    """The cap is not passed, the run is green and says how much waits; the next run asks for the rest and for no more."""
    pipeline.land(**numbered(24))
    cap = 0.0008

    first = pipeline.run(pipeline.night.settings(max_run_cost_usd=cap, batch_size=6))
    paid, rows = len(pipeline.night.calls()), pipeline.rows().values()
    waiting = [row for row in rows if row["STATUS"] == "pending_budget"]

    assert {} == pipeline.errors
    assert 0 < first.cost_usd <= cap
    assert (24 - paid, paid) == (len(waiting), first.calls)
    assert 0 < paid < 24
    assert {("budget_spent", "MAX_RUN_COST_USD=0.0008 is spent; the next run asks")} == {
        (row["ERROR_CODE"], row["ERROR_MESSAGE"]) for row in waiting
    }
    assert any(note.startswith(f"{len(waiting)} captions wait for budget, at most $0.0") for note in first.notes)
    assert any("is more than MAX_RUN_COST_USD=0.0008" in note for note in first.notes)

    second = pipeline.run()

    assert ({"ok": len(waiting)}, len(waiting), 24) == (second.by_status, second.calls, len(pipeline.night.calls()))


def test_most_of_a_cap_is_used(pipeline: Pipeline) -> None:
    """What requests reserve and do not need is given back: all but the last request's bound can be spent."""
    pipeline.land(**numbered(40))
    one = pipeline.run(limit=1).cost_usd

    summary = pipeline.run(pipeline.night.settings(max_run_cost_usd=one * 20, openai_concurrency=8, batch_size=10))

    assert 12 <= summary.calls <= 20
    assert summary.cost_usd <= one * 20


def test_what_is_known_is_reused_without_budget(pipeline: Pipeline) -> None:
    """Where nothing may be paid for, the same bytes under another name still get their caption."""
    pipeline.land(a__jpg=paint("red"))
    pipeline.run()
    pipeline.land(copy__jpg=paint("red"), new__jpg=paint("blue"))

    pipeline.run(pipeline.night.settings(max_run_cost_usd=0.000001))

    rows = pipeline.rows()
    assert ("reused", "pending_budget") == (rows["copy.jpg"]["CAPTION_ORIGIN"], rows["new.jpg"]["STATUS"])
    assert 1 == len(pipeline.night.calls())


def test_answers_of_others_are_taken_without_budget(pipeline: Pipeline, tmp_path: Path) -> None:
    """A caption that is in the ledger only, paid for by a command, is taken even after the cap was reached."""
    picture = tmp_path / "single.jpg"
    picture.write_bytes(paint("blue"))
    caption_rows(pipeline.settings, picture, ())
    pipeline.land(a_new__jpg=paint("red"), b_known__jpg=paint("blue"))

    pipeline.run(pipeline.night.settings(max_run_cost_usd=0.000001, openai_concurrency=1))

    assert {"a_new.jpg": "pending_budget", "b_known.jpg": "ok"} == {
        name: row["STATUS"] for name, row in pipeline.rows().items()
    }


def test_a_day_is_shared_by_runs_and_commands(pipeline: Pipeline, tmp_path: Path) -> None:
    """A second run and a single picture find the day's cap spent."""
    pipeline.land(**numbered(6))
    one = pipeline.run(limit=1).cost_usd
    settings = pipeline.night.settings(max_day_cost_usd=one * 8)
    picture = tmp_path / "single.jpg"
    picture.write_bytes(paint("orange"))

    first, second = pipeline.run(settings), pipeline.run(settings)
    pipeline.land(**{f"m{name}": content for name, content in numbered(40).items()})
    third = pipeline.run(settings)

    assert (first.calls + second.calls + third.calls) * one <= one * 8
    assert third.by_status["pending_budget:budget_spent"] > 0
    with pytest.raises(BudgetExceededError, match="MAX_DAY_COST_USD"):
        caption_rows(settings, picture, ())


def test_a_second_question_waits_too(pipeline: Pipeline) -> None:
    """An answer that broke the contract is kept; the next run asks only what the contract asks for again."""
    pipeline.land(a__jpg=paint("red"))
    pipeline.night.order({"kind": "two_sentences"})
    captioner = wiring.make_captioner(pipeline.settings)
    request = CaptionRequest(key=KEY, thumbnail=paint("red"))
    just_one = captioner.most_usd(request) * 1.01

    first = pipeline.run(pipeline.night.settings(max_run_cost_usd=just_one))
    second = pipeline.run()

    assert {"pending_budget:budget_spent": 1} == first.by_status
    assert ({"ok": 1}, 2) == (second.by_status, len(pipeline.night.calls()))
    assert 2 == pipeline.rows()["a.jpg"]["ATTEMPTS"]


def test_a_published_caption_stays_while_budget_is_missing(pipeline: Pipeline) -> None:
    """A file that was touched and could not be looked at again keeps its row."""
    pipeline.land(a__jpg=paint("red"))
    pipeline.run()
    before = pipeline.rows()["a.jpg"]
    pipeline.land(a__jpg=paint("red"))

    pipeline.run(pipeline.night.settings(max_run_cost_usd=0.000001, openai_model="gpt-5.6-luna"))

    assert before == pipeline.rows()["a.jpg"]


def test_many_workers_draw_from_one_book(pipeline: Pipeline) -> None:
    """Sixteen processes' worth of books draw at once on a real endpoint: not a cent more than the cap, and all of it."""
    folder = f"{pipeline.settings.work_prefix_uri}/budget/test"

    def draw(owner: int) -> float:
        book = Book(pipeline.store, folder, str(owner))
        return sum(book.add(0.01, 1.0) for _ in range(10))

    with ThreadPoolExecutor(16) as pool:
        drawn = list(pool.map(draw, range(16)))

    assert 1.0 == pytest.approx(sum(drawn))
    assert sum(drawn) == pytest.approx(sum(drawn_usd(pipeline, folder)))
    assert 0.0 == Book(pipeline.store, folder, "late").add(0.01, 1.0)


def test_what_a_task_does_not_need_goes_back(pipeline: Pipeline) -> None:
    """After a run the book says what the run cost."""
    pipeline.land(**numbered(5))
    summary = pipeline.run(pipeline.night.settings(max_day_cost_usd=1.0))

    drawn = drawn_usd(pipeline, f"{pipeline.settings.work_prefix_uri}/budget/")
    assert summary.cost_usd == pytest.approx(sum(drawn))


KEY = ContentKey(sha256="s", language="en", prompt_version="1", model="m", detail="high")


class Stub:
    """A captioner whose answers cost what is said; it stands in for a bill that a test server cannot send."""

    model, detail, origin, paid, proven, notes = "m", "high", Origin.MODEL, True, True, ()

    def __init__(self, *outcomes: float | Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.asked = asyncio.Event()

    def most_usd(self, request: CaptionRequest) -> float:
        """Return the upper bound: 0.4, or what the thumbnail says in hundredths."""
        return len(request.thumbnail) / 100 or 0.4

    async def caption(self, request: CaptionRequest) -> CaptionAnswer:  # noqa: ARG002 - the port's signature
        """Answer or fail as ordered."""
        outcome = self.outcomes.pop(0)
        self.asked.set()
        await asyncio.sleep(0.01)
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, CaptionAnswer):
            return outcome
        return CaptionAnswer(text="A.", usage=Usage(cost_usd=outcome, attempts=1))

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(
    ("outcomes", "answered"),
    [
        ([0.1] * 9, 7),  # 0.7 is spent; 0.3 is left, a request may cost 0.4
        ([None] * 9, 2),  # a bill that is not sent counts as the most it may be
        ([RetryableError("429")] * 5 + [0.1] * 9, 7),
        ([RetryableError("time-out", perhaps_billed=1)] * 2 + [0.1] * 9, 0),
        (
            [CaptionAnswer(text="A.", usage=Usage(cost_usd=0.1), perhaps_billed=1)] + [0.1] * 9,
            3,
        ),  # the time-out counts, too
        ([0.9] + [0.1] * 9, 1),  # a bill above the bound counts in full
    ],
)
def test_what_counts_as_spent(tmp_path: Path, outcomes: list[Any], answered: int) -> None:
    """Of a cap of 1.0, by what the requests turn out to cost."""
    captioner = BudgetedCaptioner(
        Stub(*outcomes), FolderStore(tmp_path), [Cap("MAX_RUN_COST_USD", 1.0, lambda: "s3://b/run")], "me"
    )
    got = 0

    async def ask() -> None:
        nonlocal got
        for _ in outcomes:
            try:
                await captioner.caption(CaptionRequest(key=KEY, thumbnail=b""))
                got += 1
            except RetryableError:
                continue
        await captioner.aclose()

    with pytest.raises(BudgetExceededError, match="MAX_RUN_COST_USD=1 is spent"):
        asyncio.run(ask())
    assert answered == got


def test_a_time_out_before_an_answer_is_booked(night: Night) -> None:
    """The server worked twice for one caption and one answer arrived: the book holds the most that the other can have cost."""
    pipeline = Pipeline(night)
    pipeline.land(a__png=paint("red", fmt="PNG"))
    night.order({"kind": "timeout", "seconds": 1})

    summary = pipeline.run(night.settings(max_day_cost_usd=1.0, openai_timeout_s=0.5))

    spent = sum(drawn_usd(pipeline, f"{pipeline.settings.work_prefix_uri}/budget/"))
    assert {"ok": 1} == summary.by_status
    assert 2 == sum(call["billed"] for call in night.calls())
    assert spent > 2 * summary.cost_usd


def test_requests_wait_for_what_others_give_back(tmp_path: Path) -> None:
    """Seven at once against a cap of 1.0: two fit by their bounds, all fit by their bills."""
    stub = Stub(*[0.1] * 7)
    captioner = BudgetedCaptioner(stub, FolderStore(tmp_path), [Cap("X", 1.0, lambda: "s3://b/run")], "me")

    async def ask() -> list[CaptionAnswer]:
        request = CaptionRequest(key=KEY, thumbnail=b"")
        return await asyncio.gather(*(captioner.caption(request) for _ in range(7)))

    assert 7 == len(asyncio.run(ask()))


def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    """Forty requests of unequal amounts against a cap that a few of them fill: each is answered or refused."""
    stub = Stub(*[0.013 + index * 0.0007 for index in range(40)])
    captioner = BudgetedCaptioner(stub, FolderStore(tmp_path), [Cap("X", 0.3, lambda: "s3://b/run")], "me")

    async def ask() -> list[CaptionAnswer | BaseException]:
        requests = [CaptionRequest(key=KEY, thumbnail=b"x" * (3 + index * 7 % 11)) for index in range(40)]
        asked = asyncio.gather(*(captioner.caption(request) for request in requests), return_exceptions=True)
        return await asyncio.wait_for(asked, 20)

    outcomes = asyncio.run(ask())

    assert {CaptionAnswer, BudgetExceededError} == {type(outcome) for outcome in outcomes}
    spent = sum(o.usage.cost_usd or 0.0 for o in outcomes if isinstance(o, CaptionAnswer))
    assert 0.2 < spent <= 0.3


class Deaf(FolderStore):
    """A store whose answers to conditional writes are lost now and then, so that they are sent again and refused."""

    def create(self, uri: str, content: bytes) -> bool:
        """Write, and say that it was there already."""
        return not super().create(uri, content)


def test_a_lost_answer_is_no_second_entry(tmp_path: Path) -> None:
    """A book knows its own entry by its nonce: nothing is drawn or given back twice."""
    book = Book(Deaf(tmp_path), "s3://b/run", "me")

    assert 0.9 == book.add(0.9, 1.0)
    assert -0.4 == book.add(-0.4, 1.0)
    assert 2 == len(list((tmp_path / "b" / "run").iterdir()))


def test_a_book_that_cannot_be_written_loses_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Giving back what is left is tried, never required."""
    captioner = BudgetedCaptioner(Stub(0.1), FolderStore(tmp_path), [Cap("X", 1.0, lambda: "s3://b/run")], "me")

    def fail(*_: Any) -> bool:
        raise RetryableError("the disk is full (ordered by the test)")

    async def ask() -> str | None:
        answer = await captioner.caption(CaptionRequest(key=KEY, thumbnail=b""))
        monkeypatch.setattr(FolderStore, "create", fail)
        await captioner.aclose()
        return answer.text

    assert "A." == asyncio.run(ask())


def test_a_new_day_is_a_new_book(tmp_path: Path) -> None:
    """After midnight the day's cap is whole again, for a task that runs on, too."""
    day = ["s3://b/2026-11-01"]
    captioner = BudgetedCaptioner(Stub(*[0.4] * 4), FolderStore(tmp_path), [Cap("X", 0.8, lambda: day[0])], "me")
    request = CaptionRequest(key=KEY, thumbnail=b"")

    async def ask() -> None:
        for _ in range(2):
            await captioner.caption(request)
        with pytest.raises(BudgetExceededError):
            await captioner.caption(request)
        day[0] = "s3://b/2026-11-02"
        await captioner.caption(request)

    asyncio.run(ask())


def test_what_began_yesterday_is_yesterdays(tmp_path: Path) -> None:
    """A request that is answered after midnight gives its rest back to the day it was taken from."""
    day = ["s3://b/2026-11-01"]
    stub = Stub(0.1, 0.2)
    captioner = BudgetedCaptioner(stub, FolderStore(tmp_path), [Cap("X", 1.0, lambda: day[0])], "me")
    request = CaptionRequest(key=KEY, thumbnail=b"")

    async def ask() -> None:
        yesterday = asyncio.create_task(captioner.caption(request))
        await stub.asked.wait()  # what is only reserved moves to the new day
        day[0] = "s3://b/2026-11-02"
        await captioner.caption(request)
        await yesterday
        await captioner.aclose()

    asyncio.run(ask())
    totals = {
        folder.name: sum(Entry.model_validate_json(file.read_bytes()).usd for file in folder.iterdir())
        for folder in (tmp_path / "b").iterdir()
    }

    assert {"2026-11-01": pytest.approx(0.1), "2026-11-02": pytest.approx(0.2)} == totals


def test_a_dry_run_says_what_will_wait(make_night: Callable[..., Night]) -> None:
    """The plan names the cap before anything is spent."""
    pipeline = Pipeline(make_night(MAX_RUN_COST_USD="0.0001"))
    pipeline.land(**numbered(10))

    summary = pipeline.run(dry_run=True)

    assert "is more than MAX_RUN_COST_USD=0.0001: what does not fit will wait" in summary.notes[0]
    assert [] == pipeline.night.calls()
