"""Every fault in turn, against the whole DAG under a live Airflow on the embedded stack: what is lost, paid twice, or wrong.

Method: ten objects (photographs, a copy, two that are no sound picture) are landed in an empty bucket and the DAG runs in
three batches while the fault is on. Requests to S3 and Snowflake pass a proxy that breaks them, the OpenAI test server
breaks its own answers, processes are killed with SIGKILL. Then the fault is lifted and the DAG runs once more. After that
IMAGE_RESULTS must be the table that a run without faults leaves: all columns are compared but times, run ids, attempts and
what is made of them. Paid again is counted by the test server: the same picture asked with the same words and charged more
than once. Answers lost were charged, too, but could not be had any more: under way at the moment of a kill, timed out, or
cut off by the fault. Where a fault itself makes answers dearer (a broken answer is asked again, a batch job ends early) the
columns of the bill are not compared; such faults have a star. Ends with 1 if a row is wrong, an image lost, or more was paid
again than answers were lost.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from fault_lab import Lab, differing
from fault_proxy import Rule
from rich.console import Console
from rich.table import Table

from image_analyzer import wiring
from image_analyzer.keys import ledger_path
from image_analyzer.local.pictures import demo_pictures
from image_analyzer.steps.asking import make_key
from image_analyzer.steps.ledger import Claim

MANY = 100_000
OUTAGE_S = 15.0
_BILL = frozenset({"COST_USD", "INPUT_TOKENS", "OUTPUT_TOKENS", "VIOLATIONS"})
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_S3_BROKEN = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
_S3_FULL = b"<Error><Code>InsufficientStorage</Code><Message>No space left on device</Message></Error>"
_VICTIM = "photos/chelsea.png"
_LANDED = (
    "photos/camera.png", "photos/chelsea.png", "photos/coffee.png", "photos/coffee-copy.png", "photos/coins.png",
    "photos/moon.png", "photos/rocket.jpg", "photos/flower.jpg", "awkward/truncated.jpg", "awkward/drawing.svg",
)  # fmt: skip


def _nothing(_: Lab, __: str = "") -> None:
    """Do nothing."""


@dataclass
class Fault:
    """One fault.

    Attributes:
        what: What happens, in a few words.
        mode: CAPTION_MODE of the run.
        before: Sets it up, before the run.
        during: Acts while the run, whose id it is given, is under way.
        dearer: The fault makes answers dearer: columns of the bill are not compared.
        lost: Answers that the fault itself loses after they were charged.
        gone: Objects that are no longer in the bucket afterwards.
    """

    name: str
    what: str
    mode: str = "online"
    before: Callable[[Lab], None] = _nothing
    during: Callable[[Lab, str], None] = _nothing
    dearer: bool = False
    lost: int = 0
    gone: tuple[str, ...] = ()


class Result(NamedTuple):
    """What came of one fault."""

    fault: Fault
    images_lost: int
    paid_again: int
    answers_lost: int
    wrong: list[str]
    colours: str
    recovered_s: float

    @property
    def is_good(self) -> bool:
        """Tell whether every promise was kept."""
        return not self.wrong and not self.images_lost and self.paid_again <= self.answers_lost


def openai_orders(kind: str, times: int, **more: float) -> Callable[[Lab], None]:
    """Return an order of faults of the test server."""
    return lambda lab: lab.order(kind, times, **more)


def after_calls(number: int, act: Callable[[Lab, str], None]) -> Callable[[Lab, str], None]:
    """Return an act that waits until so many captions were asked for."""

    def during(lab: Lab, run_id: str) -> None:
        lab.wait_for(lambda: len(lab.calls()) >= number or lab.run_state(run_id) not in ("queued", "running"))
        act(lab, run_id)

    return during


def s3_rule(**fields: object) -> Callable[[Lab], None]:
    """Return a fault of S3."""
    return lambda lab: lab.s3.rules.append(Rule(**fields))  # type: ignore[arg-type]


def outage(needle: str) -> tuple[Callable[[Lab], None], Callable[[Lab, str], None]]:
    """Return the two halves of a Snowflake that refuses everything for a while, from the first statement with a word on."""
    rule = Rule("status", needle, times=0, status=503)

    def before(lab: Lab) -> None:
        everything = replace(rule, needle="", times=0)

        def begin() -> None:
            everything.times = MANY

        lab.snowflake.rules += [everything, Rule("hook", needle, times=1, hook=begin)]

    def during(lab: Lab, run_id: str) -> None:
        everything, begin = lab.snowflake.rules
        lab.wait_for(lambda: begin.hits or lab.run_state(run_id) not in ("queued", "running"))
        time.sleep(OUTAGE_S)
        everything.times = 0

    return before, during


def kill(task_id: str, after_s: float) -> Callable[[Lab, str], None]:
    """Return an act that kills a task's processes some time after they began."""

    def during(lab: Lab, run_id: str) -> None:
        lab.wait_for(lambda: lab.is_in(run_id, task_id, "running"))
        time.sleep(after_s)
        lab.wait_for(lambda: lab.kill(run_id, task_id), 10)

    return during


