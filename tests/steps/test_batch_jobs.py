"""Batch jobs: half the price, matched by id, landed whatever becomes of them, and never paid twice."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Night, paint, photograph
from pipeline import Pipeline, drawn_usd, numbered

from image_analyzer import wiring
from image_analyzer.clients import openai_jobs
from image_analyzer.errors import BudgetExceededError, FatalError, RetryableError
from image_analyzer.local.openai_control import API_KEY
from image_analyzer.local.stack import control_openai
from image_analyzer.reports import RunReport
from image_analyzer.settings import Settings
from image_analyzer.steps import jobs
from image_analyzer.steps.budget import BudgetedCaptioner
from image_analyzer.steps.ledger import Claim, Ledger


@pytest.fixture
def make_pipeline(make_night: Callable[..., Night]) -> Callable[..., Pipeline]:
    """Return a way to set up a night in batch mode."""

    def make(**changes: str) -> Pipeline:
        return Pipeline(make_night(**{"CAPTION_MODE": "batch", **changes}))

    return make


def openai_has(pipeline: Pipeline) -> dict[str, Any]:
    """Return the files and jobs that lie at the test server."""
    found: dict[str, Any] = control_openai(pipeline.night.base_url, "batches")
    return found


def paid(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    """Return what was charged: tier, picture and question."""
    return [(call["tier"], call["image_sha256"], call["text"]) for call in pipeline.night.calls() if call["billed"]]


@pytest.mark.parametrize("style", ["responses", "chat"])
def test_a_batch_job_is_half_the_price(make_pipeline: Callable[..., Pipeline], style: str) -> None:
    """The same picture costs half of what it costs online, in both wire formats, and leaves no file at OpenAI."""
    pipeline = make_pipeline(OPENAI_API_STYLE=style, CAPTION_LANGUAGES="en,fr")
    pipeline.land(cat__jpg=photograph("chelsea.png"))
    half = pipeline.run()
    left = openai_has(pipeline)["files"]
    pipeline.land(cup__jpg=photograph("chelsea.png") + b"\0")

    full = pipeline.run(pipeline.night.settings(caption_mode="online"))

    assert {"ok": 2} == half.by_status
    assert half.cost_usd * 2 == pytest.approx(full.cost_usd) != 0
    assert (1, 1) == (half.calls, full.calls)
    assert ["batch", "default"] == [call["tier"] for call in pipeline.night.calls()]
    assert [] == left


def paid_twice(pipeline: Pipeline) -> int:
    """Return how many questions were charged more than once."""
    return sum(count - 1 for count in Counter(paid(pipeline)).values())


def test_answers_come_in_any_order_and_from_several_jobs(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch larger than OpenAI takes at once becomes several jobs; each picture gets its own caption."""
    monkeypatch.setattr(jobs, "MOST_REQUESTS", 3)
    pipeline = make_pipeline()
    pictures = {
        f"{colour}__png": paint(colour, fmt="PNG")
        for colour in ("red", "blue", "lime", "yellow", "white", "gray", "teal")
    }
    pipeline.land(**pictures)

    summary = pipeline.run()

    online = make_pipeline(CAPTION_MODE="online")
    online.land(**pictures)
    online.run()
    assert {"ok": 7} == summary.by_status
    assert (0, 7) == (summary.cost_usd == 0, summary.calls)
    assert {name: row["GPT_SUMMARY"] for name, row in online.rows().items()} == {
        name: row["GPT_SUMMARY"] for name, row in pipeline.rows().items()
    }


@pytest.mark.parametrize("end", ["batch_expired", "batch_slow"])
def test_what_a_job_left_open_is_asked_online(make_pipeline: Callable[..., Pipeline], end: str) -> None:
    """Of a job that expired, or was cancelled after the patience, what was done is landed and billed; nothing is paid twice."""
    pipeline = make_pipeline(BATCH_PATIENCE_S="1")
    pipeline.land(**numbered(5))
    pipeline.night.order({"kind": end, "done": 2})

    summary = pipeline.run()

    tiers = Counter(tier for tier, *_ in paid(pipeline))
    word = "expired" if end == "batch_expired" else "cancelled"
    assert {"ok": 5} == summary.by_status
    assert {"batch": 2, "default": 3} == tiers
    assert (0, 5) == (paid_twice(pipeline), summary.calls)
    assert f"is {word}: 3 captions were asked online" in "; ".join(summary.notes)
    assert [] == openai_has(pipeline)["files"]
    assert summary.cost_usd == pytest.approx(sum(row["COST_USD"] for row in pipeline.rows().values()))


