"""An OpenAI-compatible test server: `python -m image_analyzer.local.openai_server PORT`.

It speaks the wire format of `/v1/responses` and `/v1/chat/completions`, counts image tokens as the API does, and
captions what it really sees by the offline describer, so that different pictures get different captions. Faults are
ordered over `/control/faults`; `/control/calls` tells what arrived. It stands in for OpenAI: it is no vision model.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import json
import math
import sys
import time
from typing import Any

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from image_analyzer.describer import describe, look_at
from image_analyzer.languages import display_name, supported_languages
from image_analyzer.prices import image_tokens

API_KEY = "sk-local-test-server"
FAULTS = (
    "rate_limit", "insufficient_quota", "server_error", "timeout", "drop_connection", "junk_body", "junk_shape", "invalid_key",
    "model_gone", "content_policy", "refusal", "truncated_json", "two_sentences", "too_long", "wrong_language",
    "decorative", "say", "say_raw", "image_lost", "no_room",
)  # fmt: skip
# Fault -> status, code and message of the answer.
_REFUSALS = {
    "no_room": (429, "resource_unavailable", "Resource Unavailable"),
    "insufficient_quota": (429, "insufficient_quota", "You exceeded your current quota."),
    "server_error": (500, "server_error", "The server had an error."),
    "model_gone": (404, "model_not_found", "The model {model} has been deprecated."),
    "content_policy": (400, "image_content_policy_violation", "The image violates the policy."),
}
_CHARACTERS_PER_TOKEN = 4
_KEPT_CALLS = 20_000


class Bucket:
    """A limit per minute, as OpenAI keeps it: refilled all the time, full after a minute of rest. The first request starts it."""

    def __init__(self, per_minute: int, left: float) -> None:
        self.size, self._left = per_minute, left
        self._at: float | None = None

    def lacks_s(self, amount: float) -> float:
        """Return the seconds until so much is there."""
        now = time.monotonic()
        self._left = min(self.size, self._left + (now - (self._at or now)) * self.size / 60)
        self._at = now
        return max(0.0, (amount - self._left) * 60 / self.size)

    def take(self, amount: float) -> None:
        """Take what is there."""
        self._left -= amount

    def headers(self, kind: str) -> dict[str, str]:
        """Return the headers of this limit."""
        return {
            f"x-ratelimit-limit-{kind}": str(self.size),
            f"x-ratelimit-remaining-{kind}": str(max(0, int(self._left))),
            f"x-ratelimit-reset-{kind}": f"{(self.size - self._left) * 60_000 / self.size:.0f}ms",
        }


class Control:
    """What the tests ordered and what arrived.

    Attributes:
        faults: Orders `{"kind", "times", ...}`, served first come first; `language`, `image_sha256` or `tier` narrow one down.
            `say` answers with the caption in `text`, `say_raw` with `text` as the whole output.
        calls: One dict per request to the API.
        latency_s: Pause before each answer.
        limits: By kind, `requests` and `tokens`; empty for none.
    """

    def __init__(self) -> None:
        self.faults: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.latency_s = 0.0
        self.limits: dict[str, Bucket] = {}
        self.in_flight = 0
        self.most_in_flight = 0

    def next_fault(self, call: dict[str, Any]) -> dict[str, Any] | None:
        """Take one order that fits this call."""
        for order in self.faults:
            language = order.get("language") in (None, call["language"], *call["languages"])
            fits = language and order.get("image_sha256") in (None, call["image_sha256"])
            if order["times"] > 0 and fits and order.get("tier") in (None, call["tier"]):
                order["times"] -= 1
                return order
        return None


control = Control()


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


def _output(jpeg: bytes, languages: list[str], fault: dict[str, Any]) -> str:
    """Return the JSON that the schema asks for. An order for one `language` of several spoils that one only."""
    kind = fault.get("kind")
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


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    error = {"message": message, "type": code, "code": code, "param": None}
    return JSONResponse({"error": error}, status, headers=headers)


async def _answer(request: Request, style: str) -> Response:
    body = await request.json()
    call = _read_call(body)
    jpeg = b""
    if call["images"]:
        try:
            jpeg = _decode(call["images"][0])
            with Image.open(io.BytesIO(jpeg)) as image:
                size = image.size
        except (binascii.Error, OSError):
            return _error(400, "image_parse_error", "the image cannot be read")
    call |= {"image_sha256": hashlib.sha256(jpeg).hexdigest() if jpeg else None, "image_bytes": len(jpeg)}
    fault = control.next_fault(call) or {}
    kind = fault.get("kind")
    logged = {name: value for name, value in call.items() if name != "images"}
    control.calls.append({**logged, "fault": kind, "at": time.time()})
    del control.calls[:-_KEPT_CALLS]
    if request.headers.get("authorization") != f"Bearer {API_KEY}" or kind == "invalid_key":
        return _error(401, "invalid_api_key", "Incorrect API key provided.")
    wanted = {
        "requests": 1.0,
        "tokens": len(call["text"]) / _CHARACTERS_PER_TOKEN + (image_tokens(*size) if jpeg else 0),
    }
    lacks_s = max((bucket.lacks_s(wanted[kind]) for kind, bucket in control.limits.items()), default=0.0)
    if lacks_s:
        control.calls[-1]["fault"] = "limited"
        return _error(
            429, "rate_limit_exceeded", "Rate limit reached.", {"retry-after-ms": str(math.ceil(lacks_s * 1000))}
        )
    for limited, bucket in control.limits.items():
        bucket.take(wanted[limited])
    if control.latency_s:
        await asyncio.sleep(control.latency_s)
    refused = await _fault_response(kind, fault, call["model"])
    if refused is not None:
        return refused
    seen = jpeg and kind != "image_lost"
    tokens_in = len(call["text"]) // _CHARACTERS_PER_TOKEN + (image_tokens(*size) if seen else 0)
    text = _output(jpeg, call["languages"] or [call["language"]], fault) if jpeg else "{}"
    if kind == "truncated_json":
        text = text[: len(text) // 2]
    usage = (tokens_in, max(1, len(text) // _CHARACTERS_PER_TOKEN))
    make = _responses_body if style == "responses" else _chat_body
    headers: dict[str, str] = {}
    for limited, bucket in control.limits.items():
        headers |= bucket.headers(limited)
    answer = {**make(call["model"], text, usage, kind), "service_tier": call["tier"]}
    return JSONResponse(answer, headers=headers)


async def _fault_response(kind: str | None, fault: dict[str, Any], model: str) -> Response | None:
    """Return the answer of a fault that ends a request, None for one that only spoils the text."""
    if kind == "rate_limit":
        headers = {"retry-after": str(fault.get("retry_after", 0.1)), "x-ratelimit-remaining-requests": "0"}
        return _error(429, "rate_limit_exceeded", "Rate limit reached.", headers)
    if kind in _REFUSALS:
        status, code, message = _REFUSALS[kind]
        return _error(int(fault.get("status", status)), code, message.format(model=model))
    if kind == "timeout":
        await asyncio.sleep(float(fault.get("seconds", 5)))
    if kind == "junk_body":
        return Response("<html>gateway</html>", media_type="application/json")
    if kind == "junk_shape":
        return JSONResponse({"object": "something else", "choices": [], "output": None, "usage": None})
    if kind == "drop_connection":
        raise ConnectionResetError("ordered by a test")
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


async def _post_responses(request: Request) -> Response:
    return await _counted(request, "responses")


async def _post_chat(request: Request) -> Response:
    return await _counted(request, "chat")


async def _counted(request: Request, style: str) -> Response:
    control.in_flight += 1
    control.most_in_flight = max(control.most_in_flight, control.in_flight)
    try:
        return await _answer(request, style)
    finally:
        control.in_flight -= 1


async def _show_model(request: Request) -> Response:
    if request.headers.get("authorization") != f"Bearer {API_KEY}":
        return _error(401, "invalid_api_key", "Incorrect API key provided.")
    return JSONResponse({"id": request.path_params["model"], "object": "model", "created": 0, "owned_by": "local"})


async def _order_faults(request: Request) -> Response:
    orders = await request.json()
    unknown = [order["kind"] for order in orders if order["kind"] not in FAULTS]
    if unknown:
        return JSONResponse({"error": f"unknown faults {unknown}; choose from {FAULTS}"}, 400)
    control.faults.extend({"times": 1, **order} for order in orders)
    return JSONResponse({"waiting": len(control.faults)})


async def _show_calls(_: Request) -> Response:
    return JSONResponse({"calls": control.calls, "most_in_flight": control.most_in_flight})


async def _reset(request: Request) -> Response:
    """Forget everything; set `latency_s`, and `limits`: by kind how much a minute and how much of that is left now."""
    control.__init__()  # type: ignore[misc]
    wanted = await request.json()
    control.latency_s = float(wanted.get("latency_s", 0))
    control.limits = {kind: Bucket(*limit) for kind, limit in wanted.get("limits", {}).items()}
    return JSONResponse({})


app = Starlette(
    routes=[
        Route("/v1/responses", _post_responses, methods=["POST"]),
        Route("/v1/chat/completions", _post_chat, methods=["POST"]),
        Route("/v1/models/{model}", _show_model),
        Route("/control/faults", _order_faults, methods=["POST"]),
        Route("/control/calls", _show_calls),
        Route("/control/reset", _reset, methods=["POST"]),
    ]
)


def main() -> None:
    """Serve until stopped."""
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
