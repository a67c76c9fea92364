"""Captioner that looks at colours only: no model, no network, no cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from image_analyzer.captions import CaptionAnswer
from image_analyzer.describer import describe, look_at
from image_analyzer.prompts import CaptionRequest
from image_analyzer.records import Origin, Usage


class OfflineDescriber:
    """Describes thumbnails by a template.

    Args:
        translations: Hint labels by English name and language.
    """

    model = "offline-describer"
    detail = "none"
    origin = Origin.OFFLINE
    paid = False
    proven = True
    notes: tuple[str, ...] = ()

    def __init__(self, translations: Mapping[str, Mapping[str, str]]) -> None:
        self._translations = translations

    def most_usd(self, request: CaptionRequest) -> float:  # noqa: ARG002 - the port's signature
        """Return 0."""
        return 0.0

    async def caption(self, request: CaptionRequest) -> CaptionAnswer:
        """Describe the thumbnail; the hint, if any, names what it may show."""
        look = await asyncio.to_thread(look_at, request.thumbnail)
        text = describe(look, request.key.language, request.hint, self._translations)
        return CaptionAnswer(text=text, usage=Usage(input_tokens=0, output_tokens=0, cost_usd=0.0, attempts=1))

    async def aclose(self) -> None:
        """Nothing to close."""
