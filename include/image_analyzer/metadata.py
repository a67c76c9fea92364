"""What the bytes of a picture say: its type, its size as displayed, its frames. Pure: bytes in, facts or `ItemError` out."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple

import filetype
import pillow_heif
from PIL import ExifTags, Image, UnidentifiedImageError

from image_analyzer.errors import ItemError
from image_analyzer.records import ErrorCode

pillow_heif.register_heif_opener()

# Pillow's name of each format that is read -> its MIME type and the extensions that tell the truth.
# MPO is how many phones write a JPEG: the first frame is one.
FORMATS: dict[str, tuple[str, frozenset[str]]] = {
    "JPEG": ("image/jpeg", frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})),
    "MPO": ("image/jpeg", frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"})),
    "PNG": ("image/png", frozenset({".png", ".apng"})),
    "WEBP": ("image/webp", frozenset({".webp"})),
    "GIF": ("image/gif", frozenset({".gif"})),
    "BMP": ("image/bmp", frozenset({".bmp", ".dib"})),
    "TIFF": ("image/tiff", frozenset({".tif", ".tiff"})),
    "HEIF": ("image/heic", frozenset({".heic", ".heif", ".hif"})),
    "AVIF": ("image/avif", frozenset({".avif", ".avifs"})),
}
_OPENERS = tuple(name for name in FORMATS if name != "MPO")  # the JPEG opener decides that a file is one
_SUPPORTED_MIME = frozenset(mime for mime, _ in FORMATS.values()) | {"image/heif", "image/apng"}
_SWAPS_SIDES = frozenset({5, 6, 7, 8})
_TRUNCATED_WORDS = ("truncated", "unexpected end", "end of file", "eof", "not enough image data", "premature")


class ImageFacts(NamedTuple):
    """What the header and the decoder said.

    Attributes:
        width_px, height_px: As displayed, orientation applied.
        orientation: EXIF orientation that still has to be applied, 1 to 8.
    """

    mime_type: str
    extension_matches: bool
    width_px: int
    height_px: int
    frames: int
    colour_mode: str
    orientation: int


def sniff_mime(content: bytes) -> str:
    """Return the MIME type that the first bytes claim; `application/octet-stream` if they claim none."""
    head = content[:4096]
    kind = filetype.guess_mime(head)
    if kind:
        return str(kind)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text and text.startswith(b"<"):
        return "image/svg+xml"
    if text.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    if text and b"\0" not in text:
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            return "application/octet-stream"
        return "text/plain"
    return "application/octet-stream"


def open_image(content: bytes, *, max_pixels: int) -> Image.Image:
    """Open the picture lazily after checking its type and its number of pixels.

    Raises:
        ItemError: EMPTY_FILE, UNSUPPORTED_TYPE, CORRUPT or TOO_MANY_PIXELS.
    """
    if not content:
        raise ItemError(ErrorCode.EMPTY_FILE, "the object has no bytes")
    with decoder_errors():
        try:
            image = Image.open(io.BytesIO(content), formats=_OPENERS)
        except UnidentifiedImageError:
            mime = sniff_mime(content)
            if mime in _SUPPORTED_MIME:
                raise ItemError(ErrorCode.CORRUPT, f"starts like {mime} but cannot be read as such") from None
            raise ItemError(ErrorCode.UNSUPPORTED_TYPE, f"{mime} is not a supported picture type") from None
    width, height = image.size
    if width * height > max_pixels:
        raise ItemError(
            ErrorCode.TOO_MANY_PIXELS, f"{width} x {height} pixels are more than MAX_IMAGE_PIXELS ({max_pixels})"
        )
    if width == 0 or height == 0:
        raise ItemError(ErrorCode.CORRUPT, f"the picture is {width} x {height} pixels")
    return image


def decode(image: Image.Image, key: str, long_edge_px: int) -> ImageFacts:
    """Decode the first frame in place, at a reduced scale where the format can, and read the facts.

    Args:
        image: From `open_image`.
        key: The object's key, whose extension is compared with the bytes.
        long_edge_px: Long edge of the thumbnail to be made; the scale stays at or above twice that.

    Raises:
        ItemError: TRUNCATED, CORRUPT or TOO_MANY_PIXELS.
    """
    mime, extensions = FORMATS[image.format or ""]
    full_size, mode = image.size, image.mode
    with decoder_errors():
        frames = _frames(image)  # counting moves to other frames, so it comes before decoding
        if image.format in ("JPEG", "MPO"):
            scale = min(1.0, 2 * long_edge_px / max(full_size))
            image.draft(mode, (round(full_size[0] * scale), round(full_size[1] * scale)))
        _load(image)
    orientation = _orientation(image)
    width, height = reversed(full_size) if orientation in _SWAPS_SIDES else full_size
    matches = PurePosixPath(key).suffix.lower() in extensions
    return ImageFacts(mime, matches, width, height, frames, mode, orientation)


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception:
        if image.format != "PNG":
            raise
        # A PNG whose pixels are whole may end in a broken chunk; Pillow reads that once, after the pixels.
        image.load()


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 where there is none or it cannot be read: a bad tag does not spoil a picture.

    Call it after decoding: asking a PNG for EXIF decodes it whole.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _frames(image: Image.Image) -> int:
    """Return the number of frames; 1 where counting fails: the first one was decoded."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        image.seek(0)
        return 1


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes into an `ItemError`.

    Catching everything is deliberate: fuzzed files raised ten unrelated classes, MemoryError among them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ItemError:
        raise
    except Image.DecompressionBombError as error:
        raise ItemError(ErrorCode.TOO_MANY_PIXELS, str(error)) from None
    except UnidentifiedImageError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[:300]
        truncated = any(word in text.lower() for word in _TRUNCATED_WORDS)
        raise ItemError(ErrorCode.TRUNCATED if truncated else ErrorCode.CORRUPT, text) from None
