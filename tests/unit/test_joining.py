"""Work that waits together is done together."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from image_analyzer.joining import Joined


class Table:
    """Takes rows; the first call lasts until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.calls: list[list[int]] = []

    def write(self, rows: list[int]) -> int:
        """Write rows; one of them is impossible."""
        self.calls.append(rows)
        self.begun.set()
        self.go_on.wait(10)
        if -1 in rows:
            raise ValueError("no such row")
        return len(rows)


@pytest.mark.parametrize("bad", [False, True])
def test_what_comes_meanwhile_goes_together(bad: bool) -> None:
    """One call for the first, one for all that came while it ran; each hears what came of its own, and the next goes on."""
    table = Table()
    joined = Joined(table.write)
    others = [2, 3, -1 if bad else 4]
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(joined, 1)
        table.begun.wait(10)
        rest = [threads.submit(joined, row) for row in others]
        while len(joined._waiting) < len(others):
            time.sleep(0.01)
        table.go_on.set()

    assert [[1], sorted(others)] == [sorted(call) for call in table.calls]
    assert 1 == first.result()
    if bad:
        assert ["no such row"] * 3 == [str(future.exception()) for future in rest]
    else:
        assert [3] * 3 == [future.result() for future in rest]
    assert 1 == joined(5)
