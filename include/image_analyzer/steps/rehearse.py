"""Captions golden pictures by the steps of the night, for nobody: nothing is stored, no earlier answer is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from image_analyzer.errors import ItemError, RetryableError
from image_analyzer.ports import Captioner, ObjectStore
from image_analyzer.steps.ledger import Ledger
from image_analyzer.steps.upload import DeskTools, Upload, Uploaded, caption_upload
from image_analyzer.workarea import WorkArea

log = logging.getLogger(__name__)
_PATIENCE_S = 3_600.0


def rehearse(
    tools: DeskTools,
    captioner: Callable[[str], Captioner],
    scratch: ObjectStore,
    pictures: Iterable[tuple[str, bytes]],
    languages: tuple[str, ...],
    languages_per_call: int,
) -> Iterator[Uploaded]:
    """Yield what comes of each picture; nothing for one that has no caption at all.

    Args:
        captioner: Builds who answers, for the named owner.
        scratch: Empty; takes claims and receipts, which are of no use afterwards.
        pictures: Names and bytes.

    Raises:
        BudgetExceededError: A cap on cost leaves too little.
        FatalError: Nobody answers.
    """
    alone = tools._replace(
        store=None,
        warehouse=None,
        adopter=lambda: None,
        captioner=captioner,
        ledger=Ledger(scratch, WorkArea("s3://local/golden"), _PATIENCE_S),
        options=tools.options.model_copy(update={"languages_per_call": languages_per_call}),
    )
    for name, content in pictures:
        try:
            yield caption_upload(alone, Upload(content, name, languages, store=False))
        except (ItemError, RetryableError) as error:
            log.warning("%s has no caption: %s", name, error)
