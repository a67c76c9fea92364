"""The data set as the network sees it: every picture decoded once, by the nightly run's own code, into one file of pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from image_analyzer.conversion import SCALINGS
from image_analyzer.errors import ItemError
from image_analyzer.fingerprints import make_fingerprint
from image_analyzer.hints import Preprocessing, crop_square, normalise
from image_analyzer.metadata import decode, decoder_errors, open_image
from image_analyzer.steps.prepare import PrepareOptions
from image_analyzer.thumbnails import paint_thumbnail
from image_analyzer.training.dataset import Example, Fault
from image_analyzer.training.sources import Sample

INPUT_PX = 224
SEES = Preprocessing(
    resize_shorter_side_px=round(INPUT_PX * 256 / 224),
    crop_px=INPUT_PX,
    mean=SCALINGS["keras"][0],
    std=SCALINGS["keras"][1],
)


class Crop(NamedTuple):
    """One picture as the network sees it: `pixels` is `(crop_px, crop_px, 3)`, RGB."""

    example: Example
    pixels: NDArray[np.uint8]


def read_crops(samples: Sequence[Sample], how: Preprocessing, options: PrepareOptions) -> Iterable[Crop | Fault]:
    """Read, check and shrink every file as `prepare` and `hint` do; what is no sound picture is a fault, not an error."""

    def read(sample: Sample) -> Crop | Fault:
        try:
            content = sample.read()
            if len(content) > options.max_image_bytes:
                raise ItemError("too_large", f"more than MAX_IMAGE_BYTES ({options.max_image_bytes})")
            jpeg = content if sample.thumbnail_of else shrink_picture(content, sample.name, options)
            pixels = crop_square(jpeg, how)
        except (ItemError, OSError) as error:
            code = str(error.code) if isinstance(error, ItemError) else "unreadable"
            return Fault(name=sample.name, label=sample.label, code=code, message=str(error))
        example = Example(
            sha256=sample.thumbnail_of or hashlib.sha256(content).hexdigest(),
            label=sample.label,
            names=(sample.name,),
            looks=make_fingerprint(jpeg),
            held_out=sample.held_out,
        )
        return Crop(example, pixels)

    with ThreadPoolExecutor(options.threads) as pool:
        yield from pool.map(read, samples)


def shrink_picture(content: bytes, name: str, options: PrepareOptions) -> bytes:
    """Return the thumbnail that `prepare` would make.

    Raises:
        ItemError: It is no sound picture of a supported type.
    """
    image = open_image(content, max_pixels=options.max_image_pixels)
    facts = decode(image, name, options.thumbnail_px)
    with decoder_errors():
        return paint_thumbnail(image, facts.orientation, options.thumbnail_px)


class Pixels:
    """Crops in a file, `(count, crop_px, crop_px, 3)`, uint8; memory holds only what is looked at."""

    def __init__(self, file: Path, count: int, how: Preprocessing) -> None:
        self.file, self.count, self.how = file, count, how
        shape = (count, how.crop_px, how.crop_px, 3)
        if not file.exists() or file.stat().st_size != int(np.prod(shape)):
            file.write_bytes(b"")
            os.truncate(file, int(np.prod(shape)))
        self._pixels: NDArray[np.uint8] = np.memmap(file, np.uint8, "r+", shape=shape)

    def put(self, index: int, pixels: NDArray[np.uint8]) -> None:
        """Keep one picture."""
        self._pixels[index] = pixels

    def inputs(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the network's inputs, as `preprocess` makes them of a thumbnail."""
        return normalise(self._pixels[indices], self.how)

    def raw(self, index: int) -> NDArray[np.uint8]:
        """Return one picture for people to look at."""
        return np.asarray(self._pixels[index])
