"""Work that waits together is done together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Joined(Generic[_Item, _Answer]):
    """A function of many items for callers that bring one each, from as many threads (a database's group commit).

    Whoever finds nobody at work begins at once, alone; what comes meanwhile waits, and goes together next.

    Args:
        act: Does it for all items it is given; one call at a time.
    """

    def __init__(self, act: Callable[[list[_Item]], _Answer]) -> None:
        self._act = act
        self._turn, self._lock = Lock(), Lock()
        self._waiting: list[tuple[_Item, Future[_Answer]]] = []

    def __call__(self, item: _Item) -> _Answer:
        """Return what came of all items that went with this one.

        Raises:
            Exception: As `act` raises it, for every caller whose item was in it.
        """
        future: Future[_Answer] = Future()
        with self._lock:
            self._waiting.append((item, future))
        with self._turn:
            if not future.done():
                self._act_for_all()
        return future.result()

    def _act_for_all(self) -> None:
        with self._lock:
            together, self._waiting = self._waiting, []
        try:
            answer = self._act([item for item, _ in together])
        except BaseException as error:  # noqa: BLE001 - raised for each caller below: nobody may wait for ever
            for _, future in together:
                future.set_exception(error)
        else:
            for _, future in together:
                future.set_result(answer)
