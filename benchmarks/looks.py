"""How well pictures are told apart and versions of one recognised, by the fingerprints that flag rows.

Method: every photograph below the folders (JPEG; `photos/` and `labelled-photos/` of the test assets, for instance) is
turned into a thumbnail and a fingerprint, and so are versions of it: halved, a quarter brighter, a quarter darker, grey, cut
by 2 % and by 5 % of each side, saved at quality 30. Counted are versions that are taken for a clearly different picture,
versions that are recognised as near duplicates (also by the digits that the SQL joins by), and, over all pairs of
different photographs, those that are not told apart and those taken for near duplicates. Beside it as the alternative: the
difference hash of the same library with the same number of bits.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import imagehash
from PIL import Image, ImageEnhance

from image_analyzer.fingerprints import Fingerprint, is_clearly_different, is_near_duplicate, make_fingerprint
from image_analyzer.thumbnails import paint_thumbnail

_BITS = 8


class Looks(NamedTuple):
    """Our fingerprint of a picture, and the alternative's."""

    ours: Fingerprint
    dhash: imagehash.ImageHash


def look(image: Image.Image) -> Looks:
    jpeg = paint_thumbnail(image.copy(), 1, 768)
    return Looks(make_fingerprint(jpeg), imagehash.dhash(Image.open(io.BytesIO(jpeg))))


def cut(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    return image.crop((int(width * share), int(height * share), int(width * (1 - share)), int(height * (1 - share))))


def versions(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    yield "halved", image.resize((image.width // 2, image.height // 2))
    yield "a quarter brighter", ImageEnhance.Brightness(image).enhance(1.25)
    yield "a quarter darker", ImageEnhance.Brightness(image).enhance(0.75)
    yield "grey", image.convert("L").convert("RGB")
    yield "cut by 2 %", cut(image, 0.01)
    yield "cut by 5 %", cut(image, 0.025)
    poor = io.BytesIO()
    image.save(poor, "JPEG", quality=30)
    yield "quality 30", Image.open(poor)


def is_joined(one: str, other: str) -> bool:
    """Tell whether `select_look_alikes.sql` brings the two together: four digits in a row, and three bytes."""
    pairs = list(zip(one, other, strict=True))
    same = [a == b for a, b in pairs]
    return (
        any(all(same[n : n + 4]) for n in range(0, 14, 2)) and sum(all(same[n : n + 2]) for n in range(0, 16, 2)) >= 3
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    print(__doc__)
    paths = sorted(path for folder in arguments.folders for path in folder.rglob("*.jpg"))
    different: Counter[str] = Counter()
    near: Counter[str] = Counter()
    near_by_dhash: Counter[str] = Counter()
    looks = []
    for path in paths:
        image = Image.open(path).convert("RGB")
        looks.append(look(image))
        for name, version in versions(image):
            one, other = looks[-1], look(version)
            different[name] += is_clearly_different(one.ours, other.ours)
            near[name] += is_near_duplicate(one.ours, other.ours) and is_joined(one.ours.phash, other.ours.phash)
            near_by_dhash[name] += one.dhash - other.dhash <= _BITS and is_joined(str(one.dhash), str(other.dhash))
    print(
        f"{f'versions of {len(paths)} photographs':<32}{'taken for another':>18}{'near duplicate':>16}{'by dhash':>10}"
    )
    for name in near:
        shares = f"{near[name] / len(paths):>16.1%}{near_by_dhash[name] / len(paths):>10.1%}"
        print(f"{name:<32}{different[name]:>18}{shares}")
    total = len(paths) * len(near)
    print(f"{'all':<32}{different.total():>18}{near.total() / total:>16.1%}{near_by_dhash.total() / total:>10.1%}")
    pairs = list(combinations(looks, 2))
    alike = sum(not is_clearly_different(one.ours, other.ours) for one, other in pairs)
    duplicates = sum(is_near_duplicate(one.ours, other.ours) for one, other in pairs)
    by_dhash = sum(one.dhash - other.dhash <= _BITS for one, other in pairs)
    print(
        f"of {len(pairs)} pairs of strangers {alike} are not told apart; near duplicates: {duplicates}, by dhash {by_dhash}"
    )


if __name__ == "__main__":
    main()
