"""The OpenAI test server's answers: the wire formats, the image tokens, the captions, the faults."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import json
import math
import re
import time
from typing import Any

from PIL import Image
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from image_analyzer.describer import describe, look_at
from image_analyzer.languages import display_name, supported_languages
from image_analyzer.local.openai_control import API_KEY, control
from image_analyzer.prices import image_tokens

# Fault -> status, code and message of the answer.
_REFUSALS = {
    "no_room": (429, "resource_unavailable", "Resource Unavailable"),
    "insufficient_quota": (429, "insufficient_quota", "You exceeded your current quota."),
    "server_error": (500, "server_error", "The server had an error."),
    "model_gone": (404, "model_not_found", "The model {model} has been deprecated."),
    "content_policy": (400, "image_content_policy_violation", "The image violates the policy."),
}
_CHARACTERS_PER_TOKEN = 4
# Nothing was worked out, so nothing is billed; a body that is not what the API promises cannot name a bill.
_FREE = ("junk_body", "junk_shape")


def _read_call(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a request asks, whichever of the two formats it is in."""
    messages = body.get("input") or body.get("messages") or []
    texts, images = [str(body.get("instructions") or "")], []
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if "image_url" in part:
                image = part["image_url"]
                images.append(image["url"] if isinstance(image, dict) else image)
            else:
                texts.append(part["text"])
    text = "\n".join(texts)
    schema = _schema(body)
    captions = schema.get("properties", {}).get("captions", {}).get("properties", {})
    named = [code for code in supported_languages() if f" in {display_name(code)}" in text]
    language = next(iter(captions), None) or max(named, key=lambda code: len(display_name(code)), default="en")
    return {
        "model": body["model"],
        "text": text,
        "language": language,
        "languages": list(captions),
        "images": images,
        "store": body.get("store"),
        "tier": body.get("service_tier", "default"),
    }


def _schema(body: dict[str, Any]) -> dict[str, Any]:
    form = body.get("text", {}).get("format") or body.get("response_format", {}).get("json_schema") or {}
    schema: dict[str, Any] = form.get("schema") or {}
    return schema


def _decode(data_url: str) -> bytes:
    _, _, content = data_url.partition("base64,")
    return base64.b64decode(content, validate=True)


def _caption(jpeg: bytes, language: str, fault: str | None) -> str:
    sentence = describe(look_at(jpeg), language, None, {})
    if fault == "two_sentences":
        return f"{sentence} {sentence}"
    if fault == "too_long":
        return " ".join([sentence.rstrip(".")] * 6) + "."
    if fault == "wrong_language":
        return describe(look_at(jpeg), "fr" if language == "en" else "en", None, {})
    return sentence


def _unbidden(text: str) -> str | None:
    """Return how this model spoils what it is not asked to keep to: it does what it is told, and no more."""
    if not re.search(r"\bone sentence\b", text):
        return "two_sentences"
    return None if re.search(r"\bat most \d+ words\b", text) else "too_long"


def _output(jpeg: bytes, languages: list[str], fault: dict[str, Any], asked: str) -> str:
    """Return the JSON that the schema asks for. An order for one `language` of several spoils that one only.

    Args:
        asked: The request's text.
    """
    kind = fault.get("kind", _unbidden(asked))
    if kind == "say_raw":
        return str(fault["text"])
    decorative = kind == "decorative"

    def caption(language: str) -> str:
        if fault.get("language") not in (None, language):
            return _caption(jpeg, language, None)
        return "" if decorative else str(fault["text"]) if kind == "say" else _caption(jpeg, language, kind)

    captions = {language: caption(language) for language in languages}
    answer = {
        **({"captions": captions} if len(languages) > 1 else {"caption": captions[languages[0]]}),
        "is_decorative": decorative,
        "decorative_reason": "a plain divider" if decorative else "",
        "contains_person": False,
        "visible_text": False,
        "uncertain": False,
    }
    return json.dumps(answer, ensure_ascii=kind == "say")


class CutResponse(JSONResponse):
    """A response whose connection breaks in the middle of its body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send half of it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body)[: len(self.body) // 2], "more_body": True})
        raise ConnectionResetError("ordered by a test")


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error as the API words it."""
    content = {"message": message, "type": code, "code": code, "param": None}
    return JSONResponse({"error": content}, status, headers=headers)


