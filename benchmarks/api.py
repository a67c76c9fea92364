"""The service under load, beside a bare FastAPI handler that only forwards the picture to OpenAI.

Method: both run as one uvicorn process in front of the OpenAI test server, which answers after 0.3 s. A client in another
process sends photographs of the demonstration, shrunk to 1,200 pixels and each with other bytes, 16 requests at a time. The
bare handler puts the file as it is into one request and returns what comes back. Ours reads, hashes and shrinks the picture,
asks for a hint, looks into table and ledger, judges the caption, stores the receipt and merges the row. Then the same pictures
are sent once more: ours has them, the bare handler pays again. Everything, Snowflake's emulator too, shares the processors.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, UploadFile
from openai import AsyncOpenAI
from PIL import Image

from image_analyzer import wiring
from image_analyzer.local.pictures import demo_pictures
from image_analyzer.local.stack import Stack, control_openai, free_ports
from image_analyzer.settings import load_settings

KEY = "sia_benchmark"
LATENCY_S = 0.3


def make_bare() -> FastAPI:
    app, settings = FastAPI(), load_settings()
    client = AsyncOpenAI(api_key=settings.openai_api_key.get_secret_value(), base_url=settings.openai_base_url)

    @app.post("/v1/captions")
    async def forward(file: UploadFile) -> dict[str, str]:
        url = f"data:image/jpeg;base64,{base64.b64encode(await file.read()).decode()}"
        content: Any = [
            {"type": "input_text", "text": "Describe the image."},
            {"type": "input_image", "image_url": url},
        ]
        answer = await client.responses.create(
            model=settings.openai_model, input=[{"role": "user", "content": content}]
        )
        return {"caption": answer.output_text}

    return app


def make_pictures(count: int) -> list[bytes]:
    sources = []
    for picture in demo_pictures():
        if picture.name.startswith("photos/"):
            with Image.open(io.BytesIO(picture.content)) as image:
                image.thumbnail((1_200, 1_200))
                buffer = io.BytesIO()
                image.convert("RGB").save(buffer, "JPEG")
            sources.append(buffer.getvalue())
    return [sources[n % len(sources)] + n.to_bytes(4, "big") for n in range(count)]


async def load(url: str, pictures: list[bytes], at_once: int) -> tuple[float, list[float], int]:
    slots, seconds, failed = asyncio.Semaphore(at_once), [], 0

    async def send(client: httpx.AsyncClient, picture: bytes) -> None:
        nonlocal failed
        async with slots:
            started = time.perf_counter()
            answer = await client.post(f"{url}/v1/captions", files={"file": ("a.jpg", picture)})
            seconds.append(time.perf_counter() - started)
            failed += answer.status_code != 200

    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=120) as client:
        started = time.perf_counter()
        await asyncio.gather(*(send(client, picture) for picture in pictures))
        return time.perf_counter() - started, sorted(seconds), failed


def serve(command: list[str], port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, env=os.environ.copy(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        uvicorn.run(make_bare(), host="127.0.0.1", port=arguments.bare, log_level="error")
        return
    print(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        stack.up()
        try:
            keys = f"benchmark:{hashlib.sha256(KEY.encode()).hexdigest()}"
            stack.adopt(**stack.openai_environment(), API_KEYS=keys, API_RATE_PER_MINUTE="1000000")
            settings = load_settings()
            wiring.make_warehouse(settings).create_tables()
            measure(settings.openai_base_url, arguments)
        finally:
            stack.down()


def measure(openai_url: str, arguments: argparse.Namespace) -> None:
    pictures = make_pictures(arguments.pictures)
    ours, bare = free_ports(2)
    contenders = {
        "this service": ([str(Path(sys.executable).parent / "image-analyzer"), "api", "--port", str(ours)], ours),
        "bare handler": ([sys.executable, __file__, "--bare", str(bare)], bare),
    }
    print(
        f"{arguments.pictures} pictures, {arguments.at_once} at once; at most {arguments.at_once / LATENCY_S:.0f} a second new"
    )
    print(f"{'':<28}{'requests/s':>11}{'p50 s':>8}{'p99 s':>8}{'failed':>8}{'paid calls':>12}")
    rates: dict[str, dict[str, float]] = {"new": {}, "again": {}}
    for name, (command, port) in contenders.items():
        control_openai(openai_url, "reset", {"latency_s": LATENCY_S})
        process = serve(command, port)
        try:
            for what in ("new", "again"):
                before = len(control_openai(openai_url, "calls")["calls"])
                took, seconds, failed = asyncio.run(load(f"http://127.0.0.1:{port}", pictures, arguments.at_once))
                calls = len(control_openai(openai_url, "calls")["calls"]) - before
                rates[what][name] = len(pictures) / took
                p50, p99 = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
                print(
                    f"{name + ', ' + what:<28}{len(pictures) / took:>11.1f}{p50:>8.2f}{p99:>8.2f}{failed:>8}{calls:>12}",
                    flush=True,
                )
        finally:
            process.terminate()
            process.wait()
    for what, by_name in rates.items():
        print(
            f"{what}: {by_name['this service'] / by_name['bare handler']:.2f} of the bare handler's requests a second"
        )


if __name__ == "__main__":
    main()
