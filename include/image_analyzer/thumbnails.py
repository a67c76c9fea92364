"""The one small copy that models see: a freshly painted RGB canvas, upright, without a trace of the file it came from."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, ImageOps

_QUALITY = 85
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: equal thumbnails give equal files
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def paint_thumbnail(image: Image.Image, orientation: int, long_edge_px: int) -> bytes:
    """Return a JPEG of the picture, upright, its long edge at most `long_edge_px`; `image` is used up.

    Args:
        image: Decoded. Transparent parts are laid on white; deep greys are stretched to 8 bits.
        orientation: EXIF orientation to apply, 1 to 8.
    """
    small = image if image.mode in ("RGB", "L") and not image.has_transparency_data else _to_rgb(image, long_edge_px)
    small.thumbnail((long_edge_px, long_edge_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if orientation in _TRANSPOSE:
        small = small.transpose(_TRANSPOSE[orientation])
    # A new canvas takes only pixels: re-saving would carry a JPEG comment along.
    canvas = Image.new("RGB", small.size, "white")
    canvas.paste(small)
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _to_rgb(image: Image.Image, long_edge_px: int) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _stretch(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgba.thumbnail((long_edge_px, long_edge_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _stretch(image: Image.Image) -> Image.Image:
    """Map a deep grey picture to 8 bits between its darkest and brightest pixel; `convert` would clip it to white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return ImageOps.grayscale(Image.fromarray(scaled.astype(np.uint8)))


def write_pack(thumbnails: Iterable[tuple[str, bytes]]) -> bytes:
    """Put JPEGs into one zip file without compression, as `<sha256>.jpg`; equal input gives equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as pack:
        for sha256, jpeg in sorted(dict(thumbnails).items()):
            pack.writestr(zipfile.ZipInfo(f"{sha256}.jpg", _EPOCH), jpeg)
    return buffer.getvalue()


def read_pack(content: bytes | None) -> Iterator[tuple[str, bytes]]:
    """Yield (sha256, JPEG) of a pack, sorted by sha256; nothing of a pack that is not there."""
    if not content:
        return
    with zipfile.ZipFile(io.BytesIO(content)) as pack:
        for name in sorted(pack.namelist()):
            yield name.removesuffix(".jpg"), pack.read(name)


def thumbnail_uri(pack_uri: str, sha256: str) -> str:
    """Return the address of one thumbnail in a pack."""
    return f"{pack_uri}#{sha256}.jpg"
