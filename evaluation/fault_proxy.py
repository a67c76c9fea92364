"""A reverse proxy that breaks requests as ordered: between the pipeline and the embedded S3 or Snowflake."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

_METHODS = ["GET", "PUT", "POST", "DELETE", "HEAD"]
_SLOW_CHUNK, _SLOW_PAUSE_S = 8_192, 0.1


@dataclass
class Rule:
    """What is done to requests.

    Attributes:
        method: Of the requests it is for; empty for all.
        needle: Text that stands in the path or in the body.
        kind: `status` (answered so, never passed on), `cut` (passed on, the answer breaks off half-way), `lost` (passed on, the
            answer never comes), `slow` (a trickle), `hook` (passed on after `hook` was called).
        times: How many requests; each takes one away.
        hits: How many it was applied to.
    """

    kind: str
    needle: str = ""
    method: str = ""
    times: int = 1
    status: int = 500
    body: bytes = b""
    hook: Callable[[], None] = lambda: None
    hits: int = 0

    def fits(self, method: str, text: str) -> bool:
        """Tell whether a request is meant; each time it is, one is taken away."""
        if self.times <= 0 or self.method not in ("", method) or self.needle not in text:
            return False
        self.times -= 1
        self.hits += 1
        return True


class _Cut(Response):
    """Half an answer, or none, and then a broken connection."""

    def __init__(self, status: int, headers: httpx.Headers, content: bytes) -> None:
        super().__init__(status_code=status)
        self._kept, self._content = [(k.lower(), v) for k, v in headers.raw], content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Begin to answer and break off."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._kept})
        await send({"type": "http.response.body", "body": self._content, "more_body": True})
        raise ConnectionResetError("ordered")


class FaultProxy:
    """Serves on loopback in a thread of its own.

    Args:
        target: Address of the server behind it.
        tls: Certificate and key, of both servers; None for plain HTTP.
    """

    def __init__(self, target: str, port: int, tls: tuple[Path, Path] | None = None) -> None:
        self.rules: list[Rule] = []
        self._target = target
        self._trust = ssl.create_default_context(cafile=tls[0]) if tls else True
        app = Starlette(routes=[Route("/{path:path}", self._handle, methods=_METHODS)])
        config = uvicorn.Config(
            app, host="127.0.0.1", port=port, log_level="critical", date_header=False, server_header=False
        )
        if tls:
            config.ssl_certfile, config.ssl_keyfile = str(tls[0]), str(tls[1])
        self._server = uvicorn.Server(config)
        self._client: httpx.AsyncClient | None = None
        threading.Thread(target=self._server.run, daemon=True).start()
        while not self._server.started:
            time.sleep(0.02)

    def stop(self) -> None:
        """End."""
        self._server.should_exit = True

    async def _handle(self, request: Request) -> Response:
        if self._client is None:
            self._client = httpx.AsyncClient(verify=self._trust, timeout=600, limits=httpx.Limits(max_connections=200))
        body = await request.body()
        packed = request.headers.get("content-encoding") == "gzip"
        text = f"{request.url.path}?{request.url.query}\n{(gzip.decompress(body) if packed else body).decode(errors='replace')}"
        rule = next((rule for rule in self.rules if rule.fits(request.method, text)), None)
        kind = rule.kind if rule else ""
        if rule and kind == "status":
            return Response(rule.body, rule.status, media_type="application/xml")
        if rule and kind == "hook":
            await asyncio.to_thread(rule.hook)
        path = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
        headers = [(k, v) for k, v in request.headers.raw if k not in (b"expect", b"transfer-encoding")]
        sent = self._client.build_request(request.method, self._target + path, headers=headers, content=body)
        answer = await self._client.send(sent, stream=True)
        if kind in ("cut", "lost"):
            content = b"".join([chunk async for chunk in answer.aiter_raw()])
            await answer.aclose()
            return _Cut(answer.status_code, answer.headers, content[: len(content) // 2] if kind == "cut" else b"")
        return _Passed(answer, slow=kind == "slow")


class _Passed(StreamingResponse):
    """The server's own answer."""

    def __init__(self, answer: httpx.Response, *, slow: bool) -> None:
        super().__init__(_trickle(answer) if slow else _pass(answer), answer.status_code)
        kept = [(k.lower(), v) for k, v in answer.headers.raw]
        self.raw_headers = [(k, v) for k, v in kept if k not in (b"transfer-encoding", b"connection")]


async def _pass(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


async def _trickle(answer: httpx.Response) -> AsyncIterator[bytes]:
    async for chunk in _pass(answer):
        for start in range(0, len(chunk), _SLOW_CHUNK):
            await asyncio.sleep(_SLOW_PAUSE_S)
            yield chunk[start : start + _SLOW_CHUNK]
