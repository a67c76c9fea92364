"""The caps on cost: account books that all tasks of a run, or of a day, draw from, and a captioner that cannot pass them.

A book is a row of numbered files, each with the sum that was drawn up to it. The next number can be written by one
process only (`ObjectStore.create`), so that no two draw the same dollar, on however many workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple
from uuid import uuid4

from image_analyzer.captions import CaptionAnswer
from image_analyzer.errors import BudgetExceededError, ImageAnalyzerError, RetryableError
from image_analyzer.keys import parse_s3_uri
from image_analyzer.ports import Captioner, ObjectStore
from image_analyzer.prompts import CaptionRequest
from image_analyzer.records import Record

log = logging.getLogger(__name__)
# What a task draws at once: small beside the cap, so that a killed task takes little with it; large beside a request.
_DRAWN_SHARE = 0.005
_ROUNDING_USD = 1e-9


class Cap(NamedTuple):
    """A limit of cost.

    Attributes:
        setting: Its name, for messages.
        folder_uri: Says where its book lies now: a day's book changes at midnight UTC.
    """

    setting: str
    usd: float
    folder_uri: Callable[[], str]


class Entry(Record):
    """One file of a book.

    Attributes:
        nonce: Tells the writer that a file is its own: a PUT whose answer was lost is sent again and then refused.
        usd: Drawn; negative where a task gave back what it had not spent.
        total_usd: Drawn so far, this entry included.
    """

    owner: str
    nonce: str
    usd: float
    total_usd: float


class Book:
    """The entries below one address."""

    def __init__(self, store: ObjectStore, folder_uri: str, owner: str) -> None:
        self.folder_uri = folder_uri
        self._store, self._owner = store, owner
        self._number, self._total_usd = -1, 0.0

    def add(self, wanted_usd: float, cap_usd: float) -> float:
        """Draw at most `wanted_usd`, as much as the cap leaves; give back if it is negative. Returns what was drawn."""
        self._read_on()
        while True:
            usd = min(wanted_usd, max(0.0, cap_usd - self._total_usd))
            if usd == 0:
                return 0.0
            entry = Entry(owner=self._owner, nonce=uuid4().hex, usd=usd, total_usd=self._total_usd + usd)
            uri, content = self._uri(self._number + 1), entry.model_dump_json().encode()
            if self._store.create(uri, content) or self._store.read(uri) == content:
                self._number, self._total_usd = self._number + 1, entry.total_usd
                return usd
            self._read_on()

    def _read_on(self) -> None:
        """Take note of what others have written since."""
        if self._number < 0:
            folder = parse_s3_uri(self.folder_uri)
            for _ in self._store.list_objects(folder.bucket, f"{folder.key}/"):
                self._number += 1
            self._number = max(-1, self._number - 1)
        while content := self._store.read(self._uri(self._number + 1)):
            self._number, self._total_usd = self._number + 1, Entry.model_validate_json(content).total_usd

    def _uri(self, number: int) -> str:
        return f"{self.folder_uri}/{number:06d}.json"


class Reservation(Record):
    """What was drawn from one book for work that outlives the process."""

    folder_uri: str
    usd: float


def draw(
    store: ObjectStore, caps: Sequence[Cap], owner: str, amounts_usd: Sequence[float]
) -> tuple[int, list[Reservation]]:
    """Draw from every cap what the first amounts take, as many as all of them cover.

    Returns:
        How many are covered, and what was drawn for them; give it back when the bill is known.
    """
    covered = len(amounts_usd)
    drawn: list[Reservation] = []
    for cap in caps:
        folder_uri = cap.folder_uri()
        try:
            usd = Book(store, folder_uri, owner).add(sum(amounts_usd), cap.usd)
        except ImageAnalyzerError:
            for reservation in drawn:
                give_back(store, reservation, owner, reservation.usd)
            raise
        drawn.append(Reservation(folder_uri=folder_uri, usd=usd))
        sums = accumulate(amounts_usd[:covered])
        # Less than a millionth of a cent is the rounding of a sum.
        covered = sum(total <= drawn[-1].usd + _ROUNDING_USD for total in sums)
    needed_usd = sum(amounts_usd[:covered])
    for reservation in drawn:
        give_back(store, reservation, owner, reservation.usd - needed_usd)
    return covered, [r.model_copy(update={"usd": needed_usd}) for r in drawn]


def give_back(store: ObjectStore, reservation: Reservation, owner: str, usd: float) -> None:
    """Give back part of what was drawn; a negative sum is drawn now, whatever the cap."""
    if abs(usd) > _ROUNDING_USD:
        Book(store, reservation.folder_uri, owner).add(-usd, float("inf"))


class Purse:
    """What was drawn from one book and is not spent.

    Attributes:
        under_way: Requests that may still give back what they do not need.
    """

    def __init__(self, book: Book) -> None:
        self.book, self.free_usd, self.under_way = book, 0.0, 0


class Allowance:
    """What one task may spend of one cap. A request reserves its upper bound first and is settled by its bill."""

    def __init__(self, store: ObjectStore, cap: Cap, owner: str) -> None:
        self._store, self._cap, self._owner = store, cap, owner
        self._purse = Purse(Book(store, cap.folder_uri(), owner))
        self._changed = asyncio.Condition()

    async def reserve(self, usd: float) -> Purse:
        """Set a sum aside, after requests under way have given back what they did not need; return where it is from.

        Raises:
            BudgetExceededError: The cap leaves less.
        """
        async with self._changed:
            while (purse := await self._todays_purse()).free_usd < usd:
                wanted_usd = max(usd - purse.free_usd, self._cap.usd * _DRAWN_SHARE)
                drawn_usd = await asyncio.to_thread(purse.book.add, wanted_usd, self._cap.usd)
                purse.free_usd += drawn_usd
                if purse.free_usd < usd and not drawn_usd:
                    if not purse.under_way:
                        raise BudgetExceededError(f"{self._cap.setting}={self._cap.usd:g} is spent")
                    await self._changed.wait()
            purse.free_usd -= usd
            purse.under_way += 1
            return purse

    async def settle(self, purse: Purse, reserved_usd: float, spent_usd: float) -> None:
        """Give back what a request did not cost; to yesterday's book if it began yesterday."""
        async with self._changed:
            purse.under_way -= 1
            purse.free_usd += reserved_usd - spent_usd
            if purse is not self._purse:
                await asyncio.to_thread(_give_back, purse)
            self._changed.notify_all()

    async def close(self) -> None:
        """Give back to the book what was drawn and not spent; what cost more than its upper bound is drawn now."""
        await asyncio.to_thread(_give_back, self._purse)

    async def _todays_purse(self) -> Purse:
        if self._purse.book.folder_uri != (today := self._cap.folder_uri()):
            old, self._purse = self._purse, Purse(Book(self._store, today, self._owner))
            await asyncio.to_thread(_give_back, old)
        return self._purse


