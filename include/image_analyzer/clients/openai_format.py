"""How a caption is asked for and read in OpenAI's two wire formats: `/v1/responses` and `/v1/chat/completions`."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

from PIL import Image

from image_analyzer.captions import CaptionAnswer, read_answer
from image_analyzer.errors import ConfigurationError, ItemError, RetryableError
from image_analyzer.prices import Price, image_tokens, is_unseen, most_text_tokens
from image_analyzer.prompts import CaptionRequest, instructions, make_schema, question, request_texts
from image_analyzer.records import ErrorCode, Usage

BATCH_TIER = "batch"
_LOW_DETAIL_PX = 512


class FormatOptions(NamedTuple):
    """What a request says beside the question; see the settings of the same names."""

    model: str
    detail: str
    style: str
    reasoning_effort: str
    max_output_tokens: int
    send_image: bool


class OpenAIFormat:
    """Writes requests and reads replies of one model.

    Args:
        price: Of the model.

    Raises:
        ConfigurationError: Images may not leave. Nothing can be worded by an object that cannot be made.
    """

    def __init__(self, options: FormatOptions, price: Price) -> None:
        if not options.send_image:
            raise ConfigurationError("OPENAI_SEND_IMAGE=false: nothing that words requests with images is built")
        self._options, self._price = options, price

    @property
    def endpoint(self) -> str:
        """Return the path of the requests."""
        return "/v1/chat/completions" if self._options.style == "chat" else "/v1/responses"

    def arguments(self, request: CaptionRequest) -> dict[str, Any]:
        """Return the body of a request."""
        return self._chat_arguments(request) if self._options.style == "chat" else self._responses_arguments(request)

    def parse(self, body: dict[str, Any]) -> Any:
        """Return a body as the client's object, read as leniently as the client reads it."""
        if self._options.style == "chat":
            from openai.types.chat import ChatCompletion

            return ChatCompletion.construct(**body)
        from openai.types.responses import Response

        return Response.construct(**body)

    def read(self, request: CaptionRequest, reply: Any, tier: str | None = None) -> CaptionAnswer:
        """Return the answer in a reply.

        Args:
            tier: Who served it; None for what the reply says.

        Raises:
            ItemError: The server failed on this picture.
            RetryableError: The server failed.
        """
        usage = self._usage(reply, tier or getattr(reply, "service_tier", None))
        read = self._read_chat if self._options.style == "chat" else self._read_response
        answer = read(request, reply, usage)
        unseen = is_unseen(usage.input_tokens, request_texts(request), *self._seen_size(request))
        return answer.model_copy(update={"unseen": True}) if unseen else answer

    def most_usd(self, request: CaptionRequest, tier: str | None = None) -> float:
        """Return the cost at the most text tokens, the picture's tokens and the longest answer.

        Args:
            tier: None for the standard price.
        """
        tokens = most_text_tokens(request_texts(request)) + image_tokens(*self._seen_size(request))
        return self._price.at_tier(tier).cost_usd(tokens, self._most_output(request))

    def _seen_size(self, request: CaptionRequest) -> tuple[int, int]:
        """Return width and height in pixels at which the model sees the thumbnail."""
        with Image.open(io.BytesIO(request.thumbnail)) as image:
            width_px, height_px = image.size
        if self._options.detail == "low":  # seen at 512 px
            scale = min(1.0, _LOW_DETAIL_PX / max(width_px, height_px))
            width_px, height_px = round(width_px * scale), round(height_px * scale)
        return width_px, height_px

    def _responses_arguments(self, request: CaptionRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self._options.model,
            "store": False,
            "max_output_tokens": self._most_output(request),
            "instructions": instructions(request),
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": question(request)},
                        {
                            "type": "input_image",
                            "image_url": _data_url(request.thumbnail),
                            "detail": self._options.detail,
                        },
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
        image = {"url": _data_url(request.thumbnail), "detail": self._options.detail}
        schema = {"name": "caption", "strict": True, "schema": make_schema(request)}
        return {
            "model": self._options.model,
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

    def _read_response(self, request: CaptionRequest, response: Any, usage: Usage) -> CaptionAnswer:
        if response.status == "failed":  # comes with HTTP 200
            code = getattr(response.error, "code", "") or ""
            message = f"{self._options.model} failed: {code} {getattr(response.error, 'message', '')}"
            if code in ("server_error", "rate_limit_exceeded"):
                raise RetryableError(message)
            raise ItemError(ErrorCode.REQUEST_REJECTED, message)
        for item in response.output:
            for part in getattr(item, "content", None) or []:
                if part.type == "refusal":
                    return CaptionAnswer(refusal=part.refusal, usage=usage)
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return _read_output(request, response.output_text, reason, usage)

    def _read_chat(self, request: CaptionRequest, completion: Any, usage: Usage) -> CaptionAnswer:
        choice = completion.choices[0]
        if choice.message.refusal or choice.finish_reason == "content_filter":
            return CaptionAnswer(refusal=choice.message.refusal or "stopped by the content filter", usage=usage)
        reason = "max_output_tokens" if choice.finish_reason == "length" else None
        return _read_output(request, choice.message.content or "", reason, usage)

    def _usage(self, reply: Any, tier: str | None) -> Usage:
        """Return tokens and cost at the tier that served; None where the server does not report them, never 0."""
        if reply.usage is None:
            return Usage()
        chat = self._options.style == "chat"
        tokens_in = reply.usage.prompt_tokens if chat else reply.usage.input_tokens
        tokens_out = reply.usage.completion_tokens if chat else reply.usage.output_tokens
        cost_usd = self._price.at_tier(tier).cost_usd(tokens_in, tokens_out)
        return Usage(input_tokens=tokens_in, output_tokens=tokens_out, cost_usd=cost_usd)


def _read_output(request: CaptionRequest, output: str, incomplete: str | None, usage: Usage) -> CaptionAnswer:
    (text, *others), flags = read_answer(output, (request.key.language, *request.also))
    also = dict(zip(request.also, others, strict=True))
    return CaptionAnswer(text=text, also=also, flags=flags, incomplete=incomplete, usage=usage)


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
