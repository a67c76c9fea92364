"""Captioner over the openai client, and its errors named by what to do about them. This is the one layer that retries."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from image_analyzer.captions import CaptionAnswer, add_usage, read_answer
from image_analyzer.clients.flex import FLEX, FlexGate, FlexUnavailableError, is_no_room
from image_analyzer.clients.pacing import Pacer, parse_retry_after
from image_analyzer.errors import ConfigurationError, FatalError, ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.prices import Price, image_tokens, is_unseen, most_text_tokens
from image_analyzer.prompts import CaptionRequest, instructions, make_schema, question, request_texts
from image_analyzer.records import ErrorCode, Origin, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# A server that asks for more than this is asked again by a later try of the task, which holds no slot meanwhile.
LONGEST_PAUSE_S = 120.0
# How long 429 after 429 is waited out before it counts as a failed try.
_LONGEST_HELD_S = 600.0
_LOW_DETAIL_PX = 512
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
    reasoning_effort: str
    max_output_tokens: int
    max_attempts: int
    concurrency: int
    send_image: bool
    proven: bool
    flex: FlexOptions | None = None


class OpenAICaptioner:
    """Asks a vision model.

    Args:
        client: With `max_retries=0`: retrying is done here, where every try is counted.
        price: Of the model.

    Raises:
        ConfigurationError: Images may not leave. Nothing can be sent through an object that cannot be made.
    """

    origin = Origin.MODEL
    paid = True

    def __init__(self, client: AsyncOpenAI, options: OpenAIOptions, price: Price) -> None:
        if not options.send_image:
            raise ConfigurationError("OPENAI_SEND_IMAGE=false: no captioner that sends images is built")
        self.model, self.detail, self.proven = options.model, options.detail, options.proven
        self._client, self._options, self._price = client, options, price
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
                error.perhaps_billed |= last is not None and last.perhaps_billed
                last = error
                spent = add_usage(spent, Usage(attempts=1, latency_s=round(time.monotonic() - started, 3)))
                await self._back_off(error, attempt)
                # To be told to wait is no failure, as long as it does not go on for ever.
                held_back = error.retry_after_s is not None and time.monotonic() - begun < _LONGEST_HELD_S
                attempt += not held_back
                continue
            if self._is_unseen(request, answer.usage.input_tokens):
                answer = answer.model_copy(update={"unseen": True})
            own = answer.usage.model_copy(update={"attempts": 1, "latency_s": round(time.monotonic() - started, 3)})
            return answer.model_copy(update={"usage": add_usage(spent, own)})
        raise last or RetryableError("no request was allowed")

    def most_usd(self, request: CaptionRequest) -> float:
        """Return the cost at the most text tokens, the picture's tokens and the longest answer, at the standard price.

        Flex may have to be given up between the question and the answer.
        """
        tokens = most_text_tokens(request_texts(request)) + image_tokens(*self._seen_size(request))
        return self._price.cost_usd(tokens, self._most_output(request))

    def _is_unseen(self, request: CaptionRequest, input_tokens: int | None) -> bool:
        return is_unseen(input_tokens, request_texts(request), *self._seen_size(request))

    def _seen_size(self, request: CaptionRequest) -> tuple[int, int]:
        """Return width and height in pixels at which the model sees the thumbnail."""
        with Image.open(io.BytesIO(request.thumbnail)) as image:
            width_px, height_px = image.size
        if self.detail == "low":  # seen at 512 px
            scale = min(1.0, _LOW_DETAIL_PX / max(width_px, height_px))
            width_px, height_px = round(width_px * scale), round(height_px * scale)
        return width_px, height_px

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
                raw = await completions.create(**self._chat_arguments(request), **tier)
                self._pacer.note(raw.headers)
                answer = self._read_chat(request, raw.parse())
            else:
                responses = self._client.responses.with_raw_response
                reply = await responses.create(**self._responses_arguments(request), **tier)
                self._pacer.note(reply.headers)
                answer = self._read_response(request, reply.parse())
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

    def _responses_arguments(self, request: CaptionRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self.model,
            "store": False,
            "max_output_tokens": self._most_output(request),
            "instructions": instructions(request),
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": question(request)},
                        {"type": "input_image", "image_url": _data_url(request.thumbnail), "detail": self.detail},
                    ],
                }
            ],
            "text": {
                "format": {"type": "json_schema", "name": "caption", "strict": True, "schema": make_schema(request)}
            },
        }
        if self._options.reasoning_effort != "-":
            arguments["reasoning"] = {"effort": self._options.reasoning_effort}
        return arguments

    def _chat_arguments(self, request: CaptionRequest) -> dict[str, Any]:
        """Return what llama.cpp, vLLM and Ollama understand: no `store`, no `reasoning`, the older `max_tokens`."""
        image = {"url": _data_url(request.thumbnail), "detail": self.detail}
        schema = {"name": "caption", "strict": True, "schema": make_schema(request)}
        return {
            "model": self.model,
            "max_tokens": self._most_output(request),
            "messages": [
                {"role": "system", "content": instructions(request)},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": question(request)}, {"type": "image_url", "image_url": image}],
                },
            ],
            "response_format": {"type": "json_schema", "json_schema": schema},
        }

    def _most_output(self, request: CaptionRequest) -> int:
        return self._options.max_output_tokens * (1 + len(request.also))

    def _read_response(self, request: CaptionRequest, response: Any) -> CaptionAnswer:
        usage = self._usage(response, "input_tokens", "output_tokens")
        if response.status == "failed":  # comes with HTTP 200
            code = getattr(response.error, "code", "") or ""
            message = f"{self.model} failed: {code} {getattr(response.error, 'message', '')}"
            if code in ("server_error", "rate_limit_exceeded"):
                raise RetryableError(message)
            raise ItemError(ErrorCode.REQUEST_REJECTED, message)
        for item in response.output:
            for part in getattr(item, "content", None) or []:
                if part.type == "refusal":
                    return CaptionAnswer(refusal=part.refusal, usage=usage)
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return _read_output(request, response.output_text, reason, usage)

    def _read_chat(self, request: CaptionRequest, completion: Any) -> CaptionAnswer:
        usage = self._usage(completion, "prompt_tokens", "completion_tokens")
        choice = completion.choices[0]
        if choice.message.refusal or choice.finish_reason == "content_filter":
            return CaptionAnswer(refusal=choice.message.refusal or "stopped by the content filter", usage=usage)
        reason = "max_output_tokens" if choice.finish_reason == "length" else None
        return _read_output(request, choice.message.content or "", reason, usage)

    def _usage(self, reply: Any, input_name: str, output_name: str) -> Usage:
        """Return tokens and cost at the tier that served; None where the server does not report them, never 0."""
        if reply.usage is None:
            return Usage()
        tokens_in, tokens_out = getattr(reply.usage, input_name), getattr(reply.usage, output_name)
        price = self._price.at_tier(getattr(reply, "service_tier", None))
        return Usage(input_tokens=tokens_in, output_tokens=tokens_out, cost_usd=price.cost_usd(tokens_in, tokens_out))


def _read_output(request: CaptionRequest, output: str, incomplete: str | None, usage: Usage) -> CaptionAnswer:
    (text, *others), flags = read_answer(output, (request.key.language, *request.also))
    also = dict(zip(request.also, others, strict=True))
    return CaptionAnswer(text=text, also=also, flags=flags, incomplete=incomplete, usage=usage)


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def map_error(error: Exception, model: str) -> Exception:
    """Return our error for one of the openai client's; no message holds a key or a picture."""
    import openai

    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return FatalError(f"OpenAI rejects the key ({error.status_code}): check OPENAI_API_KEY")
    if isinstance(error, openai.NotFoundError):
        return FatalError(f"OpenAI does not know the model {model!r} (retired?): set OPENAI_MODEL")
    if isinstance(error, openai.RateLimitError):
        if error.code == "insufficient_quota":
            return FatalError("OpenAI: the quota is used up; add credit or raise the limit, then run again")
        if is_no_room(error):
            return FlexUnavailableError("OpenAI: no room for flex now")
        return RetryableError("OpenAI: rate limit", retry_after_s=parse_retry_after(error.response.headers))
    if isinstance(error, openai.APITimeoutError):
        return RetryableError("OpenAI: no answer within OPENAI_TIMEOUT_S", perhaps_billed=True)
    if isinstance(error, openai.APIConnectionError):
        return RetryableError("OpenAI: the connection failed", perhaps_billed=True)
    if isinstance(error, openai.InternalServerError | openai.ConflictError):
        retry_after_s = parse_retry_after(error.response.headers)
        return RetryableError(f"OpenAI: server error {error.status_code}", retry_after_s=retry_after_s)
    if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        return _map_bad_request(error)
    if isinstance(error, openai.APIStatusError):
        return RetryableError(f"OpenAI: unexpected status {error.status_code}")
    if isinstance(error, json.JSONDecodeError | openai.APIError):
        return RetryableError("OpenAI: the answer is not what the API promises", perhaps_billed=True)
    # A body of another shape makes the client or our reading of it fail in many ways.
    return RetryableError(f"OpenAI: the answer cannot be read ({type(error).__name__})", perhaps_billed=True)


def _map_bad_request(error: Any) -> Exception:
    """Tell a picture that is rejected from a request that is wrong for every picture."""
    code = str(error.code or "")
    if "image" in code or "content" in code or "policy" in code or "moderation" in code:
        return ItemError(ErrorCode.REQUEST_REJECTED, f"OpenAI rejects the picture: {code}")
    if error.param == "service_tier":
        return FatalError("OpenAI does not offer flex for this model: set CAPTION_MODE=online, or another OPENAI_MODEL")
    return FatalError(
        f"OpenAI rejects the request ({code or error.status_code}, parameter {error.param}): check OPENAI_MODEL, "
        "OPENAI_IMAGE_DETAIL and OPENAI_REASONING_EFFORT"
    )