def _give_back(purse: Purse) -> None:
    """Write down what is left. A book that cannot be written only keeps more than was spent: no reason to lose answers."""
    try:
        if purse.free_usd:
            purse.book.add(-purse.free_usd, float("inf"))
        purse.free_usd = 0.0
    except ImageAnalyzerError as error:
        log.warning("budget: $%.6f could not be given back: %s", purse.free_usd, error)


class BudgetedCaptioner:
    """A captioner that asks nothing which the caps do not cover.

    Args:
        inner: Who answers.
        owner: Run and batch, for the books.
    """

    def __init__(self, inner: Captioner, store: ObjectStore, caps: Sequence[Cap], owner: str) -> None:
        self.model, self.detail, self.origin = inner.model, inner.detail, inner.origin
        self.paid, self.proven = inner.paid, inner.proven
        self._inner = inner
        self._allowances = [Allowance(store, cap, owner) for cap in caps]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the inner captioner's."""
        return self._inner.notes

    def most_usd(self, request: CaptionRequest) -> float:
        """Return the inner captioner's upper bound."""
        return self._inner.most_usd(request)

    async def caption(self, request: CaptionRequest) -> CaptionAnswer:
        """Answer one request within the caps.

        Raises:
            BudgetExceededError: A cap leaves too little; nothing was asked.
        """
        most_usd = self.most_usd(request)
        held: list[tuple[Allowance, Purse]] = []
        spent_usd = 0.0
        try:
            for allowance in self._allowances:
                held.append((allowance, await allowance.reserve(most_usd)))  # noqa: PERF401 - settled if the next refuses
            try:
                answer = await self._inner.caption(request)
            except RetryableError as error:
                spent_usd = most_usd * error.perhaps_billed
                raise
            except ImageAnalyzerError:
                raise
            except BaseException:
                spent_usd = most_usd
                raise
            spent_usd = most_usd if answer.usage.cost_usd is None else answer.usage.cost_usd
            spent_usd += most_usd * answer.perhaps_billed
            return answer
        finally:
            for allowance, purse in held:
                await allowance.settle(purse, most_usd, spent_usd)

    async def aclose(self) -> None:
        """Close connections, and give back what was not spent."""
        try:
            await self._inner.aclose()
        finally:
            for allowance in self._allowances:
                await allowance.close()
