"""How clients map errors and hold requests back."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from typing import Any

import httpx2
import openai
import pytest

from image_analyzer.clients.openai_errors import map_error
from image_analyzer.clients.openai_format import FormatOptions, OpenAIFormat
from image_analyzer.clients.pacing import Pacer, parse_duration, parse_retry_after
from image_analyzer.clients.snowflake_session import connect_arguments
from image_analyzer.errors import ConfigurationError, FatalError, ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.guardrails import Code
from image_analyzer.languages import supported_languages
from image_analyzer.prices import Price, estimate_usd, find_price, image_tokens, is_unseen
from image_analyzer.prompts import CaptionRequest, make_schema, request_texts
from image_analyzer.records import ContentKey

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/responses")


def _status_error(
    kind: type[openai.APIStatusError], status: int, code: str = "", **headers: str
) -> openai.APIStatusError:
    response = httpx2.Response(status, request=REQUEST, headers=headers)
    body = {"code": code, "param": None}
    takes_message = "message" in inspect.signature(kind).parameters
    return kind("secret-prompt", response=response, body=body) if takes_message else kind(response=response, body=body)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_status_error(openai.AuthenticationError, 401), FatalError),
        (_status_error(openai.PermissionDeniedError, 403), FatalError),
        (_status_error(openai.NotFoundError, 404, "model_not_found"), FatalError),
        (_status_error(openai.RateLimitError, 429, "insufficient_quota"), FatalError),
        (_status_error(openai.RateLimitError, 429, "rate_limit_exceeded"), RetryableError),
        (_status_error(openai.InternalServerError, 500), RetryableError),
        (_status_error(openai.ConflictError, 409), RetryableError),
        (_status_error(openai.BadRequestError, 400, "image_content_policy_violation"), ItemError),
        (_status_error(openai.BadRequestError, 400, "unsupported_parameter"), FatalError),
        (openai.APITimeoutError(REQUEST), RetryableError),
        (openai.APIConnectionError(request=REQUEST), RetryableError),
        (json.JSONDecodeError("x", "y", 0), RetryableError),
    ],
)
def test_each_error_has_its_kind(error: Exception, expected: type[ImageAnalyzerError]) -> None:
    """What to do about an error is told by its class, and its message holds nothing that was sent."""
    mapped = map_error(error, "some-model")

    assert expected is type(mapped)
    assert "secret-prompt" not in str(mapped)


def test_every_error_of_the_client_is_mapped() -> None:
    """No HTTP error class of openai gets through as itself; a new one fails here."""
    classes = [c for _, c in inspect.getmembers(openai, inspect.isclass) if issubclass(c, openai.APIStatusError)]

    assert len(classes) >= 8
    for kind in classes:
        assert isinstance(map_error(_status_error(kind, 418), "m"), ImageAnalyzerError), kind


def test_the_pause_that_was_asked_for_travels_along() -> None:
    """`Retry-After` reaches whoever schedules the next try."""
    error = map_error(_status_error(openai.RateLimitError, 429, "rate_limit_exceeded", **{"retry-after": "200"}), "m")

    assert isinstance(error, RetryableError)
    assert 200 == error.retry_after_s


def test_no_captioner_is_built_where_images_may_not_leave() -> None:
    """OPENAI_SEND_IMAGE=false is enforced where the client is made."""
    options = FormatOptions("m", "high", "responses", "none", 300, send_image=False)

    with pytest.raises(ConfigurationError, match="OPENAI_SEND_IMAGE"):
        OpenAIFormat(options, Price(input=0, output=0))


@pytest.mark.parametrize(("text", "seconds"), [("6m0s", 360), ("1.5s", 1.5), ("12ms", 0.012), ("", 0), ("soon", 0)])
def test_durations_are_read(text: str, seconds: float) -> None:
    """OpenAI's way to write a duration is understood; anything else is no pause."""
    assert pytest.approx(seconds) == parse_duration(text)


