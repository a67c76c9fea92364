"""The OpenAI test server's files and batch jobs: what is uploaded, worked off in the background, and kept until deleted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from image_analyzer.local.openai_answers import CutResponse, answer, error
from image_analyzer.local.openai_control import API_KEY, control

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
_STYLES = {"/v1/responses": "responses", "/v1/chat/completions": "chat"}
_AUTHORIZED = f"Bearer {API_KEY}"
_files: dict[str, dict[str, Any]] = {}
_jobs: dict[str, dict[str, Any]] = {}
_cancelled: dict[str, asyncio.Event] = {}
_tasks: set[asyncio.Task[None]] = set()


def _add_file(content: bytes, filename: str, purpose: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": f"file-{uuid4().hex}", "object": "file", "bytes": len(content), "created_at": int(time.time()),
        "filename": filename, "purpose": purpose, "status": "processed",
    }  # fmt: skip
    _files[shown["id"]] = {"shown": shown, "content": content}
    return shown


async def _post_file(request: Request) -> Response:
    async with request.form() as form:
        upload: Any = form["file"]
        return JSONResponse(_add_file(await upload.read(), upload.filename or "", str(form["purpose"])))


async def _list_files(request: Request) -> Response:
    return _page(request, [file["shown"] for file in _files.values()])


async def _get_content(request: Request) -> Response:
    file = _files.get(request.path_params["file"])
    return Response(file["content"]) if file else error(404, "not_found", "No such File object.")


async def _delete_file(request: Request) -> Response:
    name = request.path_params["file"]
    if _files.pop(name, None) is None:
        return error(404, "not_found", "No such File object.")
    return JSONResponse({"id": name, "object": "file", "deleted": True})


async def _post_job(request: Request) -> Response:
    wanted = await request.json()
    if wanted["input_file_id"] not in _files:
        return error(400, "invalid_request_error", "The input file does not exist.")
    job = {
        "id": f"batch_{uuid4().hex}", "object": "batch", "endpoint": wanted["endpoint"], "errors": None,
        "input_file_id": wanted["input_file_id"], "completion_window": wanted["completion_window"],
        "status": "validating", "output_file_id": None, "error_file_id": None, "created_at": int(time.time()),
        "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": wanted.get("metadata"),
    }  # fmt: skip
    _jobs[job["id"]], _cancelled[job["id"]] = job, asyncio.Event()
    fault = control.next_batch_fault()
    task = asyncio.create_task(_work(job, fault))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    if fault.get("kind") == "batch_reply_lost":
        return CutResponse(job)
    return JSONResponse(job)


async def _list_jobs(request: Request) -> Response:
    return _page(request, list(_jobs.values()))


async def _get_job(request: Request) -> Response:
    job = _jobs.get(request.path_params["job"])
    return JSONResponse(job) if job else error(404, "not_found", "No batch found.")


async def _cancel_job(request: Request) -> Response:
    job = _jobs.get(request.path_params["job"])
    if job is None:
        return error(404, "not_found", "No batch found.")
    if job["status"] not in ("validating", "in_progress"):
        return error(409, "conflict", f"Cannot cancel a batch with status '{job['status']}'.")
    job["status"] = "cancelling"
    _cancelled[job["id"]].set()
    return JSONResponse(job)


def _page(request: Request, items: list[dict[str, Any]]) -> Response:
    """Return a page of a list, the newest first, as the API does."""
    newest = list(reversed(items))
    if after := request.query_params.get("after"):
        newest = newest[next((i + 1 for i, item in enumerate(newest) if item["id"] == after), len(newest)) :]
    page = newest[: int(request.query_params.get("limit", 20))]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return JSONResponse({"object": "list", "data": page, "has_more": len(page) < len(newest), **ends})


async def _work(job: dict[str, Any], fault: dict[str, Any]) -> None:
    """Work a job off as ordered: all of it, part of it, or nothing."""
    content = _files[job["input_file_id"]]["content"]
    lines = content.splitlines()
    refusal = _refusal(content, lines, fault.get("kind"))
    if refusal:
        job |= {"status": "failed", "errors": {"object": "list", "data": [refusal]}, "failed_at": int(time.time())}
        return
    job["status"] = "in_progress"
    kind = fault.get("kind")
    upto = int(fault.get("done", 0)) if kind in ("batch_expired", "batch_slow") else len(lines)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        if job["status"] == "cancelling" or number >= upto:
            break
        reply = await _work_line(json.loads(line), job["endpoint"])
        (done if reply["response"] and reply["response"]["status_code"] == 200 else failed).append(reply)
    with suppress(TimeoutError):
        await asyncio.wait_for(_cancelled[job["id"]].wait(), None if kind == "batch_slow" else control.batch_s)
    end = "expired" if kind == "batch_expired" else "cancelled" if job["status"] == "cancelling" else "completed"
    for line in lines[len(done) + len(failed) :]:
        unfinished = {"code": f"batch_{end}", "message": "This request could not be executed."}
        failed.append(_reply(json.loads(line)["custom_id"], None, unfinished))
    for field, replies in (("output_file_id", done), ("error_file_id", failed)):
        if replies:
            # In another order than they were asked, as the API warns.
            text = "".join(json.dumps(reply) + "\n" for reply in reversed(replies))
            job[field] = _add_file(text.encode(), f"{job['id']}_{field}.jsonl", "batch_output")["id"]
    job["request_counts"] = {"total": len(lines), "completed": len(done), "failed": len(failed)}
    job |= {"status": end, f"{end}_at": int(time.time())}


def _refusal(content: bytes, lines: list[bytes], kind: str | None) -> dict[str, Any] | None:
    """Return why a job is not even begun."""
    if kind == "batch_queue_full":
        return {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None, "param": None}
    if kind == "batch_invalid" or len(lines) > MOST_REQUESTS or len(content) > MOST_BYTES:
        return {"code": "invalid_file", "message": "The file is invalid or too large.", "line": 1, "param": None}
    return None


async def _work_line(asked: dict[str, Any], endpoint: str) -> dict[str, Any]:
    reply = await answer(asked["body"], _STYLES[endpoint], _AUTHORIZED, by_file=True)
    if isinstance(reply, CutResponse):
        return _reply(asked["custom_id"], None, {"code": "server_error", "message": "The server had an error."})
    content = bytes(reply.body)
    body = json.loads(content) if content.startswith(b"{") else {}
    return _reply(asked["custom_id"], {"status_code": reply.status_code, "request_id": "req_1", "body": body}, None)


def _reply(custom_id: str, response: dict[str, Any] | None, problem: dict[str, Any] | None) -> dict[str, Any]:
    return {"id": f"batch_req_{uuid4().hex}", "custom_id": custom_id, "response": response, "error": problem}


def forget_all() -> None:
    """Forget every file and job."""
    for task in _tasks:
        task.cancel()
    _files.clear()
    _jobs.clear()
    _cancelled.clear()


async def _show(_: Request) -> Response:
    """Tell tests what lies here."""
    return JSONResponse({"files": [file["shown"] for file in _files.values()], "jobs": list(_jobs.values())})


def _guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that refuses other keys, as the API does."""

    async def handle(request: Request) -> Response:
        if request.headers.get("authorization") != _AUTHORIZED:
            return error(401, "invalid_api_key", "Incorrect API key provided.")
        return await handler(request)

    return handle


routes = [
    Route("/v1/files", _guarded(_post_file), methods=["POST"]),
    Route("/v1/files", _guarded(_list_files)),
    Route("/v1/files/{file}/content", _guarded(_get_content)),
    Route("/v1/files/{file}", _guarded(_delete_file), methods=["DELETE"]),
    Route("/v1/batches", _guarded(_post_job), methods=["POST"]),
    Route("/v1/batches", _guarded(_list_jobs)),
    Route("/v1/batches/{job}", _guarded(_get_job)),
    Route("/v1/batches/{job}/cancel", _guarded(_cancel_job), methods=["POST"]),
    Route("/control/batches", _show),
]