def test_rows_of_a_job_that_failed(make_pipeline: Callable[..., Pipeline]) -> None:
    """A refused picture is for review; a server error, a cut answer and a broken rule are asked again online."""
    pipeline = make_pipeline()
    pipeline.land(**numbered(5))
    pipeline.night.order(
        {"kind": "content_policy"}, {"kind": "server_error"}, {"kind": "truncated_json"}, {"kind": "two_sentences"}
    )

    summary = pipeline.run()

    calls = pipeline.night.calls()
    assert {"ok": 4, "needs_review:request_rejected": 1} == summary.by_status
    assert ["batch"] * 5 + ["default"] * 3 == [call["tier"] for call in calls]
    assert 0 == paid_twice(pipeline)
    assert [1, 1, 1, 2, 2] == sorted(row["ATTEMPTS"] for row in pipeline.rows().values())


def test_a_job_that_is_refused_is_asked_online(make_pipeline: Callable[..., Pipeline]) -> None:
    """A file that OpenAI does not take costs nothing; its questions are asked one by one, and the report says why."""
    pipeline = make_pipeline()
    pipeline.land(**numbered(2))
    pipeline.night.order({"kind": "batch_invalid"})

    summary = pipeline.run()

    assert {"ok": 2} == summary.by_status
    assert ["default"] * 2 == [tier for tier, *_ in paid(pipeline)]
    assert (
        "is failed (invalid_file: The file is invalid or too large.): 2 captions were asked online" in summary.notes[0]
    )


