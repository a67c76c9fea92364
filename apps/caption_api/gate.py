"""What a request must pass before any of its body is read: key, rate, size, time. Then it is counted."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Sequence

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caption_api import metrics
from caption_api.problems import problem

log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_GUARDED = "/v1/"


class Gate:
    """ASGI middleware around the whole service.

    Args:
        keys: `name:sha256 of the key`.
        per_minute: Requests of each key. Counted in this process: run one, it serves many requests at once.
        most_bytes: A longer body is refused by its announced length, or where it passes it.
        body_timeout_s: A body must arrive in this time.
    """

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[str], per_minute: int, most_bytes: int, body_timeout_s: float
    ) -> None:
        self._app = app
        self._keys = [tuple(key.split(":", maxsplit=1)) for key in keys]
        self._rate = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._most_bytes, self._body_timeout_s = most_bytes, body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        headers = Headers(scope=scope)
        asked_id = headers.get("x-request-id", "")
        request_id = asked_id if _REQUEST_ID.fullmatch(asked_id) else uuid.uuid4().hex
        status = 500

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            refusal = self._refuse(headers) if scope["path"].startswith(_GUARDED) else None
            if refusal is not None:
                await refusal(scope, receive, tagged)
            else:
                await self._app(scope, self._bounded(receive), tagged)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # the app names it in the scope
            seconds = time.monotonic() - started
            metrics.REQUESTS.labels(scope["method"] if route != "other" else "", route, status).inc()
            metrics.SECONDS.labels(route).observe(seconds)
            log.info("%s %s %d in %.3f s, request %s", scope["method"], route, status, seconds, request_id)

    def _refuse(self, headers: Headers) -> Response | None:
        name = self._who(headers.get("authorization", ""))
        if name is None:
            return problem(
                401,
                "Send a key of this service: Authorization: Bearer …",
                "unauthorized",
                {"www-authenticate": "Bearer"},
            )
        if not self._limiter.hit(self._rate, name):
            reset_at, _ = self._limiter.get_window_stats(self._rate, name)
            wait_s = max(1, round(reset_at - time.time()))
            detail = f"This key may send {self._rate.amount} requests a minute."
            return problem(429, detail, "rate_limited", {"retry-after": str(wait_s)})
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > self._most_bytes:
            return problem(413, f"A request may have {self._most_bytes} bytes.", "too_large")
        return None

    def _who(self, authorization: str) -> str | None:
        """Return whose key this is. Every key is compared, each in constant time."""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "replace")).hexdigest()
        matches = [name for name, known in self._keys if hmac.compare_digest(known, digest)]
        return matches[0] if matches and scheme.lower() == "bearer" else None

    def _bounded(self, receive: Receive) -> Receive:
        """Return a `receive` that ends a body which is longer, or slower, than allowed."""
        taken = 0
        deadline = time.monotonic() + self._body_timeout_s
        is_whole = False

        async def bounded() -> Message:
            nonlocal taken, is_whole
            if is_whole:  # nothing but a disconnect may come
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The request did not arrive within {self._body_timeout_s:g} s.") from None
            taken += len(message.get("body", b""))
            if taken > self._most_bytes:
                raise HTTPException(413, f"A request may have {self._most_bytes} bytes.")
            is_whole = not message.get("more_body", False)
            return message

        return bounded
