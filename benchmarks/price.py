"""Price of 1,000 captions by edge of the thumbnail, mode and languages in one request, by the test server's token count.

Method: the demonstration's photographs, as thumbnails of 512 and 768 px, are captioned by the real client against the
OpenAI test server, which counts tokens of text at four characters each and of pictures by OpenAI's formula; the cost is
by the price of the default model at the tier that the answer names. Once one request for each language, once one for
four languages. The ratio is against the naive way: online, one language a request, 768 px.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from languages import thumbnails

from image_analyzer import wiring
from image_analyzer.captions import CaptionAnswer
from image_analyzer.local.stack import Stack
from image_analyzer.ports import JobService
from image_analyzer.prompts import CaptionRequest
from image_analyzer.settings import CaptionMode, Settings, load_settings
from image_analyzer.steps.asking import make_key

_LANGUAGES = ("en", "fr", "de", "ja")


async def ask(settings: Settings, pictures: list[bytes], languages: tuple[str, ...]) -> float:
    """Return US dollars for 1,000 captions."""
    captioner = wiring.make_captioner(settings)
    requests = [
        CaptionRequest(key=make_key(str(number), languages[0], captioner), thumbnail=jpeg, also=languages[1:])
        for number, jpeg in enumerate(pictures)
    ]
    if settings.caption_mode is CaptionMode.BATCH:
        answers = await ask_by_job(wiring.make_job_service(settings), requests)
    else:
        answers = [await captioner.caption(request) for request in requests]
    await captioner.aclose()
    cost_usd = sum(answer.usage.cost_usd or 0.0 for answer in answers)
    return cost_usd / len(pictures) / len(languages) * 1_000


async def ask_by_job(service: JobService, requests: list[CaptionRequest]) -> list[CaptionAnswer]:
    """Return the answers of one batch job."""
    by_id = {f"request-{number}": request for number, request in enumerate(requests)}
    job_id = await service.send("price", b"".join(service.line(name, request) for name, request in by_id.items()))
    while (state := await service.look(job_id)) is None or not state.ended:  # noqa: ASYNC110 - the API can only be asked
        await asyncio.sleep(0.1)
    answers = [reply.answer async for reply in service.read(state, by_id) if reply.answer]
    await service.forget(state)
    await service.aclose()
    assert len(answers) == len(requests)
    return answers


def main() -> None:
    print(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        stack.up()
        try:
            environment = stack.environment() | stack.openai_environment()
            named = {name.lower(): value for name, value in environment.items()}
            naive = 0.0
            print(f"{'edge':>8} {'mode':>7} {'languages':>10} {'USD / 1,000':>12} {'ratio':>6}")
            for edge_px in (768, 512):
                for mode in CaptionMode:
                    for languages in (_LANGUAGES[:1], _LANGUAGES):
                        settings = load_settings(_env_file=None, **{**named, "caption_mode": mode})
                        usd = asyncio.run(ask(settings, thumbnails(edge_px), languages))
                        naive = naive or usd
                        print(f"{edge_px:>5} px {mode:>7} {len(languages):>10} {usd:>12.4f} {naive / usd:>6.2f}")
        finally:
            stack.down()


if __name__ == "__main__":
    main()
