"""An OpenAI-compatible test server: `python -m image_analyzer.local.openai_server PORT`.

It speaks the wire format of `/v1/responses`, `/v1/chat/completions`, `/v1/files` and `/v1/batches`, counts image tokens
as the API does, and captions what it really sees by the offline describer, so that different pictures get different
captions. Faults are ordered over `/control/faults`; `/control/calls` tells what arrived. It stands in for OpenAI: it is no
vision model.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from image_analyzer.local import openai_batches
from image_analyzer.local.openai_answers import answer, error
from image_analyzer.local.openai_control import API_KEY, FAULTS, Bucket, control


async def _post_responses(request: Request) -> Response:
    return await _counted(request, "responses")


async def _post_chat(request: Request) -> Response:
    return await _counted(request, "chat")


async def _counted(request: Request, style: str) -> Response:
    control.in_flight += 1
    control.most_in_flight = max(control.most_in_flight, control.in_flight)
    try:
        return await answer(await request.json(), style, request.headers.get("authorization", ""))
    finally:
        control.in_flight -= 1


async def _show_model(request: Request) -> Response:
    if request.headers.get("authorization") != f"Bearer {API_KEY}":
        return error(401, "invalid_api_key", "Incorrect API key provided.")
    return JSONResponse({"id": request.path_params["model"], "object": "model", "created": 0, "owned_by": "local"})


async def _order_faults(request: Request) -> Response:
    orders = await request.json()
    unknown = [order["kind"] for order in orders if order["kind"] not in FAULTS]
    if unknown:
        return JSONResponse({"error": f"unknown faults {unknown}; choose from {FAULTS}"}, 400)
    control.faults.extend({"times": 1, **order} for order in orders)
    return JSONResponse({"waiting": len(control.faults)})


async def _mend(_: Request) -> Response:
    """Forget the orders; what arrived stays."""
    control.faults.clear()
    return JSONResponse({})


async def _show_calls(_: Request) -> Response:
    return JSONResponse(
        {"calls": control.calls, "in_flight": control.in_flight, "most_in_flight": control.most_in_flight}
    )


async def _reset(request: Request) -> Response:
    """Forget everything; set `latency_s`, `batch_s`, and `limits`: by kind how much a minute and how much of that is left now."""
    control.__init__()  # type: ignore[misc]
    openai_batches.forget_all()
    wanted = await request.json()
    control.latency_s, control.batch_s = float(wanted.get("latency_s", 0)), float(wanted.get("batch_s", 0))
    control.limits = {kind: Bucket(*limit) for kind, limit in wanted.get("limits", {}).items()}
    return JSONResponse({})


app = Starlette(
    routes=[
        Route("/v1/responses", _post_responses, methods=["POST"]),
        Route("/v1/chat/completions", _post_chat, methods=["POST"]),
        Route("/v1/models/{model}", _show_model),
        *openai_batches.routes,
        Route("/control/faults", _order_faults, methods=["POST"]),
        Route("/control/mend", _mend, methods=["POST"]),
        Route("/control/calls", _show_calls),
        Route("/control/reset", _reset, methods=["POST"]),
    ]
)


def main() -> None:
    """Serve until stopped."""
    # Kept for longer than clients keep a connection: at the same five seconds, a request meets a closed one.
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