async def answer(body: dict[str, Any], style: str, authorization: str, *, by_file: bool = False) -> Response:
    """Answer one request.

    Args:
        style: `responses` or `chat`.
        authorization: The header.
        by_file: It came in a batch file: no limits, no pause.
    """
    call = _read_call(body)
    if by_file:
        call["tier"] = "batch"
    jpeg = b""
    if call["images"]:
        try:
            jpeg = _decode(call["images"][0])
            with Image.open(io.BytesIO(jpeg)) as image:
                size = image.size
        except (binascii.Error, OSError):
            return error(400, "image_parse_error", "the image cannot be read")
    call |= {"image_sha256": hashlib.sha256(jpeg).hexdigest() if jpeg else None, "image_bytes": len(jpeg)}
    fault = control.next_fault(call) or {}
    kind = fault.get("kind")
    logged = {name: value for name, value in call.items() if name != "images"}
    arrived = {**logged, "fault": kind, "at": time.time(), "billed": False}
    control.keep(arrived)
    if authorization != f"Bearer {API_KEY}" or kind == "invalid_key":
        return error(401, "invalid_api_key", "Incorrect API key provided.")
    if not by_file:
        tokens = len(call["text"]) / _CHARACTERS_PER_TOKEN + (image_tokens(*size) if jpeg else 0)
        if lacks_s := control.take({"requests": 1.0, "tokens": tokens}):
            arrived["fault"] = "limited"
            retry_after = {"retry-after-ms": str(math.ceil(lacks_s * 1000))}
            return error(429, "rate_limit_exceeded", "Rate limit reached.", retry_after)
        await asyncio.sleep(control.latency_s)
    refused = await _fault_response(kind, fault, call["model"])
    if refused is not None:
        return refused
    arrived["billed"] = kind not in _FREE
    seen = jpeg and kind != "image_lost"
    tokens_in = len(call["text"]) // _CHARACTERS_PER_TOKEN + (image_tokens(*size) if seen else 0)
    text = _output(jpeg, call["languages"] or [call["language"]], fault, call["text"]) if jpeg else "{}"
    if kind == "truncated_json":
        text = text[: len(text) // 2]
    usage = (tokens_in, max(1, len(text) // _CHARACTERS_PER_TOKEN))
    make = _responses_body if style == "responses" else _chat_body
    replied = {**make(call["model"], text, usage, kind), "service_tier": call["tier"]}
    kind_of_reply = CutResponse if kind == "drop_midway" else JSONResponse
    return kind_of_reply(replied, headers=control.limit_headers())


async def _fault_response(kind: str | None, fault: dict[str, Any], model: str) -> Response | None:
    """Return the answer of a fault that ends a request, None for one that only spoils the text."""
    if kind == "rate_limit":
        headers = {"retry-after": str(fault.get("retry_after", 0.1)), "x-ratelimit-remaining-requests": "0"}
        return error(429, "rate_limit_exceeded", "Rate limit reached.", headers)
    if kind in _REFUSALS:
        status, code, message = _REFUSALS[kind]
        return error(int(fault.get("status", status)), code, message.format(model=model))
    if kind == "timeout":
        await asyncio.sleep(float(fault.get("seconds", 5)))
    if kind == "junk_body":
        return Response("<html>gateway</html>", media_type="application/json")
    if kind == "junk_shape":
        return JSONResponse({"object": "something else", "choices": [], "output": None, "usage": None})
    if kind == "drop_connection":
        return CutResponse({})
    return None


def _responses_body(model: str, text: str, usage: tuple[int, int], kind: str | None) -> dict[str, Any]:
    refusal = {"type": "refusal", "refusal": "I can't help with describing this picture."}
    part = refusal if kind == "refusal" else {"type": "output_text", "text": text, "annotations": []}
    cut = kind == "truncated_json"
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp_1", "object": "response", "created_at": time.time(), "model": model,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None, "instructions": None, "metadata": {}, "output": [message], "parallel_tool_calls": False,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "usage": {"input_tokens": usage[0], "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                  "output_tokens": usage[1], "output_tokens_details": {"reasoning_tokens": 0},
                  "total_tokens": sum(usage)},
    }  # fmt: skip


def _chat_body(model: str, text: str, usage: tuple[int, int], kind: str | None) -> dict[str, Any]:
    refused = kind == "refusal"
    message = {"role": "assistant", "content": None if refused else text, "refusal": "I can't." if refused else None}
    return {
        "id": "chatcmpl_1", "object": "chat.completion", "created": int(time.time()), "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "length" if kind == "truncated_json" else "stop"}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }  # fmt: skip
