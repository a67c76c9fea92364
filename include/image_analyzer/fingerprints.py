"""What a picture looks like, in a few bytes: whether two contents are clearly different, however their bytes differ."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from PIL import Image

from image_analyzer.table import Flag

# The JPEG decoder hands out an eighth of the size for nothing; the hash looks at 32 x 32 pixels.
_DECODED_PX = 64
# By `benchmarks/looks.py`, with both bounds: of the 79,800 pairs out of 400 photographs 24 are not told apart, of 2,800
# versions of them 4 are taken for other pictures.
_CLEARLY_BITS = 16
# Mean difference of a channel, 0 to 255, for pictures without a pattern. A quarter brighter is 40 at most.
_CLEARLY_COLOUR = 64
# No pair of those photographs differs by 8 bits or fewer; nearly all versions but larger crops do.
NEAR_BITS = 8
_MOST_SIBLINGS = 3


class Fingerprint(NamedTuple):
    """What a thumbnail looks like.

    Attributes:
        phash: Perceptual hash by the discrete cosine transform (Zauner 2010), 64 bits as 16 hex digits.
        mean_colour: `#rrggbb`.
    """

    phash: str
    mean_colour: str


def make_fingerprint(jpeg: bytes) -> Fingerprint:
    """Return the fingerprint of a thumbnail."""
    import imagehash

    with Image.open(io.BytesIO(jpeg)) as image:
        image.draft("RGB", (_DECODED_PX, _DECODED_PX))
        colour = image.resize((1, 1), Image.Resampling.BOX).tobytes()
        return Fingerprint(str(imagehash.phash(image)), f"#{colour.hex()}")


def is_clearly_different(one: Fingerprint, other: Fingerprint) -> bool:
    """Return whether two pictures cannot be versions of one another, such as a smaller, a brighter or a cropped one."""
    return _differing_bits(one, other) > _CLEARLY_BITS or _is_other_colour(one, other)


def is_near_duplicate(one: Fingerprint, other: Fingerprint) -> bool:
    """Return whether two pictures are all but surely versions of one another."""
    return _differing_bits(one, other) <= NEAR_BITS and not _is_other_colour(one, other)


def _differing_bits(one: Fingerprint, other: Fingerprint) -> int:
    return (int(one.phash, 16) ^ int(other.phash, 16)).bit_count()


def _is_other_colour(one: Fingerprint, other: Fingerprint) -> bool:
    channels = zip(bytes.fromhex(one.mean_colour[1:]), bytes.fromhex(other.mean_colour[1:]), strict=True)
    return sum(abs(a - b) for a, b in channels) / 3 > _CLEARLY_COLOUR


class Pair(NamedTuple):
    """A row that is written tonight and a row of another content that has something in common with it.

    Attributes:
        other_uri: Image address of the other row.
    """

    image_uri: str
    language: str
    looks: Fingerprint
    other_uri: str
    other_looks: Fingerprint


def flag_pairs(same_captions: Iterable[Pair], look_alikes: Iterable[Pair]) -> list[dict[str, Any]]:
    """Return `{image_uri, language, flags}` of the rows that a person should look at; a few siblings a flag.

    Args:
        same_captions: Flagged where the pictures are clearly different.
        look_alikes: Flagged where they are near duplicates.
    """
    kinds = [
        (Flag.SAME_CAPTION, is_clearly_different, same_captions),
        (Flag.NEAR_DUPLICATE, is_near_duplicate, look_alikes),
    ]
    flags: dict[tuple[str, str], list[dict[str, str]]] = {}
    for flag, is_so, pairs in kinds:
        told: Counter[tuple[str, str]] = Counter()
        for pair in pairs:
            key = (pair.image_uri, pair.language)
            if told[key] < _MOST_SIBLINGS and is_so(pair.looks, pair.other_looks):
                told[key] += 1
                flags.setdefault(key, []).append({"flag": flag, "image_uri": pair.other_uri})
    return [{"image_uri": uri, "language": language, "flags": few} for (uri, language), few in flags.items()]
