"""Label hints: how a thumbnail becomes the model's input, and how its scores become labels."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from image_analyzer.records import Hint, Label, Record


class Preprocessing(Record):
    """How the model was trained to see.

    Attributes:
        resize_shorter_side_px: The picture is scaled so that its shorter side has this length.
        crop_px: Side of the square cut out of its middle.
        mean, std: Per RGB channel of pixels in 0..1.
    """

    resize_shorter_side_px: int = Field(gt=0)
    crop_px: int = Field(gt=0)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def preprocess(jpeg: bytes, how: Preprocessing) -> NDArray[np.float32]:
    """Return the model's input for one thumbnail: `(crop_px, crop_px, 3)`, RGB, float32, normalised."""
    return normalise(crop_square(jpeg, how), how)


def crop_square(jpeg: bytes, how: Preprocessing) -> NDArray[np.uint8]:
    """Return what of a thumbnail a model looks at: `(crop_px, crop_px, 3)`, RGB."""
    with Image.open(io.BytesIO(jpeg)) as image:
        image.draft("RGB", (how.resize_shorter_side_px, how.resize_shorter_side_px))
        rgb = image.convert("RGB")
    scale = how.resize_shorter_side_px / min(rgb.size)
    width, height = (max(how.crop_px, round(side * scale)) for side in rgb.size)
    rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - how.crop_px) // 2, (height - how.crop_px) // 2
    return np.asarray(rgb.crop((left, top, left + how.crop_px, top + how.crop_px)))


def normalise(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """Return pixels 0..255, of one picture or many, as the model was trained to take them."""
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    normalised: NDArray[np.float32] = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return normalised


def make_hint(sha256: str, scores: NDArray[np.float32], labels: Sequence[str], model: str, *, top: int = 3) -> Hint:
    """Return the best labels of one picture.

    Args:
        scores: `(classes,)`, softmax.
        labels: One name a class, in the model's order.
    """
    best = np.argsort(scores)[::-1][:top]
    picked = tuple(Label(label=labels[i], score=min(1.0, round(float(scores[i]), 4))) for i in best)
    return Hint(sha256=sha256, model=model, labels=picked)


def strong_label(hint: Hint | None, min_score: float) -> str | None:
    """Return the first label if its score is high enough to be told to the captioner."""
    if hint is None or not hint.labels or hint.labels[0].score < min_score:
        return None
    return hint.labels[0].label


def alias_labels(
    labels: Sequence[str], aliases: Mapping[str, str | Mapping[str, str]]
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Apply `label_aliases.json` to a model's labels.

    Args:
        aliases: `{"class_4": "Golden retriever"}`, or by language: `{"class_4": {"en": "bee", "fr": "abeille"}}`.

    Returns:
        The English names in the model's order, and the translations by English name.
    """
    names, translations = [], {}
    for label in labels:
        alias = aliases.get(label, label)
        name = alias.get("en", label) if isinstance(alias, Mapping) else alias
        name = re.sub(r"[_\s]+", " ", name).strip()
        names.append(name)
        if isinstance(alias, Mapping):
            translations[name] = dict(alias)
    return names, translations


def translate_label(label: str, language: str, translations: Mapping[str, Mapping[str, str]]) -> str | None:
    """Return the label for a caption in `language`; None where nobody translated it: a label is an English word."""
    base = language.split("-", maxsplit=1)[0]
    known = translations.get(label, {})
    return known.get(language) or known.get(base) or (label if base == "en" else None)
