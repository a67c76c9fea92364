"""What a request costs: a dated table of prices, and OpenAI's image tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from image_analyzer.errors import ConfigurationError
from image_analyzer.records import Record

# Prompt and answer of one caption in tokens; with the image tokens an upper bound for `plan`.
_PROMPT_TOKENS = 300
_ANSWER_TOKENS = 80
_FEWEST_CHARACTERS_PER_TOKEN = 3
_MOST_TOKENS_PER_CHARACTER = 1.5
# Text takes between half and all of its upper bound; a picture above this share of it cannot hide in that.
_TELLING_SHARE = 0.6
_PATCH_PX = 32
# OpenAI's images guide for the gpt-5.4 to 5.6 families, read 2026-11-22; third-party figures agree for gpt-6.
_PATCH_MULTIPLIER = 1.2


class Price(Record):
    """US dollars for a million tokens, standard tier."""

    input: float
    output: float

    def at_tier(self, tier: str | None) -> Price:
        """Return the price of a service tier as an answer names it; the standard price where it names none or an unknown one."""
        factor = _content()["tier_factors"].get(tier or "", 1.0)
        return Price(input=self.input * factor, output=self.output * factor)

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of one request, to a millionth of a cent."""
        return round((input_tokens * self.input + output_tokens * self.output) / 1_000_000, 8)


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((files("image_analyzer") / "data" / "prices.json").read_text(encoding="utf-8"))
    return content


def find_price(model: str, input_usd: float | None = None, output_usd: float | None = None) -> Price:
    """Return the price of a model; the settings win over the table.

    Raises:
        ConfigurationError: The table does not know the model and the settings name no price.
    """
    if input_usd is not None and output_usd is not None:
        return Price(input=input_usd, output=output_usd)
    row = _content()["usd_per_million_tokens"].get(model)
    if row is None:
        raise ConfigurationError(
            f"No price is known for model {model!r}: set OPENAI_INPUT_USD_PER_MTOK and OPENAI_OUTPUT_USD_PER_MTOK "
            "(0 for a server of your own)."
        )
    return Price(**row)


def image_tokens(width_px: int, height_px: int) -> int:
    """Return the tokens of an image of a patch model: 32 px patches times a multiplier."""
    patches = math.ceil(width_px / _PATCH_PX) * math.ceil(height_px / _PATCH_PX)
    return math.ceil(patches * _PATCH_MULTIPLIER)


def most_text_tokens(texts: Iterable[str]) -> int:
    """Return an upper bound of what texts cost: a token has three characters of Latin text at least, of others less than one."""
    joined = "".join(texts)
    plain = sum(character.isascii() for character in joined)
    return math.ceil(plain / _FEWEST_CHARACTERS_PER_TOKEN + (len(joined) - plain) * _MOST_TOKENS_PER_CHARACTER)


def is_unseen(input_tokens: int | None, texts: Iterable[str], width_px: int, height_px: int) -> bool:
    """Tell from the bill whether a picture never reached the model: no more tokens than the text may take by itself.

    Small pictures cost too little to tell.
    """
    texts = tuple(texts)
    most = most_text_tokens(texts)
    if input_tokens is None or image_tokens(width_px, height_px) < most * _TELLING_SHARE:
        return False
    return input_tokens <= most


def estimate_usd(price: Price, captions: int, thumbnail_px: int) -> float:
    """Return an upper bound for a number of captions asked once: square thumbnails, nothing reused."""
    per_caption = price.cost_usd(image_tokens(thumbnail_px, thumbnail_px) + _PROMPT_TOKENS, _ANSWER_TOKENS)
    return round(per_caption * captions, 6)
