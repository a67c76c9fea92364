"""What is read of a picture, and the thumbnail that is painted of it."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
import pytest
from conftest import paint
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from image_analyzer.errors import ItemError
from image_analyzer.records import ErrorCode, ObjectRef
from image_analyzer.steps.prepare import Prepared, PrepareOptions, describe_bytes
from image_analyzer.thumbnails import read_pack, write_pack

OPTIONS = PrepareOptions(max_image_bytes=10_000_000, max_image_pixels=4_000_000, thumbnail_px=768, threads=1)


def read(content: bytes, key: str = "a.jpg", options: PrepareOptions = OPTIONS) -> Prepared:
    """Read a picture as `prepare` does."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    obj = ObjectRef(bucket="b", key=key, etag="e", size_bytes=len(content), last_modified_at=now)
    return describe_bytes(obj, content, "sha", "s3://b/pack.zip", options)


def noise(fmt: str) -> bytes:
    """Return a picture that does not compress, so that it can be cut in the middle of its pixels."""
    pixels = np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt)
    return buffer.getvalue()


def opened(prepared: Prepared) -> Image.Image:
    """Return the thumbnail."""
    return Image.open(io.BytesIO(prepared.thumbnail or b""))


@pytest.mark.parametrize(
    ("fmt", "key", "mime"),
    [
        ("JPEG", "a.jpeg", "image/jpeg"),
        ("PNG", "a.PNG", "image/png"),
        ("WEBP", "a.webp", "image/webp"),
        ("GIF", "a.gif", "image/gif"),
        ("BMP", "a.bmp", "image/bmp"),
        ("TIFF", "a.tif", "image/tiff"),
        ("MPO", "a.jpg", "image/jpeg"),
        ("HEIF", "a.heic", "image/heic"),
        ("AVIF", "a.avif", "image/avif"),
    ],
)
def test_every_format_is_read(fmt: str, key: str, mime: str) -> None:
    """Type, size, mode and frames are read, and a thumbnail is painted, in each format."""
    prepared = read(paint("red", (200, 100), fmt), key)

    facts = prepared.metadata
    assert (mime, True, 200, 100, 1) == (
        facts.mime_type, facts.extension_matches, facts.width_px, facts.height_px, facts.frames,
    )  # fmt: skip
    assert ("JPEG", "RGB", (200, 100)) == (opened(prepared).format, opened(prepared).mode, opened(prepared).size)


def test_the_type_comes_from_the_bytes() -> None:
    """A PNG under a JPEG's name is a PNG, and the row says that the name lies."""
    facts = read(paint("red", fmt="PNG"), "photo.jpg").metadata

    assert ("image/png", False) == (facts.mime_type, facts.extension_matches)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(fmt: str, orientation: int) -> None:
    """Size is as displayed, and the dark corner is where a viewer shows it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    prepared = read(paint("white", (400, 200), fmt, exif=exif))

    turned = orientation >= 5
    assert ((200, 400) if turned else (400, 200)) == (prepared.metadata.width_px, prepared.metadata.height_px)
    thumbnail = np.asarray(opened(prepared).convert("L"))
    height, width = thumbnail.shape
    corners = {
        "top left": thumbnail[: height // 8, : width // 8],
        "top right": thumbnail[: height // 8, -width // 8 :],
        "bottom right": thumbnail[-height // 8 :, -width // 8 :],
        "bottom left": thumbnail[-height // 8 :, : width // 8],
    }
    dark = min(corners, key=lambda name: corners[name].mean())
    where = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left",
             5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left"}  # fmt: skip
    assert where[orientation] == dark


def test_nothing_of_the_file_is_left_in_the_thumbnail() -> None:
    """EXIF with GPS, XMP, ICC profile and comment of the original are not in the thumbnail's bytes."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "SECRET-ARTIST"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSMapDatum] = "SECRET-DATUM"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    extras = {"exif": exif, "icc_profile": icc, "comment": b"SECRET-COMMENT", "xmp": b"SECRET-XMP ns.adobe.com"}
    original = paint("red", (900, 600), **extras)
    for word in (b"SECRET-ARTIST", b"SECRET-DATUM", b"SECRET-COMMENT", b"SECRET-XMP", b"ICC_PROFILE"):
        assert word in original  # else the test proves nothing

    thumbnail = read(original).thumbnail or b""

    for word in (b"SECRET", b"Exif", b"ICC_PROFILE", b"adobe", b"http"):
        assert word not in thumbnail