def test_a_full_queue_is_waited_for(make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job for which there is no room is sent again after a pause, at half the price."""
    monkeypatch.setattr(jobs, "_QUEUE_PAUSE", timedelta(seconds=0.3))
    pipeline = make_pipeline()
    pipeline.land(**numbered(2))
    pipeline.night.order({"kind": "batch_queue_full", "times": 2})

    summary = pipeline.run()

    found = openai_has(pipeline)
    assert {"ok": 2} == summary.by_status
    assert ["batch"] * 2 == [tier for tier, *_ in paid(pipeline)]
    assert [] == found["files"]
    assert 3 == len({job["metadata"]["image_analyzer"] for job in mine(pipeline)})


def mine(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return the jobs whose input was sent by this night: those made since the test began."""
    return openai_has(pipeline)["jobs"]


@pytest.mark.parametrize("moment", ["reply lost", "before the id is written", "after the upload"])
def test_a_job_whose_id_was_lost_is_found(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whenever the process dies around the sending, the next try finds the one job; it never sends a second."""
    monkeypatch.setattr(jobs, "_FIRST_BACKOFF_S", 0.01)
    pipeline = make_pipeline()
    pipeline.land(**numbered(2))
    if moment == "reply lost":
        pipeline.night.order({"kind": "batch_reply_lost"})
    elif moment == "before the id is written":
        dies_once(monkeypatch, jobs.JobFiles, "write", when=lambda *found: found[-1].job_id is not None)
    else:
        dies_once(monkeypatch, openai_jobs.OpenAIJobs, "_begin")

    summary = pipeline.run(tries=2)

    assert {"ok": 2} == summary.by_status
    assert ["batch"] * 2 == [tier for tier, *_ in paid(pipeline)]
    assert 1 == len(mine(pipeline))
    assert [] == openai_has(pipeline)["files"]


def dies_once(patch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Let a method fail once, as a process that dies there."""
    original = getattr(owner, name)
    left = [1]

    def method(*args: Any, **kwargs: Any) -> Any:
        if left[0] and when(*args):
            left[0] = 0
            raise RetryableError("died here")
        return original(*args, **kwargs)

    patch.setattr(owner, name, method)


@pytest.mark.parametrize("finished", [True, False])
def test_another_run_lands_what_nobody_watched(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    """A run dies while its job is under way: the next one takes the answers, at once or when they are there, and pays nothing."""
    pipeline = make_pipeline()
    pipeline.land(**numbered(3))
    control_openai(pipeline.night.base_url, "reset", {"batch_s": 0 if finished else 6})
    red = die_after_sending(pipeline, monkeypatch)
    if finished:
        wait_until_ended(pipeline)

    summary = pipeline.run()

    assert {"pending:not_captioned": 3} == red.by_status
    assert {"ok": 3} == summary.by_status
    assert ["batch"] * 3 == [tier for tier, *_ in paid(pipeline)]
    assert summary.cost_usd == pytest.approx(sum(row["COST_USD"] for row in pipeline.rows().values())) != 0
    assert [] == openai_has(pipeline)["files"]


def cancel_jobs(pipeline: Pipeline) -> None:
    """Cancel all jobs as a person does at OpenAI's dashboard, and wait until they have ended."""
    for job in mine(pipeline):
        asyncio.run(wiring.make_job_service(pipeline.settings).cancel(job["id"]))
    while any(job["status"] != "cancelled" for job in mine(pipeline)):
        time.sleep(0.02)


def wait_until_ended(pipeline: Pipeline) -> None:
    """Wait until all jobs have ended."""
    while any(job["status"] in ("validating", "in_progress") for job in mine(pipeline)):
        time.sleep(0.02)


def test_an_online_run_meets_a_job(make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of another mode does not ask what a job is asking: its rows wait, and the next run has the captions."""
    pipeline = make_pipeline()
    pipeline.land(**numbered(2))
    pipeline.night.order({"kind": "batch_slow", "done": 2})
    die_after_sending(pipeline, monkeypatch)
    online = pipeline.night.settings(caption_mode="online")

    waiting = pipeline.run(online)
    cancel_jobs(pipeline)
    landed = pipeline.run(online)

    assert {"pending:asked_elsewhere": 2} == waiting.by_status
    assert () == waiting.problems
    assert {"ok": 2} == landed.by_status
    assert ["batch"] * 2 == [tier for tier, *_ in paid(pipeline)]


def test_the_same_bytes_in_two_batches_are_in_one_job(make_pipeline: Callable[..., Pipeline]) -> None:
    """Of two mapped batches with the same picture one asks; the other takes its answer."""
    pipeline = make_pipeline(BATCH_SIZE="1")
    pipeline.land(a__png=paint("red", fmt="PNG"), b__png=paint("blue", fmt="PNG"))
    pipeline.run()
    pipeline.land(c__png=paint("lime", fmt="PNG"), d__png=paint("lime", fmt="PNG"))

    summary = pipeline.run()

    assert {"ok": 2} == summary.by_status
    assert ["batch"] * 3 == [tier for tier, *_ in paid(pipeline)]
    assert {"model", "reused"} == {pipeline.rows()[name]["CAPTION_ORIGIN"] for name in ("c.png", "d.png")}


def test_a_cap_holds_for_jobs_too(make_pipeline: Callable[..., Pipeline]) -> None:
    """No more is sent than the cap covers at worst; what comes back is used for another job; the rest waits and is asked next."""
    pipeline = make_pipeline(MAX_RUN_COST_USD="0.0002")
    pipeline.land(**numbered(12))

    first = pipeline.run()
    nights = [first]
    while pipeline.rows() and any(row["STATUS"] == "pending_budget" for row in pipeline.rows().values()):
        nights.append(pipeline.run())

    assert first.by_status["pending_budget:budget_spent"] > 0
    assert first.by_status["ok"] > 1
    assert all(night.cost_usd <= 0.0002 for night in nights)
    assert {"ok"} == {row["STATUS"] for row in pipeline.rows().values()}
    assert ["batch"] * 12 == [tier for tier, *_ in paid(pipeline)]
    assert len(mine(pipeline)) > len(nights)


def test_a_retry_after_half_the_landing_pays_nothing(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that dies between landing and the last receipt goes on from the landed answers."""
    pipeline = make_pipeline()
    pipeline.land(**numbered(6))
    dies_once(monkeypatch, Ledger, "store", when=counted(3))

    summary = pipeline.run(tries=2)

    assert {"ok": 6} == summary.by_status
    assert ["batch"] * 6 == [tier for tier, *_ in paid(pipeline)]


def counted(number: int) -> Callable[..., bool]:
    """Return a condition that holds from the n-th time on."""
    times = [0]

    def reached(*_: Any) -> bool:
        times[0] += 1
        return times[0] >= number

    return reached


def test_a_job_whose_run_was_emptied_holds_nobody(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody deleted the folder of a dead run, its claims are as old as they are, and the next run asks."""
    pipeline = make_pipeline()
    pipeline.land(**numbered(2))
    die_after_sending(pipeline, monkeypatch)
    for obj in list(pipeline.store.list_objects("images", pipeline.settings.work_prefix_uri.partition("images/")[2])):
        if "/runs/" in obj.key:
            pipeline.store.delete(obj.uri)
    monkeypatch.setattr(wiring, "stale_claim_s", lambda _: -1.0)

    summary = pipeline.run()

    assert {"ok": 2} == summary.by_status


def die_after_sending(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, run_id: str = "") -> RunReport:
    """Run a night whose caption tasks send their jobs and die."""

    def die(settings: Settings, manifest_uri: str) -> None:
        pipeline.submit(settings, manifest_uri)
        raise RetryableError("the task was killed")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_wait_for_jobs", die)
        return pipeline.run(run_id=run_id)


def test_a_changed_mode_still_lands_what_was_sent(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is cleared after CAPTION_MODE was set to online takes the answers of its job."""
    pipeline = make_pipeline()
    pipeline.land(**numbered(2))
    die_after_sending(pipeline, monkeypatch, "night")

    summary = pipeline.run(pipeline.night.settings(caption_mode="online"), run_id="night")

    assert {"ok": 2} == summary.by_status
    assert ["batch"] * 2 == [tier for tier, *_ in paid(pipeline)]
    assert [] == openai_has(pipeline)["files"]


def test_two_tasks_land_one_job(make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that read the same answers before either wrote them down one gives money back, once."""
    pipeline = make_pipeline(MAX_DAY_COST_USD="1")
    pipeline.land(**numbered(3))
    die_after_sending(pipeline, monkeypatch)
    wait_until_ended(pipeline)
    (manifest,) = [obj.uri for obj in pipeline.store.list_objects("images", "") if is_manifest_of(pipeline, obj.key)]

    async def land() -> list[str]:
        service = wiring.make_job_service(pipeline.settings)
        tasks = [wiring.make_batch_jobs(pipeline.settings, pipeline.store, manifest, service) for _ in range(2)]
        (file,) = jobs.JobFiles(pipeline.store, manifest).read_all()
        state = await service.look(file.job.job_id or "")
        assert state is not None
        landings = [await task._land_ended(file, state) for task in [tasks[0]]]
        landings.append(tasks[1]._end(file, state.status, state.problem, landings[0].answers, state.ended_at))
        await service.aclose()
        return [landing.nonce for landing in landings]

    nonces = asyncio.run(land())

    summary = pipeline.run()
    drawn = drawn_usd(pipeline, f"{pipeline.settings.work_prefix_uri}/budget/")
    assert 1 == len(set(nonces))
    assert sum(drawn) == pytest.approx(summary.cost_usd)


def test_a_late_look_cancels_before_it_gives_up(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looked for days: the job is cancelled and waited for all the same, and what it had done is landed."""
    pipeline = make_pipeline(BATCH_PATIENCE_S="1")
    pipeline.land(**numbered(4))
    pipeline.night.order({"kind": "batch_slow", "done": 3})
    die_after_sending(pipeline, monkeypatch, "night")
    monkeypatch.setattr(jobs, "_ABANDONED_AFTER", timedelta(seconds=2))
    time.sleep(3.5)

    summary = pipeline.run(run_id="night")

    assert {"ok": 4} == summary.by_status
    assert {"batch": 3, "default": 1} == Counter(tier for tier, *_ in paid(pipeline))
    assert 0 == paid_twice(pipeline)


def test_a_job_that_was_sent_unseen_is_found_after_the_patience(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its id was written, looked at too late: it is found by its name before anything is asked online."""
    pipeline = make_pipeline(BATCH_PATIENCE_S="0")
    pipeline.land(**numbered(2))
    dies_once(monkeypatch, jobs.JobFiles, "write", when=lambda *found: found[-1].job_id is not None)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.BatchJobs, "_send", send_whatever_the_time(jobs.BatchJobs._send))
        pipeline.run(run_id="night")

    summary = pipeline.run(run_id="night")

    assert {"ok": 2} == summary.by_status
    assert ["batch"] * 2 == [tier for tier, *_ in paid(pipeline)]


def send_whatever_the_time(send: Any) -> Any:
    """Return a sending for which patience has not ended."""
    return lambda batch_jobs, file, _: send(batch_jobs, file, datetime.now(UTC) + timedelta(hours=1))


def test_answers_that_are_gone_hold_nobody(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deleted the files at OpenAI: the captions are asked online, the report says why, and no money comes back."""
    monkeypatch.setattr(jobs, "_FIRST_BACKOFF_S", 0.01)
    pipeline = make_pipeline(MAX_DAY_COST_USD="1")
    pipeline.land(**numbered(2))
    die_after_sending(pipeline, monkeypatch, "night")
    wait_until_ended(pipeline)
    for file in openai_has(pipeline)["files"]:
        delete_file(pipeline, file["id"])

    summary = pipeline.run(run_id="night")

    assert {"ok": 2} == summary.by_status
    assert {"batch": 2, "default": 2} == Counter(tier for tier, *_ in paid(pipeline))
    assert "answers gone" in summary.notes[0]
    assert sum(drawn_usd(pipeline, f"{pipeline.settings.work_prefix_uri}/budget/")) > summary.cost_usd * 1.5


def delete_file(pipeline: Pipeline, file_id: str) -> None:
    """Delete a file at OpenAI past the pipeline."""
    request = urllib.request.Request(
        f"{pipeline.night.base_url}/files/{file_id}", method="DELETE", headers={"authorization": f"Bearer {API_KEY}"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def test_files_that_cannot_be_deleted_cost_no_answer(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI refuses to delete: the answers are landed and stored all the same."""
    pipeline = make_pipeline()
    pipeline.land(**numbered(2))

    async def refuse(*_: Any) -> None:
        raise FatalError("403")

    monkeypatch.setattr(openai_jobs.OpenAIJobs, "forget", refuse)

    assert {"ok": 2} == pipeline.run().by_status
    assert 2 == len(openai_has(pipeline)["files"])


def test_landed_answers_are_taken_when_the_cap_is_spent(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer needs a second request and there is no money for it: only that one waits."""
    pipeline = make_pipeline(OPENAI_CONCURRENCY="1", MAX_RUN_COST_USD="1")
    pipeline.land(**numbered(5))
    pipeline.night.order({"kind": "two_sentences"})

    async def refuse(*_: Any) -> None:
        raise BudgetExceededError("spent")

    monkeypatch.setattr(BudgetedCaptioner, "caption", refuse)

    summary = pipeline.run()

    assert {"ok": 4, "pending_budget:budget_spent": 1} == summary.by_status
    assert ["batch"] * 5 == [tier for tier, *_ in paid(pipeline)]


def test_money_drawn_for_a_job_that_could_not_be_written_goes_back(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails between the drawing and the writing: the retry has the whole cap again."""
    pipeline = make_pipeline(MAX_DAY_COST_USD="1")
    pipeline.land(**numbered(3))
    dies_once(monkeypatch, jobs.JobFiles, "write")

    summary = pipeline.run(tries=2)

    assert {"ok": 3} == summary.by_status
    assert summary.cost_usd == pytest.approx(sum(drawn_usd(pipeline, f"{pipeline.settings.work_prefix_uri}/budget/")))


def test_a_job_that_is_just_being_written_is_looked_for_again(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another batch holds the claim and has no job yet: a moment later it has, and its answer is waited for."""
    monkeypatch.setattr(jobs, "_LOOK_AGAIN_S", 0.0)
    pipeline = make_pipeline()
    pipeline.land(**numbered(1))
    pipeline.night.order({"kind": "batch_slow"})
    die_after_sending(pipeline, monkeypatch)
    (manifest,) = [obj.uri for obj in pipeline.store.list_objects("images", "") if is_manifest_of(pipeline, obj.key)]
    (file,) = jobs.JobFiles(pipeline.store, manifest).read_all()
    written = pipeline.store.read(file.uri) or b""
    pipeline.store.delete(file.uri)
    holder = Claim(owner="another", at=datetime.now(UTC), jobs_of=manifest)
    key = file.job.asked[0].keys[0]

    async def adopt() -> list[Any]:
        adopter = wiring.make_adopter(pipeline.settings, pipeline.store)
        assert adopter is not None
        before = await adopter.adopt(holder, key)
        pipeline.store.write(file.uri, written, "application/json")
        after = await adopter.adopt(holder, key)
        await adopter.aclose()
        return [before and before.status, after]

    assert ["not asked", None] == asyncio.run(adopt())


def is_manifest_of(pipeline: Pipeline, key: str) -> bool:
    """Tell whether a key is that of a manifest of this night."""
    work = pipeline.settings.work_prefix_uri.partition("images/")[2]
    return key.startswith(work) and key.endswith("/manifest.json")
