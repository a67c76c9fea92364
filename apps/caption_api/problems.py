"""Errors as RFC 9457 problem documents: what the core raised, named by HTTP."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from caption_api.addresses import FORBIDDEN
from image_analyzer.errors import BudgetExceededError, ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.records import ErrorCode

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S = 30
_BUDGET_RETRY_AFTER_S = 3_600
_ITEM_STATUSES: dict[str, int] = {
    ErrorCode.OBJECT_DELETED: 404,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.STORE_UNAVAILABLE: 503,
    FORBIDDEN: 403,
}


def problem(
    status: int, detail: str, code: str = "", headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Return a problem document.

    Args:
        code: Our word for the reason; stable.
        more: Further members.
    """
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if code:
        document["code"] = code
    return JSONResponse({**document, **more}, status, headers, MEDIA_TYPE)


async def _on_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return problem(error.status_code, error.detail, headers=dict(error.headers or {}))


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    found = [{"where": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
    return problem(
        422, "; ".join(f"{one['where']}: {one['message']}" for one in found), "invalid_request", errors=found
    )


async def _on_ours(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ItemError):
        return problem(_ITEM_STATUSES.get(error.code, 422), str(error), error.code)
    if isinstance(error, BudgetExceededError):
        return problem(503, str(error), "budget_spent", {"retry-after": str(_BUDGET_RETRY_AFTER_S)})
    if isinstance(error, RetryableError):
        wait_s = max(1, round(error.retry_after_s or _RETRY_AFTER_S))
        return problem(503, str(error), "unavailable", {"retry-after": str(wait_s)})
    return problem(503, f"{error} A person has to mend this; trying again does not help.", "misconfigured")


def answer_with_problems(app: FastAPI) -> None:
    """Let every error of an app become a problem document."""
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(ImageAnalyzerError, _on_ours)
