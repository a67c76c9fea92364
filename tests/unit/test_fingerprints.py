"""Whether two pictures are clearly different, by what they look like."""

from __future__ import annotations

import io
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
from conftest import paint, photograph
from PIL import Image, ImageEnhance

from image_analyzer.fingerprints import Fingerprint, is_clearly_different, is_near_duplicate, make_fingerprint
from image_analyzer.thumbnails import paint_thumbnail

NAMES = ("astronaut.png", "chelsea.png", "china.jpg", "coffee.png", "coins.png", "flower.jpg", "moon.png", "rocket.jpg")


@cache
def opened(name: str) -> Image.Image:
    """Return one of the demonstration's photographs."""
    return Image.open(io.BytesIO(photograph(name))).convert("RGB")


def seen(image: Image.Image) -> Fingerprint:
    """Return the fingerprint of a picture's thumbnail."""
    return make_fingerprint(paint_thumbnail(image.copy(), 1, 768))


@pytest.mark.parametrize("name", NAMES)
def test_versions_of_a_photograph_are_alike(name: str) -> None:
    """Smaller, brighter, darker, grey, cut at the edge, saved badly: the same picture."""
    image = opened(name)
    width, height = image.size
    poor = io.BytesIO()
    image.save(poor, "JPEG", quality=30)
    versions = {
        "smaller": image.resize((width // 2, height // 2)),
        "brighter": ImageEnhance.Brightness(image).enhance(1.25),
        "darker": ImageEnhance.Brightness(image).enhance(0.75),
        "grey": image.convert("L").convert("RGB"),
        "cut": image.crop((width // 40, height // 40, width - width // 40, height - height // 40)),
        "poor": Image.open(poor),
    }

    assert [] == [kind for kind, other in versions.items() if is_clearly_different(seen(image), seen(other))]
    assert is_near_duplicate(seen(image), seen(versions["smaller"]))


def test_photographs_of_other_things_are_clearly_different() -> None:
    """Each of the demonstration's photographs from each other."""
    prints = {name: seen(opened(name)) for name in NAMES}

    assert [] == [pair for pair in combinations(NAMES, 2) if not is_clearly_different(*(prints[n] for n in pair))]


def test_plain_pictures_differ_by_colour() -> None:
    """A hash sees no pattern in a wall; a red one and a blue one are different all the same, two reds are not."""
    red, blue, brick = (
        make_fingerprint(paint_thumbnail(Image.open(io.BytesIO(paint(colour))), 1, 768))
        for colour in ("red", "blue", "firebrick")
    )

    assert (True, False) == (is_clearly_different(red, blue), is_clearly_different(red, brick))
    assert ("#ee0000", 16) == (red.mean_colour, len(red.phash))


def test_four_hundred_photographs(assets: Path) -> None:
    """Of all pairs of the assets' photographs fewer than one in a thousand are taken for versions of one another."""
    paths = [*assets.glob("photos/images/*.jpg"), *assets.glob("labelled-photos/*/*.jpg")]
    prints = [seen(Image.open(path).convert("RGB")) for path in paths]
    pairs = list(combinations(prints, 2))

    assert len(paths) > 300
    assert sum(not is_clearly_different(*pair) for pair in pairs) < len(pairs) / 1_000
    assert not any(is_near_duplicate(*pair) for pair in pairs)
