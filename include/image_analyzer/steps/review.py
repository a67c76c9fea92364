"""Takes a person's decision on a caption."""

from __future__ import annotations

import logging

from image_analyzer.ports import ReviewDesk
from image_analyzer.reviews import Review, decide

log = logging.getLogger(__name__)


def review(desk: ReviewDesk, decision: Review) -> int:
    """Check and store a decision; return how many rows it is about, copies of the same bytes included.

    Raises:
        ReviewError: A reason or a text is missing, or the text breaks the contract.
        ChangedMeanwhileError: The row is no longer what the person saw.
    """
    decided = decide(decision)
    rows = desk.save(decision, decided)
    log.info("review: %s %s [%s], %d rows", decided.decision, decision.sight.image_uri, decision.sight.language, rows)
    return rows
