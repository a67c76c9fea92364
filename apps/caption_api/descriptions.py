"""What the OpenAPI description says beyond the signatures."""

from __future__ import annotations

from typing import Any

from fastapi import Depends
from fastapi.security import HTTPBearer

from caption_api.models import AddressRequest, FormRequest, Problem
from caption_api.problems import MEDIA_TYPE

ABOUT = """One sentence of alternative text for a picture, checked by code, stored in Snowflake's `IMAGE_RESULTS`.

The same bytes in the same language are paid for once, whoever asks. Errors are problem documents (RFC 9457) with a stable `code`.
"""
_REASONS = {
    400: "The request cannot be read",
    401: "No valid key",
    403: "The service does not read at this address",
    404: "It is not there",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is of another type",
    422: "The picture or the request is not sound",
    429: "Too many requests; see Retry-After",
    503: "OpenAI, S3 or Snowflake do not answer, or a cap on cost is reached; see Retry-After",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problem documents that a route may answer with."""
    schema = Problem.model_json_schema()
    return {
        status: {"description": _REASONS[status], "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses
    }


KEY = Depends(
    HTTPBearer(auto_error=False, description="A key of this service, checked before anything of the body is read")
)
_FILE = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC or AVIF"}


def _form_schema() -> dict[str, Any]:
    schema = FormRequest.model_json_schema()
    return {**schema, "properties": {"file": _FILE, **schema["properties"]}, "required": ["file"]}


BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _form_schema(),
                "encoding": {"languages": {"style": "form", "explode": True}},
            },
            "application/json": {"schema": AddressRequest.model_json_schema()},
        },
    }
}