def kill_captions(lab: Lab, run_id: str) -> None:
    """Kill all caption tasks that run now."""
    lab.kill(run_id, "batch.caption")


def kill_merge(lab: Lab) -> None:
    """Let the merge task be killed as its MERGE arrives at Snowflake, which still executes it."""

    def hook() -> None:
        run_id = lab.newest_run()
        lab.kill(run_id, "merge")

    lab.snowflake.rules.append(Rule("hook", "MERGE INTO", times=1, hook=hook))


def take_away(lab: Lab) -> None:
    """Delete a picture as `prepare` asks for it."""
    rule = Rule("hook", _VICTIM, "GET", hook=lambda: lab.store.delete(lab.uri(_VICTIM)))
    lab.s3.rules.append(rule)


def put_another(lab: Lab) -> None:
    """Replace a picture as `prepare` asks for it."""
    lab.s3.rules.append(Rule("hook", _VICTIM, "GET", hook=lambda: lab.land({_VICTIM: another_picture()})))


def cancel_jobs(lab: Lab, run_id: str) -> None:
    """Cancel all batch jobs as a person does at OpenAI."""
    lab.wait_for(lambda: lab.control("batches")["jobs"])
    lab.wait_for(lambda: all(job["status"] != "validating" for job in lab.control("batches")["jobs"]))

    async def cancel() -> None:
        service = wiring.make_job_service(lab.settings)
        for job in lab.control("batches")["jobs"]:
            await service.cancel(job["id"])
        await service.aclose()

    asyncio.run(cancel())


def nobody_watches(lab: Lab, run_id: str) -> None:
    """Stop all of Airflow while jobs are under way, and start it after they have ended."""
    lab.wait_for(lambda: lab.is_in(run_id, "batch.caption", "deferred"))
    lab.airflow.stop()
    lab.wait_for(lambda: all(job["status"] == "completed" for job in lab.control("batches")["jobs"]))
    lab.airflow.start()


def restart(lab: Lab, run_id: str) -> None:
    """Kill everything of Airflow and start it again."""
    lab.restart_scheduler()


def second_run(lab: Lab, run_id: str) -> None:
    """Start another run at once, past the limit of one active run, as a backfill does."""
    day = ["--from-date", "2026-11-01T02:00:00", "--to-date", "2026-11-01T02:00:00"]
    lab.airflow.run(["backfill", "create", "--dag-id", "caption_images", *day], lab.folder / "backfill.log")
    lab.wait(lab.newest_run())


def clear_and_rerun(lab: Lab, run_id: str) -> None:
    """Let the run end, clear all of it, and let it run again."""
    lab.wait(run_id)
    lab.clear(run_id)
    lab.wait_for(lambda: lab.run_state(run_id) in ("queued", "running"))


def leave_claims(lab: Lab) -> None:
    """Leave the claims of a worker whose clock ran a day ahead and that died while it asked."""
    captioner = wiring.make_captioner(lab.settings)
    work = wiring.make_work_area(lab.settings)
    claim = Claim(owner="a run/a dead worker", at=datetime.now(UTC) + timedelta(days=1))
    for name in ("photos/moon.png", "photos/coffee.png"):
        key = make_key(hashlib.sha256(pictures()[name]).hexdigest(), "en", captioner)
        lab.store.write(
            f"{work.ledger_uri(ledger_path(key))}.claim", claim.model_dump_json().encode(), "application/json"
        )


