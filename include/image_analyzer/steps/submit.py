"""Asks a batch by batch jobs, one call at a time: what it returns is waited for without a worker, then it is called again."""

from __future__ import annotations

import asyncio

from image_analyzer.errors import BudgetExceededError
from image_analyzer.ports import Captioner, JobService, ObjectStore, Warehouse
from image_analyzer.steps.batchfiles import BatchFiles
from image_analyzer.steps.caption import find_known, make_questions
from image_analyzer.steps.jobs import BatchJobs, Waiting
from image_analyzer.steps.ledger import Ledger
from image_analyzer.steps.proving import prove_sight


def submit(
    store: ObjectStore,
    warehouse: Warehouse | None,
    ledger: Ledger,
    manifest_uri: str,
    captioner: Captioner,
    service: JobService,
    jobs: BatchJobs,
    hint_min_score: float,
    *,
    begins: bool = True,
) -> Waiting | None:
    """Send what is open of a batch by batch jobs, land what has ended.

    Args:
        begins: Whether new jobs may begin; if not, those that were begun are still landed.
        captioner: Who will be asked online later; a server that is not known to see is tried first.

    Returns:
        What to wait for; None if the caption step can go on.
    """

    async def go_on() -> Waiting | None:
        try:
            if waiting := await jobs.settle():
                return waiting
            if not begins:
                return None
            files = BatchFiles(store, manifest_uri)
            questions = make_questions(files, files.manifest(), captioner, hint_min_score)
            known = find_known(warehouse, questions)
            if not (open_questions := [question for question in questions if question.key not in known]):
                return None
            try:
                await prove_sight(store, manifest_uri, captioner)
            except BudgetExceededError:
                return None
            return await jobs.begin(open_questions, ledger) or await jobs.others(open_questions, ledger)
        finally:
            await captioner.aclose()
            await service.aclose()

    return asyncio.run(go_on())
