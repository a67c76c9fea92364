"""Images per second of `prepare`'s work beside a straightforward Pillow version of the same work, in one run.

Method: photographs of two sizes (12 MP as cameras write them, 0.3 MP as the web has them), each JPEG of different
content, held in memory so that only processor work is measured. Both sides hash the bytes, read type, size and
orientation, make an upright RGB JPEG of at most 768 px without metadata, and its perceptual hash and mean colour; the
plain one decodes in full, resizes by LANCZOS, and hashes the resized picture. One thread, the two sides in turn, median
of five rounds.
"""

from __future__ import annotations

import hashlib
import io
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import imagehash
from PIL import Image, ImageOps

from image_analyzer.local.pictures import demo_pictures
from image_analyzer.records import ObjectRef
from image_analyzer.steps.prepare import PrepareOptions, describe_bytes

_OPTIONS = PrepareOptions(max_image_bytes=50_000_000, max_image_pixels=100_000_000, thumbnail_px=768, threads=1)
_ROUNDS = 5


def make_photographs(size: tuple[int, int], count: int) -> list[bytes]:
    """Return JPEGs of real photographs, scaled to `size` and cut differently each."""
    sources = [
        Image.open(io.BytesIO(picture.content)).convert("RGB")
        for picture in demo_pictures()
        if picture.name in ("photos/china.jpg", "photos/flower.jpg", "photos/coffee.png", "photos/rocket.jpg")
    ]
    found = []
    for index in range(count):
        source = sources[index % len(sources)]
        cut = source.crop((index, index, source.width - index, source.height - index))
        buffer = io.BytesIO()
        cut.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=88)
        found.append(buffer.getvalue())
    return found


def ours(content: bytes) -> bytes:
    obj = ObjectRef(
        bucket="b", key="a.jpg", etag="e", size_bytes=len(content), last_modified_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    return describe_bytes(obj, content, hashlib.sha256(content).hexdigest(), "s3://b/p.zip", _OPTIONS).thumbnail or b""


def plain(content: bytes) -> bytes:
    hashlib.sha256(content).hexdigest()
    image = Image.open(io.BytesIO(content))
    image = ImageOps.exif_transpose(image).convert("RGB")
    scale = min(1.0, 768 / max(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    imagehash.phash(image)
    image.resize((1, 1), Image.Resampling.BOX)
    return buffer.getvalue()


def rate(work: Callable[[bytes], bytes], contents: list[bytes]) -> float:
    started = time.perf_counter()
    for content in contents:
        work(content)
    return len(contents) / (time.perf_counter() - started)


def main() -> None:
    print(__doc__)
    print(f"{'pictures':<22}{'prepare':>12}{'plain Pillow':>14}{'ratio':>8}")
    for name, size, count in [("12 MP (4000 x 3000)", (4000, 3000), 8), ("0.3 MP (640 x 480)", (640, 480), 40)]:
        contents = make_photographs(size, count)
        rounds = [(rate(ours, contents), rate(plain, contents)) for _ in range(_ROUNDS)]
        mine, theirs = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{name:<22}{mine:>8.1f}/s{theirs:>12.1f}/s{mine / theirs:>8.2f}")


if __name__ == "__main__":
    main()
