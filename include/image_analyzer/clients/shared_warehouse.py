"""IMAGE_RESULTS for many single pictures at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from image_analyzer.clients.snowflake_session import Connect
from image_analyzer.clients.snowflake_warehouse import SnowflakeWarehouse
from image_analyzer.joining import Joined
from image_analyzer.records import ContentKey, Receipt
from image_analyzer.reports import MergeReport
from image_analyzer.table import ResultRow


class SharedWarehouse(SnowflakeWarehouse):
    """Joins what its callers want at one time: a MERGE locks the table, so one a picture would stand in a queue.

    Args:
        connect: As for SnowflakeWarehouse.
    """

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect)
        self._merge_together = Joined[list[ResultRow], MergeReport](super().merge)
        self._look_together = Joined[Sequence[ContentKey], dict[ContentKey, Receipt]](
            lambda wanted: super(SharedWarehouse, self).select_receipts(list(chain.from_iterable(wanted)))
        )

    def select_receipts(self, keys: Sequence[ContentKey]) -> dict[ContentKey, Receipt]:
        """Return what IMAGE_RESULTS holds for these keys; all callers' keys share prompt, model and detail."""
        known = self._look_together(keys)
        return {key: known[key] for key in keys if key in known}

    def merge(self, batches: Iterable[Sequence[ResultRow]]) -> MergeReport:
        """Stage and MERGE the rows of all callers that wait, in one transaction.

        Returns:
            What became of all their rows.
        """
        return self._merge_together(list(chain.from_iterable(batches)))