def faults() -> Iterator[Fault]:
    """Yield every fault."""
    yield Fault("none", "a night without faults")
    yield Fault("OpenAI: storm of 429", "30 requests refused", before=openai_orders("rate_limit", 30, retry_after=0.2))
    yield Fault("OpenAI: 500s", "10 requests fail", before=openai_orders("server_error", 10))
    yield Fault(
        "OpenAI: time-outs", "4 answers after 5 s, 2 s allowed", before=openai_orders("timeout", 4, seconds=5), lost=4
    )
    yield Fault(
        "OpenAI: connection drops", "4 answers break off half-way", before=openai_orders("drop_midway", 4), lost=4
    )
    yield Fault(
        "OpenAI: truncated JSON",
        "3 answers are cut",
        before=openai_orders("truncated_json", 3, once_per_image=1),
        dearer=True,
    )
    yield Fault(
        "OpenAI: refusals", "3 answers are refusals", before=openai_orders("refusal", 3, once_per_image=1), dearer=True
    )
    for name, kind in (
        ("quota gone", "insufficient_quota"),
        ("key revoked", "invalid_key"),
        ("model retired", "model_gone"),
    ):
        yield Fault(f"OpenAI: {name} mid-run", "from the 5th request on",
                    during=after_calls(5, lambda lab, _, kind=kind: lab.order(kind, MANY)))  # type: ignore[misc]  # fmt: skip
    yield Fault("batch: none", "a night in batch mode without faults", "batch")
    yield Fault(
        "batch: expired", "each job after 1 request", "batch", openai_orders("batch_expired", 9, done=1), dearer=True
    )
    yield Fault("batch: cancelled", "at OpenAI, after 1 request each", "batch", openai_orders("batch_slow", 9, done=1),
                cancel_jobs, dearer=True)  # fmt: skip
    yield Fault(
        "batch: partly failed", "3 requests fail inside jobs", "batch", openai_orders("server_error", 3), dearer=True
    )
    yield Fault(
        "batch: nobody watches", "Airflow is down while jobs end", "batch", lambda lab: lab.slow_jobs(6), nobody_watches
    )
    yield Fault("S3: 500s", "25 requests fail", before=s3_rule(kind="status", times=25, status=500, body=_S3_BROKEN))
    yield Fault(
        "S3: slow reads",
        "80 KB/s for every picture",
        before=s3_rule(kind="slow", needle="incoming/", method="GET", times=MANY),
    )
    yield Fault(
        "S3: reset in mid-body",
        "4 reads of pictures",
        before=s3_rule(kind="cut", needle="incoming/photos", method="GET", times=4),
    )
    yield Fault("S3: object deleted", "between discover and prepare", before=take_away, gone=(_VICTIM,))
    yield Fault("S3: object replaced", "between discover and prepare", before=put_another)
    yield Fault(
        "S3: access denied",
        "on one key",
        before=s3_rule(kind="status", needle=_VICTIM, method="GET", times=MANY, status=403, body=_DENIED),
    )
    yield Fault("disk full", "no work file can be written", before=s3_rule(
        kind="status", needle="_image_analyzer/runs", method="PUT", times=MANY, status=507, body=_S3_FULL))  # fmt: skip
    for name, needle in (("at discover", ""), ("at staging", "COPY INTO"), ("before MERGE", "MERGE INTO")):
        before, during = outage(needle)
        yield Fault(f"Snowflake: down {name}", f"503 for {OUTAGE_S:g} s", before=before, during=during)
    yield Fault("Snowflake: answer lost", "MERGE done, its answer is lost",
                before=lambda lab: lab.snowflake.rules.append(Rule("lost", "MERGE INTO")))  # fmt: skip
    yield Fault("kill -9 in prepare", "all that run, 1.5 s in", during=kill("batch.prepare", 1.5))
    yield Fault("kill -9 in hint", "1 s in", during=kill("batch.hint", 1.0))
    for number in (1, 4, 9):
        yield Fault(
            f"kill -9 in caption, {number}",
            f"all that run, as request {number} arrives",
            during=after_calls(number, kill_captions),
        )
    yield Fault("kill -9 in merge", "as its MERGE arrives", before=kill_merge)
    yield Fault("scheduler killed", "all of Airflow, at request 6; started again", during=after_calls(6, restart))
    yield Fault("two runs at once", "a run and a backfill", during=second_run)
    yield Fault("cleared and re-run", "the whole run, after its end", during=clear_and_rerun)
    yield Fault("clock jumps", "claims of a dead worker a day ahead", before=leave_claims)


def pictures() -> dict[str, bytes]:
    """Return what is landed, by key."""
    return {picture.name: picture.content for picture in demo_pictures() if picture.name in _LANDED}


def another_picture() -> bytes:
    """Return what takes the place of a picture."""
    return next(picture.content for picture in demo_pictures() if picture.name == "photos/china.jpg")


