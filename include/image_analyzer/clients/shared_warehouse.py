"""IMAGE_RESULTS for many single pictures at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from image_analyzer.clients.snowflake_session import Connect
from image_analyzer.clients.snowflake_warehouse import SnowflakeWarehouse
from image_analyzer.joining import Joined
from image_analyzer.records import ContentKey, Receipt
from image_analyzer.table import ResultRow, StandingRow


class SharedWarehouse(SnowflakeWarehouse):
    """Joins what its callers want at one time: a MERGE locks the table, so one a picture would stand in a queue.

    Args:
        connect: As for SnowflakeWarehouse.
    """

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect)
        self._settle_together = Joined[Sequence[ResultRow], list[StandingRow]](
            lambda batches: super(SharedWarehouse, self).settle(list(chain.from_iterable(batches)))
        )
        self._look_together = Joined[tuple[Sequence[ContentKey], bool], dict[ContentKey, Receipt]](self._look)

    def _look(self, wanted: list[tuple[Sequence[ContentKey], bool]]) -> dict[ContentKey, Receipt]:
        keys = list(chain.from_iterable(keys for keys, _ in wanted))
        return super().select_receipts(keys, of_any_model=wanted[0][1])

    def select_receipts(self, keys: Sequence[ContentKey], *, of_any_model: bool = False) -> dict[ContentKey, Receipt]:
        """Return what the tables hold for these keys; all callers share prompt, model and detail: a face has one captioner."""
        known = self._look_together((keys, of_any_model))
        return {key: known[key] for key in keys if key in known}

    def settle(self, rows: Sequence[ResultRow]) -> list[StandingRow]:
        """MERGE the rows of all callers that wait, in one transaction; return the caller's as they stand then."""
        mine = {row.image_uri for row in rows}
        return [standing for standing in self._settle_together(rows) if standing.row.image_uri in mine]
