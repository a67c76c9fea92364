"""Files that were made or found to break image parsers."""

from __future__ import annotations

import json
import multiprocessing as mp
import resource
from pathlib import Path
from typing import Any

import pytest
from PIL import features

from image_analyzer.errors import ItemError

_MEMORY_BYTES = 3 << 30


def _read_all(folder: str, rows: list[dict[str, Any]], answers: Any) -> None:
    """Read every file in this process, whose memory is bounded; report what became of each."""
    from test_pictures import read

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for row in rows:
        try:
            facts = read(Path(folder, row["file"]).read_bytes(), row["file"]).metadata
            answers.put((row["file"], "decodes", [facts.width_px, facts.height_px], facts.frames))
        except ItemError as error:
            answers.put((row["file"], "refused", error.code, str(error)))
        except BaseException as error:  # noqa: BLE001 - the very thing that must not happen
            answers.put((row["file"], "escaped", type(error).__name__, str(error)))


@pytest.fixture(scope="module")
def outcomes(assets: Path) -> dict[str, tuple[Any, ...]]:
    """What became of each file, by name."""
    folder = assets / "awkward"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    context = mp.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_read_all, args=(str(folder), rows, answers))
    child.start()
    found = {}
    for _ in rows:
        name, *rest = answers.get(timeout=60)
        found[name] = tuple(rest)
    child.join(30)
    assert 0 == child.exitcode
    return found


def _manifest(assets: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (assets / "awkward" / "manifest.jsonl").read_text().splitlines()]


def test_no_file_escapes(outcomes: dict[str, tuple[Any, ...]]) -> None:
    """149 hostile files within 3 GiB: each one ends as facts or as an ItemError, none as another exception."""
    assert [] == [(name, what) for name, what in outcomes.items() if what[0] == "escaped"]
    assert len(outcomes) >= 149


def test_sound_files_of_supported_formats_decode(outcomes: dict[str, tuple[Any, ...]], assets: Path) -> None:
    """What Pillow decodes and we support is read, upright, with its frames."""
    ours = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"}
    assert features.check("avif")
    rows = [
        row
        for row in _manifest(assets)
        if "upright_size" in row and row["expected"] == "decodes" and row["format"] in ours
    ]

    wrong = [
        (row["file"], outcomes[row["file"]], row["upright_size"])
        for row in rows
        if outcomes[row["file"]][:2] != ("decodes", row["upright_size"])
    ]
    assert [] == wrong
    assert len(rows) > 40


def test_same_md5_is_not_same_picture(outcomes: dict[str, tuple[Any, ...]], assets: Path) -> None:
    """Pairs of different pictures with one MD5 have two SHA-256: content is never keyed by an ETag."""
    rows = [row for row in _manifest(assets) if "hash_collisions/" in row["file"]]

    assert len({row["md5"] for row in rows}) * 2 == len(rows) == len({row["sha256"] for row in rows}) == 8
    assert all(row["file"] in outcomes for row in rows)
