"""Four worker processes under one rate limit: how near they come to it, and what is refused or left without an answer.

Method: the OpenAI test server keeps a limit of requests a minute as OpenAI does (refilled all the time, told in headers,
429 with `retry-after-ms`), a tenth of it left at the start, and answers after 0.3 s. Four processes, which know nothing of one
another, ask for a quarter of the captions each, every request a picture of its own. The bound is (captions - left at the
start) / rate. Beside our captioner, in the same run: a plain `asyncio.gather` over the openai client as it comes, and the
openai client under tenacity's random exponential wait, which OpenAI's guide to rate limits recommends.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import multiprocessing
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from PIL import Image
from tenacity import AsyncRetrying, stop_after_attempt, wait_random_exponential

from image_analyzer import wiring
from image_analyzer.local.openai_control import API_KEY
from image_analyzer.local.stack import Stack, control_openai
from image_analyzer.prompts import CaptionRequest
from image_analyzer.settings import Settings, load_settings
from image_analyzer.steps.asking import make_key

_PROCESSES = 4
_LATENCY_S = 0.3


def picture(number: int) -> bytes:
    """Return a small JPEG of a content of its own."""
    buffer = io.BytesIO()
    Image.new("RGB", (32 + number % 97, 32 + number // 97), (number % 256, number // 7 % 256, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


async def ask_ours(settings: Settings, numbers: range) -> int:
    captioner = wiring.make_captioner(settings)
    slots = asyncio.Semaphore(settings.openai_concurrency)

    async def one(number: int) -> None:
        async with slots:
            key = make_key(str(number), "en", captioner)
            await captioner.caption(CaptionRequest(key=key, thumbnail=picture(number)))

    return await _count(one, numbers)


async def ask_plain(settings: Settings, numbers: range) -> int:
    client = AsyncOpenAI(api_key=API_KEY, base_url=settings.openai_base_url)
    return await _count(lambda number: _create(client, settings, number), numbers)


async def ask_tenacity(settings: Settings, numbers: range) -> int:
    client = AsyncOpenAI(api_key=API_KEY, base_url=settings.openai_base_url, max_retries=0)
    slots = asyncio.Semaphore(settings.openai_concurrency)

    async def one(number: int) -> None:
        async with slots:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(min=1, max=60), stop=stop_after_attempt(6), reraise=True
            ):
                with attempt:
                    await _create(client, settings, number)

    return await _count(one, numbers)


async def _create(client: AsyncOpenAI, settings: Settings, number: int) -> None:
    url = f"data:image/jpeg;base64,{base64.b64encode(picture(number)).decode()}"
    content: Any = [{"type": "input_text", "text": "Describe the image."}, {"type": "input_image", "image_url": url}]
    await client.responses.create(model=settings.openai_model, input=[{"role": "user", "content": content}])


async def _count(one: Callable[[int], Awaitable[None]], numbers: range) -> int:
    outcomes = await asyncio.gather(*(one(number) for number in numbers), return_exceptions=True)
    return sum(not isinstance(outcome, BaseException) for outcome in outcomes)


CONTENDERS = {"this captioner": ask_ours, "openai client and tenacity": ask_tenacity, "plain asyncio.gather": ask_plain}


def work(name: str, named: dict[str, str], numbers: range, answered: Any) -> None:
    settings = load_settings(_env_file=None, **named)
    answered.put(asyncio.run(CONTENDERS[name](settings, numbers)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=2_000)
    parser.add_argument("--per-minute", type=int, default=1_800)
    arguments = parser.parse_args()
    print(__doc__)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        stack.up()
        try:
            environment = stack.environment() | stack.openai_environment()
            named = {name.lower(): value for name, value in environment.items()} | {"openai_probe": "false"}
            left = arguments.per_minute // 10
            bound_s = (arguments.captions - left) / arguments.per_minute * 60
            print(f"{arguments.captions} captions, {arguments.per_minute} a minute: at least {bound_s:.0f} s")
            print(f"{'':<28}{'seconds':>8} {'of the bound':>13} {'answered':>9} {'refused':>8}")
            for name in CONTENDERS:
                limits = {"requests": [arguments.per_minute, left]}
                control_openai(named["openai_base_url"], "reset", {"latency_s": _LATENCY_S, "limits": limits})
                answered = context.Queue()
                share = arguments.captions // _PROCESSES
                workers = [
                    context.Process(target=work, args=(name, named, range(n * share, (n + 1) * share), answered))
                    for n in range(_PROCESSES)
                ]
                for worker in workers:
                    worker.start()
                total = sum(answered.get() for _ in workers)
                calls = control_openai(named["openai_base_url"], "calls")["calls"]
                seconds = max(call["at"] for call in calls) - min(call["at"] for call in calls)
                refused = sum(call["fault"] == "limited" for call in calls)
                reached = (total - left) / seconds / arguments.per_minute * 60
                print(f"{name:<28}{seconds:>8.1f} {reached:>13.0%} {total:>9} {refused:>8}", flush=True)
        finally:
            stack.down()


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s")