def try_fault(lab: Lab, fault: Fault, wanted: Callable[[], dict]) -> Result:  # type: ignore[type-arg]
    """Run the DAG with a fault and once more without."""
    lab.reset()
    lab.land(pictures())
    fault.before(lab)
    started = time.monotonic()
    run_id = lab.trigger()
    fault.during(lab, run_id)
    colours = ["green" if lab.wait(run_id) == "success" else "red"]
    recovered_s = time.monotonic() - started
    lab.mend()
    before = lab.table()
    again = time.monotonic()
    colours.append("green" if lab.wait(lab.trigger()) == "success" else "red")
    next_s = time.monotonic() - again
    paid_again, answers_lost = lab.paid_again(), lab.lost_answers + fault.lost
    found, reference = lab.table(), dict(wanted())
    listed = lab.store.list_objects(lab.settings.s3_bucket, lab.settings.s3_prefix)
    images_lost = len({obj.key.rpartition("/")[2] for obj in listed} - {name for name, _ in found})
    wrong = []
    for key in [key for key in reference if key[0] in {name.rpartition("/")[2] for name in fault.gone}]:
        if found[key]["STATUS"] != "skipped":
            wrong.append(f"{key[0]}: STATUS")
        del found[key], before[key], reference[key]
    not_compared = _BILL if fault.dearer else frozenset()
    wrong += differing(found, reference, not_compared)
    if differing(before, reference, not_compared):
        recovered_s += next_s
    return Result(fault, images_lost, paid_again, answers_lost, wrong, " → ".join(colours), recovered_s)


class References:
    """Tables that runs without faults leave, by mode and by what is in the bucket."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, bool], dict] = {}  # type: ignore[type-arg]

    def get(self, lab: Lab, mode: str, *, replaced: bool) -> dict:  # type: ignore[type-arg]
        """Return the table; makes it by a run of its own."""
        if (mode, replaced) not in self._tables:
            lab.reset()
            lab.land(pictures() | ({_VICTIM: another_picture()} if replaced else {}))
            lab.wait(lab.trigger())
            self._tables[mode, replaced] = lab.table()
        return self._tables[mode, replaced]


def main() -> None:
    """Run the faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose name holds this text")
    parser.add_argument("--list", action="store_true", help="print the faults and end")
    arguments = parser.parse_args()
    chosen = [fault for fault in faults() if arguments.only in fault.name]
    console = Console(width=170)
    if arguments.list:
        for fault in chosen:
            console.print(f"{fault.name:<32}{fault.what}")
        return
    print(__doc__)
    started = time.monotonic()
    results = [
        result
        for mode in ("online", "batch")
        for result in run_mode(console, mode, [f for f in chosen if f.mode == mode])
    ]
    print_table(console, results)
    bad = [result for result in results if not result.is_good]
    console.print(f"{len(results)} faults, {len(bad)} broke a promise, {(time.monotonic() - started) / 60:.0f} min")
    sys.exit(bool(bad))


def run_mode(console: Console, mode: str, chosen: list[Fault]) -> Iterator[Result]:
    """Run the faults of one mode under one Airflow."""
    if not chosen:
        return
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), mode)
        references = References()
        try:
            for fault in chosen:
                references.get(lab, mode, replaced=fault.before is put_another)
                result = try_fault(
                    lab, fault, lambda f=fault: references.get(lab, mode, replaced=f.before is put_another)
                )  # type: ignore[misc]
                verdict = (
                    "ok"
                    if result.is_good
                    else f"BROKEN {result.images_lost} lost, {result.paid_again} again, {result.wrong}"
                )
                console.print(
                    f"[dim]{fault.name}: {result.colours}, {result.recovered_s:.0f} s, {verdict}[/]", highlight=False
                )
                yield result
        finally:
            lab.close()


def print_table(console: Console, results: list[Result]) -> None:
    """Print what came of each."""
    table = Table(title="Faults", title_justify="left")
    for name in (
        "fault",
        "what happened",
        "run, next run",
        "images lost",
        "answers lost",
        "paid again",
        "rows wrong",
        "whole after",
    ):
        table.add_column(
            name,
            justify="right"
            if name in ("images lost", "answers lost", "paid again", "rows wrong", "whole after")
            else "left",
        )
    for r in results:
        table.add_row(
            r.fault.name + (" *" if r.fault.dearer else ""), r.fault.what, r.colours, str(r.images_lost), str(r.answers_lost),
            str(r.paid_again), str(len(r.wrong)), f"{r.recovered_s:.0f} s",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