def test_text_chunks_of_a_png_are_gone() -> None:
    """PNG text chunks do not reach the thumbnail."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Description", "SECRET")
    assert b"SECRET" not in (read(paint("red", fmt="PNG", pnginfo=info)).thumbnail or b"SECRET")


def test_transparent_parts_become_white() -> None:
    """A picture that is all transparent is white, not black."""
    buffer = io.BytesIO()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(buffer, "PNG")

    assert (255, 255, 255) == opened(read(buffer.getvalue())).getpixel((10, 10))


def test_deep_grey_is_not_clipped() -> None:
    """A 16 bit picture keeps its shades: plain conversion would turn all of it white."""
    ramp = np.linspace(0, 60_000, 100 * 100, dtype=np.uint16).reshape(100, 100)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")

    values = np.asarray(opened(read(buffer.getvalue())).convert("L"))

    assert values.min() < 20
    assert values.max() > 230
    assert 100 < values.mean() < 155


def test_the_long_edge_is_bounded_and_never_enlarged() -> None:
    """A large picture shrinks to the asked edge, a small one stays."""
    assert (768, 384) == opened(read(paint("red", (2000, 1000)))).size
    assert (30, 20) == opened(read(paint("red", (30, 20)))).size


def test_scaled_decoding_tells_the_full_size() -> None:
    """JPEG is decoded at a reduced scale, the row still has the true size."""
    facts = read(paint("red", (1999, 1001)), options=OPTIONS.model_copy(update={"thumbnail_px": 64})).metadata

    assert (1999, 1001) == (facts.width_px, facts.height_px)


def test_frames_are_counted_and_the_first_is_shown() -> None:
    """An animation has its number of frames, and its thumbnail is frame one."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])

    prepared = read(buffer.getvalue(), "a.gif")

    assert 3 == prepared.metadata.frames
    red, green, _ = opened(prepared).getpixel((10, 10))  # type: ignore[misc]
    assert red > 200 > 60 > green


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", ErrorCode.EMPTY_FILE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ErrorCode.UNSUPPORTED_TYPE),
        (b"%PDF-1.7 ...", ErrorCode.UNSUPPORTED_TYPE),
        (b"just some words", ErrorCode.UNSUPPORTED_TYPE),
        (b"\x00\x01\x02\x03" * 50, ErrorCode.UNSUPPORTED_TYPE),
        (b"\xff\xd8\xff" + b"junk" * 50, ErrorCode.CORRUPT),
        (paint("red", (300, 300))[:800], ErrorCode.TRUNCATED),
        (paint("red", (300, 300), "PNG")[:200], ErrorCode.TRUNCATED),
        (noise("PNG")[:40_000], ErrorCode.TRUNCATED),
        (noise("JPEG")[:9_000], ErrorCode.TRUNCATED),
        (paint("red", (2500, 2000), "PNG"), ErrorCode.TOO_MANY_PIXELS),
    ],
)
def test_a_bad_file_has_a_reason(content: bytes, code: ErrorCode) -> None:
    """Each kind of bad file is an ItemError with its code, never another exception."""
    with pytest.raises(ItemError) as caught:
        read(content)

    assert code == caught.value.code
    assert str(caught.value)


def test_svg_is_named() -> None:
    """The reason names the type that was found."""
    with pytest.raises(ItemError, match=r"image/svg\+xml"):
        read(b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>")


def test_packs_are_reproducible() -> None:
    """The same thumbnails give the same file, whatever order they come in, so that a retry overwrites like with like."""
    one, two = ("b", b"2"), ("a", b"1")

    assert write_pack([one, two]) == write_pack([two, one, one])
    assert [two, one] == list(read_pack(write_pack([one, two])))
