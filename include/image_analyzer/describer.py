"""The offline describer: colours, brightness and layout of a thumbnail, put into a sentence by a template per language.

It asks no model. A text model that is given only a label invents a scene, and no rule on text can see that.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_analyzer.hints import translate_label
from image_analyzer.languages import base_code

_SAMPLE_PX = 48
_SECOND_COLOUR_SHARE = 0.15
_DARK, _BRIGHT = 85, 170
_WIDE = 1.1
# Hue in degrees where each colour begins.
_HUES = [
    (0, "red"),
    (15, "orange"),
    (45, "yellow"),
    (70, "green"),
    (165, "blue"),
    (255, "purple"),
    (300, "pink"),
    (345, "red"),
]


class Look(NamedTuple):
    """What can be said of a picture without knowing what it shows: keys into the templates' words."""

    colours: tuple[str, ...]
    brightness: str
    layout: str


@cache
def _templates() -> dict[str, dict[str, Any]]:
    text = (files("image_analyzer") / "data" / "describer.json").read_text(encoding="utf-8")
    templates: dict[str, dict[str, Any]] = json.loads(text)
    return templates


def look_at(jpeg: bytes) -> Look:
    """Measure a thumbnail: its one or two main colours, its brightness, its layout."""
    with Image.open(io.BytesIO(jpeg)) as image:
        width, height = image.size
        image.draft("RGB", (_SAMPLE_PX, _SAMPLE_PX))
        sample = image.convert("RGB").resize((_SAMPLE_PX, _SAMPLE_PX), Image.Resampling.BOX)
    hsv = np.asarray(sample.convert("HSV"), dtype=np.float32).reshape(-1, 3)
    luma = float(np.asarray(sample.convert("L"), dtype=np.float32).mean())
    names, counts = np.unique(_name_colours(hsv), return_counts=True)
    order = np.argsort(counts)[::-1]
    enough = [i for n, i in enumerate(order[:2]) if n == 0 or counts[i] >= _SECOND_COLOUR_SHARE * counts.sum()]
    return Look(
        colours=tuple(str(names[i]) for i in enough),
        brightness="dark" if luma < _DARK else "bright" if luma > _BRIGHT else "medium",
        layout="wide" if width > height * _WIDE else "tall" if height > width * _WIDE else "square",
    )


def _name_colours(hsv: NDArray[np.float32]) -> NDArray[np.str_]:
    hue, saturation, value = hsv[:, 0] * (360 / 255), hsv[:, 1], hsv[:, 2]
    starts = np.array([start for start, _ in _HUES])
    names = np.array([name for _, name in _HUES])[np.searchsorted(starts, hue, side="right") - 1]
    names = np.where((np.isin(names, ["orange", "red"])) & (value < 150), "brown", names)
    names = np.where(saturation < 40, "grey", names)
    names = np.where((saturation < 40) & (value > 200), "white", names)
    return np.where(value < 50, "black", names)


def describe(look: Look, language: str, label: str | None, translations: Mapping[str, Mapping[str, str]]) -> str:
    """Return one sentence; the label goes in only in English, or where `translations` has it."""
    template = _templates()[base_code(language)]
    words = [template["colours"][colour] for colour in look.colours]
    form = template["two_colours" if len(words) == 2 else "one_colour"]
    sentence: str = form.format(
        a=words[0],
        b=words[-1],
        brightness=template["brightness"][look.brightness],
        layout=template["layout"][look.layout],
    )
    shown = translate_label(label, language, translations) if label else None
    if shown:
        sentence = template["labelled"].format(label=shown, sentence=sentence)
    return sentence[:1].title() + sentence[1:]