def test_retry_after_is_read() -> None:
    """Milliseconds win over seconds; a date or nothing is None."""
    assert 0.25 == parse_retry_after({"retry-after-ms": "250", "retry-after": "9"})
    assert 9 == parse_retry_after({"retry-after": "9"})
    assert parse_retry_after({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None


def test_a_pause_holds_all_requests_back() -> None:
    """While the server asks to wait nobody begins, and no more than the limit are under way."""

    async def run() -> tuple[float, int]:
        pacer, under_way, most = Pacer(2), 0, 0
        started = time.monotonic()
        pacer.note({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "150ms"})

        async def one() -> None:
            nonlocal under_way, most
            async with pacer.slot():
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.01)
                under_way -= 1

        await asyncio.gather(*(one() for _ in range(5)))
        return time.monotonic() - started, most

    waited_s, most = asyncio.run(run())

    assert waited_s >= 0.15
    assert 2 == most


def test_an_unknown_model_asks_for_its_price() -> None:
    """No cost is invented: the settings to fill are named."""
    with pytest.raises(ConfigurationError, match="OPENAI_INPUT_USD_PER_MTOK"):
        find_price("somebodys-model")
    assert 0 == find_price("somebodys-model", 0, 0).cost_usd(5, 5)


def test_costs_are_computed_from_tokens() -> None:
    """A million tokens in and out cost what the table says; a 768 x 512 picture is 461 tokens."""
    price = Price(input=0.10, output=0.50)

    assert 0.6 == price.cost_usd(1_000_000, 1_000_000)
    assert 461 == image_tokens(768, 512)
    assert 10 * estimate_usd(price, 1000, 768) == pytest.approx(estimate_usd(price, 10_000, 768))


@pytest.mark.parametrize(
    "given",
    [{"password": "p"}, {"private_key_file": "k.pem"}, {"authenticator": "oauth", "token": "t"}],
)
def test_snowflake_signs_in_by_password_key_pair_or_oauth(given: dict[str, Any]) -> None:
    """Each way gives the connector its argument, and no empty one."""
    arguments = connect_arguments(account="a", user="u", **given)

    assert set(given) <= set(arguments)
    assert "host" not in arguments
    assert all(value != "" for value in arguments.values())


def test_snowflake_without_sign_in_says_so() -> None:
    """No half-set sign-in reaches the server."""
    with pytest.raises(ConfigurationError, match="SNOWFLAKE_PASSWORD"):
        connect_arguments(account="a", user="u")


def test_the_schema_is_strict() -> None:
    """OpenAI's strict mode wants every property required and no others, for one language and for several."""
    key = ContentKey(sha256="aa", language="en", prompt_version="2", model="m", detail="high")
    one, three = (make_schema(CaptionRequest(key=key, thumbnail=b"", also=also)) for also in ((), ("fr", "pt-BR")))
    captions = three["properties"]["captions"]

    assert ["en", "fr", "pt-BR"] == captions["required"] == list(captions["properties"])
    for schema in (one, three, captions):
        assert schema["required"] == list(schema["properties"])
        assert schema["additionalProperties"] is False


@pytest.mark.parametrize("language", supported_languages())
def test_the_bill_tells_whether_a_picture_arrived(language: str) -> None:
    """Text alone stays below the bound in every language, text and picture above it; a small picture proves nothing."""
    key = ContentKey(sha256="aa", language=language, prompt_version="2", model="m", detail="high")
    texts = request_texts(
        CaptionRequest(key=key, thumbnail=b"", hint="tabby", previous="A. B.", complaints=(Code.AGE,))
    )
    length = sum(map(len, texts))

    assert is_unseen(length // 4, texts, 768, 768)
    assert not is_unseen(length // 4 + image_tokens(768, 768), texts, 768, 768)
    assert not is_unseen(None, texts, 768, 768)
    assert not is_unseen(length // 4, texts, 64, 64)
