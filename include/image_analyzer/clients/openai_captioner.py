"""Captioner over the openai client, one request a question. This is the one layer that retries."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from image_analyzer.captions import CaptionAnswer, add_usage
from image_analyzer.clients.flex import FLEX, FlexGate, FlexUnavailableError
from image_analyzer.clients.openai_errors import map_error
from image_analyzer.clients.openai_format import OpenAIFormat
from image_analyzer.clients.pacing import Pacer
from image_analyzer.errors import ImageAnalyzerError, RetryableError
from image_analyzer.prompts import CaptionRequest
from image_analyzer.records import Origin, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# A server that asks for more than this is asked again by a later try of the task, which holds no slot meanwhile.
LONGEST_PAUSE_S = 120.0
# How long 429 after 429 is waited out before it counts as a failed try.
_LONGEST_HELD_S = 600.0
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 20.0


class FlexOptions(NamedTuple):
    """How flex is asked; see the settings FLEX_TIMEOUT_S and FLEX_PATIENCE_S."""

    timeout_s: float
    patience_s: float


class OpenAIOptions(NamedTuple):
    """How requests are made; see the settings of the same names."""

    model: str
    detail: str
    style: str
    max_attempts: int
    concurrency: int
    proven: bool
    flex: FlexOptions | None = None


class OpenAICaptioner:
    """Asks a vision model.

    Args:
        client: With `max_retries=0`: retrying is done here, where every try is counted.
        form: Words requests and reads replies.
    """

    origin = Origin.MODEL
    paid = True

    def __init__(self, client: AsyncOpenAI, options: OpenAIOptions, form: OpenAIFormat) -> None:
        self.model, self.detail, self.proven = options.model, options.detail, options.proven
        self._client, self._options, self._form = client, options, form
        self._pacer = Pacer(options.concurrency)
        self._gate = FlexGate(options.flex.patience_s) if options.flex else None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return whether flex had to be given up."""
        return self._gate.notes if self._gate else ()

    async def caption(self, request: CaptionRequest) -> CaptionAnswer:
        """Ask until there is an answer or the tries are used up."""
        spent = Usage()
        last: RetryableError | None = None
        attempt, begun = 0, time.monotonic()
        while attempt < self._options.max_attempts:
            started = time.monotonic()
            try:
                async with self._pacer.slot():
                    started = time.monotonic()
                    answer = await self._ask(request)
            except RetryableError as error:
                if isinstance(error, FlexUnavailableError) and self._gate and self._gate.tier == FLEX:
                    spent = add_usage(spent, Usage(attempts=1))
                    self._pacer.pause(self._gate.note_refusal())
                    continue
                error.perhaps_billed += last.perhaps_billed if last else 0
                last = error
                spent = add_usage(spent, Usage(attempts=1, latency_s=round(time.monotonic() - started, 3)))
                await self._back_off(error, attempt)
                # To be told to wait is no failure, as long as it does not go on for ever.
                held_back = error.retry_after_s is not None and time.monotonic() - begun < _LONGEST_HELD_S
                attempt += not held_back
                continue
            own = answer.usage.model_copy(update={"attempts": 1, "latency_s": round(time.monotonic() - started, 3)})
            lost = last.perhaps_billed if last else 0
            return answer.model_copy(update={"usage": add_usage(spent, own), "perhaps_billed": lost})
        raise last or RetryableError("no request was allowed")

    def most_usd(self, request: CaptionRequest) -> float:
        """Return the most a request can cost, at the standard price: flex may have to be given up meanwhile."""
        return self._form.most_usd(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _back_off(self, error: RetryableError, attempt: int) -> None:
        """Wait before the next try; all requests wait where the server said how long."""
        if error.retry_after_s is not None:
            if error.retry_after_s > LONGEST_PAUSE_S:
                raise error
            self._pacer.refused(error.retry_after_s)
        elif attempt + 1 < self._options.max_attempts:
            wait_s = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2**attempt)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads tries, guards nothing

    async def _ask(self, request: CaptionRequest) -> CaptionAnswer:
        """Send one request."""
        tier = self._tier_arguments()
        try:
            if self._options.style == "chat":
                completions = self._client.chat.completions.with_raw_response
                raw = await completions.create(**self._form.arguments(request), **tier)
                self._pacer.note(raw.headers)
                answer = self._form.read(request, raw.parse())
            else:
                responses = self._client.responses.with_raw_response
                reply = await responses.create(**self._form.arguments(request), **tier)
                self._pacer.note(reply.headers)
                answer = self._form.read(request, reply.parse())
            if self._gate and tier["service_tier"] == FLEX:
                self._gate.note_success()
            return answer
        except ImageAnalyzerError:
            raise
        except Exception as error:
            raise map_error(error, self.model) from None

    def _tier_arguments(self) -> dict[str, Any]:
        if not (self._gate and self._options.flex):
            return {}
        patient = {"timeout": self._options.flex.timeout_s} if self._gate.tier == FLEX else {}
        return {"service_tier": self._gate.tier, **patient}
