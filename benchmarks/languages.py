"""Several languages of one picture: one request for all of them against one request each.

Method: the demonstration's photographs, as thumbnails of the default size, are captioned by the real client against the
OpenAI test server, which counts tokens of text at four characters each and of pictures by OpenAI's formula, once with one
request for all languages and once with one for each. Printed are tokens and cost per caption at the price of the default
model, their ratio, and how many captions pass the contract. The server describes colours by template: what a
real model makes of several languages at once shows only on a live endpoint (`image-analyzer evaluate --pictures`).
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from pathlib import Path

from PIL import Image

from image_analyzer import wiring
from image_analyzer.captions import CaptionAnswer, judge, share_answer
from image_analyzer.local.pictures import demo_pictures
from image_analyzer.local.stack import Stack
from image_analyzer.prompts import CaptionRequest
from image_analyzer.settings import Settings, load_settings
from image_analyzer.steps.asking import make_key
from image_analyzer.thumbnails import paint_thumbnail

_LANGUAGES = ("en", "fr", "de", "ja", "ar", "hi", "es", "zh")


async def ask(
    settings: Settings, pictures: list[bytes], languages: tuple[str, ...], *, together: bool
) -> list[tuple[str, CaptionAnswer]]:
    captioner = wiring.make_captioner(settings)
    answers: list[tuple[str, CaptionAnswer]] = []
    for number, jpeg in enumerate(pictures):
        for group in [languages] if together else [(language,) for language in languages]:
            key = make_key(str(number), group[0], captioner)
            answer = await captioner.caption(CaptionRequest(key=key, thumbnail=jpeg, also=group[1:]))
            answers += zip(group, share_answer(answer, group), strict=True)
    await captioner.aclose()
    return answers


def thumbnails(edge_px: int) -> list[bytes]:
    names = [picture for picture in demo_pictures() if picture.name.startswith("photos/")]
    return [paint_thumbnail(Image.open(io.BytesIO(picture.content)), 1, edge_px) for picture in names]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        stack.up()
        try:
            environment = stack.environment() | stack.openai_environment()
            settings = load_settings(_env_file=None, **{name.lower(): value for name, value in environment.items()})
            pictures = thumbnails(settings.thumbnail_px)
            print(f"{len(pictures)} photographs, {settings.openai_model}; per caption")
            print(
                f"{'languages':>9} {'requests':>9} {'tokens in':>10} {'out':>6} {'micro-USD':>10} {'ratio':>6} {'pass':>8}"
            )
            for count in (1, 2, 4, 8):
                costs = []
                for together in (False, True):
                    answers = asyncio.run(ask(settings, pictures, _LANGUAGES[:count], together=together))
                    usages = [answer.usage for _, answer in answers]
                    n = len(usages)
                    tokens_in = sum(u.input_tokens or 0 for u in usages) / n
                    tokens_out = sum(u.output_tokens or 0 for u in usages) / n
                    costs.append(sum(u.cost_usd or 0.0 for u in usages) / n * 1e6)
                    sound = sum(judge(answer, language).caption is not None for language, answer in answers)
                    requests = sum(u.attempts for u in usages)
                    ratio = f"{costs[0] / costs[-1]:.2f}" if together else ""
                    line = f"{count:>9} {requests:>9} {tokens_in:>10.0f} {tokens_out:>6.0f} {costs[-1]:>10.1f}"
                    print(f"{line} {ratio:>6} {sound:>4}/{n}")
        finally:
            stack.down()


if __name__ == "__main__":
    main()
