"""The ledger: who is asking for a content now, and the receipt of every answer. One small file each.

A claim is written before a request is paid for and says who asks; a receipt is written the moment there is an answer. Of
several processes that want the same content one gets the claim, the others wait for its receipt. A process that is
killed leaves its claim: the same batch takes it up again at once, anybody else after a while.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import AwareDatetime

from image_analyzer.captions import CaptionAnswer, renew
from image_analyzer.keys import ledger_path
from image_analyzer.ports import ObjectStore
from image_analyzer.records import ContentKey, Receipt, Record
from image_analyzer.workarea import WorkArea


class Claim(Record):
    """Who asks for a content.

    Attributes:
        owner: Run and batch; a retry of the same task has the same.
        answer: A first answer that broke the contract. It is paid: whoever takes the claim up goes on from it.
        released: Nobody asks any more; the claim is kept for its answer.
        jobs_of: The manifest of the batch whose batch jobs ask; None if a process asks that waits for the answer.
    """

    owner: str
    at: AwareDatetime
    answer: CaptionAnswer | None = None
    released: bool = False
    jobs_of: str | None = None


class Ledger:
    """Claims and receipts below the work prefix.

    Args:
        stale_after_s: A claim of another owner that is older counts as left by a dead process; by the store's clock, since
            those of workers may be wrong.
    """

    def __init__(self, store: ObjectStore, work: WorkArea, stale_after_s: float) -> None:
        self._store, self._work, self._stale_after_s = store, work, stale_after_s

    def read(self, key: ContentKey) -> Receipt | None:
        """Return the receipt of one content."""
        content = self._store.read(self._uri(key))
        return Receipt.model_validate_json(content) if content else None

    def read_renewed(self, key: ContentKey) -> Receipt | None:
        """Return the receipt of one content if it holds by the policy of today."""
        found = self.read(key)
        return renew(found) if found else None

    def holder(self, key: ContentKey) -> Claim | None:
        """Return the claim on a content, whoever holds it."""
        content = self._store.read(self._claim_uri(key))
        return Claim.model_validate_json(content) if content else None

    def claim(
        self, key: ContentKey, owner: str, *, jobs_of: str | None = None, ended_at: datetime | None = None
    ) -> Claim | None:
        """Claim a content for asking.

        Args:
            jobs_of: Where the batch jobs are written down that will ask.
            ended_at: When the job of the present holder ended; its claim is never stale before that.

        Returns:
            The claim, with what an earlier holder was answered; None while somebody else is asking.
        """
        mine = Claim(owner=owner, at=datetime.now(UTC), jobs_of=jobs_of)
        uri = self._claim_uri(key)
        if self._store.create(uri, mine.model_dump_json().encode()):
            return mine
        found = self._store.read_with_age(uri)
        if found is None:  # given up between the two calls
            return mine if self._store.create(uri, mine.model_dump_json().encode()) else None
        other, age_s = Claim.model_validate_json(found[0]), found[1]
        if ended_at is not None and other.jobs_of is not None:
            age_s = (mine.at - ended_at).total_seconds()
        alive = age_s < self._stale_after_s or (other.jobs_of is not None and ended_at is None)
        if other.owner != owner and not other.released and alive:
            return None
        taken = mine.model_copy(update={"answer": other.answer})
        self._store.write(uri, taken.model_dump_json().encode(), "application/json")
        return taken

    def keep_answer(self, key: ContentKey, claim: Claim, answer: CaptionAnswer) -> None:
        """Keep a paid answer that is not the last word."""
        kept = claim.model_copy(update={"answer": answer})
        self._store.write(self._claim_uri(key), kept.model_dump_json().encode(), "application/json")

    def release(self, key: ContentKey, claim: Claim, answer: CaptionAnswer | None) -> None:
        """Give a claim up without a receipt, so that nobody waits for it."""
        if answer is None:
            self._store.delete(self._claim_uri(key))
            return
        kept = claim.model_copy(update={"answer": answer, "released": True})
        self._store.write(self._claim_uri(key), kept.model_dump_json().encode(), "application/json")

    def store(self, receipt: Receipt) -> None:
        """Keep a receipt, then let the claim go."""
        self._store.write(self._uri(receipt.key), receipt.model_dump_json().encode(), "application/json")
        self._store.delete(self._claim_uri(receipt.key))

    def _uri(self, key: ContentKey) -> str:
        return self._work.ledger_uri(ledger_path(key))

    def _claim_uri(self, key: ContentKey) -> str:
        return f"{self._uri(key)}.claim"
