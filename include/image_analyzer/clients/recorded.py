"""Captioners around recorded answers: one writes down what another answers, one answers from what was written down."""

from __future__ import annotations

from collections import defaultdict, deque

from image_analyzer.captions import CaptionAnswer
from image_analyzer.errors import RetryableError
from image_analyzer.golden import Exchange, Recording
from image_analyzer.ports import Captioner
from image_analyzer.prompts import CaptionRequest
from image_analyzer.records import Origin


class Recorder:
    """Asks another captioner, and keeps what was said.

    Attributes:
        exchanges: In the order of the answers.
    """

    proven = True  # golden pictures show by themselves whether the model sees

    def __init__(self, inner: Captioner, exchanges: list[Exchange]) -> None:
        self.model, self.detail, self.origin, self.paid = inner.model, inner.detail, inner.origin, inner.paid
        self._inner, self.exchanges = inner, exchanges

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the other's."""
        return self._inner.notes

    def most_usd(self, request: CaptionRequest) -> float:
        """Return the other's upper bound."""
        return self._inner.most_usd(request)

    async def caption(self, request: CaptionRequest) -> CaptionAnswer:
        """Return the other's answer."""
        answer = await self._inner.caption(request)
        languages = (request.key.language, *request.also)
        self.exchanges.append(
            Exchange(sha256=request.key.sha256, languages=languages, complaints=request.complaints, answer=answer)
        )
        return answer

    async def aclose(self) -> None:
        """Close the other's connections."""
        await self._inner.aclose()


class Replayer:
    """Answers as was recorded, each request once, for nothing."""

    origin = Origin.MODEL
    paid = True  # judged and asked again like any paid answer
    proven = True
    notes: tuple[str, ...] = ()

    def __init__(self, recording: Recording) -> None:
        self.model, self.detail = recording.model, recording.detail
        self._left: dict[tuple[str, tuple[str, ...]], deque[CaptionAnswer]] = defaultdict(deque)
        for exchange in recording.exchanges:
            self._left[exchange.sha256, exchange.languages].append(exchange.answer)

    def most_usd(self, request: CaptionRequest) -> float:  # noqa: ARG002 - the port's signature
        """Return 0: nobody is asked."""
        return 0.0

    async def caption(self, request: CaptionRequest) -> CaptionAnswer:
        """Return the next recorded answer.

        Raises:
            RetryableError: It was not asked so often when it was recorded: the contract has become stricter.
        """
        left = self._left[request.key.sha256, (request.key.language, *request.also)]
        if not left:
            raise RetryableError(f"no further answer is recorded ({', '.join(request.complaints) or 'first asking'})")
        return left.popleft()

    async def aclose(self) -> None:
        """Nothing to close."""
