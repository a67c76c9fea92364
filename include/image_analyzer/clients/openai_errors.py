"""The openai client's errors, named by what to do about them. No message holds a key or a picture."""

from __future__ import annotations

import json
from typing import Any

from image_analyzer.clients.flex import FlexUnavailableError, is_no_room
from image_analyzer.clients.pacing import parse_retry_after
from image_analyzer.errors import FatalError, ItemError, RetryableError
from image_analyzer.records import ErrorCode


def map_error(error: Exception, model: str) -> Exception:
    """Return our error for one of the openai client's."""
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
        return RetryableError("OpenAI: no answer within OPENAI_TIMEOUT_S", perhaps_billed=1)
    if isinstance(error, openai.APIConnectionError):
        return RetryableError("OpenAI: the connection failed", perhaps_billed=1)
    if isinstance(error, openai.InternalServerError | openai.ConflictError):
        retry_after_s = parse_retry_after(error.response.headers)
        return RetryableError(f"OpenAI: server error {error.status_code}", retry_after_s=retry_after_s)
    if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
        return _map_bad_request(error)
    if isinstance(error, openai.APIStatusError):
        return RetryableError(f"OpenAI: unexpected status {error.status_code}")
    if isinstance(error, json.JSONDecodeError | openai.APIError):
        return RetryableError("OpenAI: the answer is not what the API promises", perhaps_billed=1)
    # A body of another shape makes the client or our reading of it fail in many ways.
    return RetryableError(f"OpenAI: the answer cannot be read ({type(error).__name__})", perhaps_billed=1)


def _map_bad_request(error: Any) -> Exception:
    """Tell a picture that is rejected from a request that is wrong for every picture."""
    code = str(error.code or "")
    if rejection := map_rejection({"code": code}):
        return rejection
    if error.param == "service_tier":
        return FatalError("OpenAI does not offer flex for this model: set CAPTION_MODE=online, or another OPENAI_MODEL")
    return FatalError(
        f"OpenAI rejects the request ({code or error.status_code}, parameter {error.param}): check OPENAI_MODEL, "
        "OPENAI_IMAGE_DETAIL and OPENAI_REASONING_EFFORT"
    )


def map_rejection(error: dict[str, Any]) -> ItemError | None:
    """Return that a picture is rejected, if that is what an error of the API says."""
    code = str(error.get("code") or "")
    if any(word in code for word in ("image", "content", "policy", "moderation")):
        return ItemError(ErrorCode.REQUEST_REJECTED, f"OpenAI rejects the picture: {code}")
    return None
