"""Where labelled pictures come from: a folder of class folders, the same in S3, or rows of IMAGE_RESULTS."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from image_analyzer.errors import ConfigurationError, ItemError
from image_analyzer.keys import parse_s3_uri
from image_analyzer.ports import ObjectStore
from image_analyzer.records import ErrorCode
from image_analyzer.thumbnails import read_pack

# How published data sets (Imagenette, for one) name the halves that hold class folders.
_TRAINED_ON, _HELD_OUT = ("train", "training"), ("val", "valid", "validation", "test")
_PACKS = 8


class Sample(NamedTuple):
    """One labelled file.

    Attributes:
        read: Returns its bytes; ItemError or OSError if it cannot.
        held_out: The data set keeps it apart for testing.
        thumbnail_of: SHA-256 of the original, where the bytes are the thumbnail that the pipeline made of it.
    """

    name: str
    label: str
    read: Callable[[], bytes]
    held_out: bool = False
    thumbnail_of: str | None = None


def read_folder(folder: Path) -> list[Sample]:
    """Return the files of a folder: `CLASS/…`, or `train/CLASS/…` and `val/CLASS/…`.

    Raises:
        ConfigurationError: It is no folder, or holds no class folders.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder")
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return _label(((file.relative_to(folder).as_posix(), file.read_bytes) for file in files), str(folder))


def read_prefix(store: ObjectStore, uri: str) -> list[Sample]:
    """Return the objects below an `s3://` prefix, laid out like a folder.

    Raises:
        ConfigurationError: There are no class folders.
    """
    bucket, key = parse_s3_uri(f"{uri.rstrip('/')}/")

    def read(object_key: str) -> bytes:
        content = store.read(f"s3://{bucket}/{object_key}")
        if content is None:
            raise ItemError(ErrorCode.OBJECT_DELETED, "it was deleted since it was listed")
        return content

    objects = store.list_objects(bucket, key)
    return _label(((obj.key.removeprefix(key), partial(read, obj.key)) for obj in objects), uri)


def _label(files: Iterable[tuple[str, Callable[[], bytes]]], root: str) -> list[Sample]:
    found = []
    for name, read in files:
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") for part in parts):
            continue
        halved = len(parts) > 2 and parts[0] in _TRAINED_ON + _HELD_OUT
        if len(parts) > 1:
            found.append(Sample(name, parts[1 if halved else 0], read, held_out=halved and parts[0] in _HELD_OUT))
    if not found:
        raise ConfigurationError(f"{root} holds no class folders: each class is a sub-folder of pictures")
    return found


def read_labels(file: Path) -> dict[str, str]:
    """Return labels by `s3://` address or sha256, of a csv with a column `label` and `image_uri` or `sha256`.

    Raises:
        ConfigurationError: A column is missing.
    """
    rows = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig")))
    columns = {column.strip().lower(): column for column in rows.fieldnames or ()}
    key = next((columns[name] for name in ("sha256", "image_uri") if name in columns), None)
    if key is None or "label" not in columns:
        raise ConfigurationError(f"{file} needs a column `label` and one of `sha256` and `image_uri`")
    return {row[key].strip(): row[columns["label"]].strip() for row in rows if row[key] and row[columns["label"]]}


def read_results(
    store: ObjectStore, rows: Iterable[Mapping[str, Any]], labels: Mapping[str, str] | None, min_score: float
) -> list[Sample]:
    """Return pictures that IMAGE_RESULTS knows, as their thumbnails show them: no original is read again.

    Args:
        rows: With SHA256, IMAGE_URI, THUMBNAIL_URI, PREDICTED_LABEL, PREDICTED_SCORE.
        labels: People's, by sha256 or address. None: what the hint model said with `min_score` or more is taken for true.

    Raises:
        ConfigurationError: No row has a label.
    """

    @lru_cache(maxsize=_PACKS)
    def open_pack(uri: str) -> dict[str, bytes]:
        return dict(read_pack(store.read(uri)))

    def read(thumbnail_uri: str) -> bytes:
        pack_uri, _, name = thumbnail_uri.partition("#")
        content = open_pack(pack_uri).get(name.removesuffix(".jpg"))
        if content is None:
            raise ItemError(ErrorCode.OBJECT_DELETED, "its thumbnail has expired: run the pipeline with `reprocess`")
        return content

    def label_of(row: Mapping[str, Any]) -> str | None:
        if labels is not None:
            return labels.get(row["SHA256"]) or labels.get(row["IMAGE_URI"])
        sure = row["PREDICTED_SCORE"] is not None and row["PREDICTED_SCORE"] >= min_score
        return row["PREDICTED_LABEL"] if sure else None

    def samples() -> Iterator[Sample]:
        for row in sorted(rows, key=lambda row: str(row["THUMBNAIL_URI"])):
            label = label_of(row) if row["THUMBNAIL_URI"] else None
            if label:
                yield Sample(row["IMAGE_URI"], label, partial(read, row["THUMBNAIL_URI"]), thumbnail_of=row["SHA256"])

    found = list(samples())
    if not found:
        raise ConfigurationError("no row of IMAGE_RESULTS with a thumbnail has a label")
    return found
