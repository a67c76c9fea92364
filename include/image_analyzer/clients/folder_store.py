"""ObjectStore over a folder of this machine: `s3://bucket/key` is `<folder>/bucket/key`. For single pictures and tests."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from image_analyzer.errors import ItemError
from image_analyzer.keys import parse_s3_uri
from image_analyzer.ports import OpenObject
from image_analyzer.records import ErrorCode, ObjectRef

_UNFINISHED = ".unfinished"


class FolderStore:
    """Objects as files.

    Args:
        folder: Is made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list_objects(self, bucket: str, prefix: str) -> Iterator[ObjectRef]:
        """Yield the files whose key begins with the prefix, in key order."""
        root = self._folder / bucket
        files = (file for file in root.rglob("*") if file.is_file() and not file.name.endswith(_UNFINISHED))
        keys = sorted(str(file.relative_to(root)) for file in files)
        return (self._ref(bucket, key) for key in keys if key.startswith(prefix))

    @contextmanager
    def open_object(self, bucket: str, key: str) -> Iterator[OpenObject]:
        """Open a file for one streamed read."""
        try:
            body = (self._folder / bucket / key).open("rb")
        except FileNotFoundError:
            raise ItemError(ErrorCode.OBJECT_DELETED, "deleted after it was listed") from None
        with body:
            yield OpenObject(self._ref(bucket, key), body)

    def read(self, uri: str) -> bytes | None:
        """Return a file; None if it is not there."""
        try:
            return self._path(uri).read_bytes()
        except FileNotFoundError:
            return None

    def read_with_age(self, uri: str) -> tuple[bytes, float] | None:
        """Return a file and its age."""
        path = self._path(uri)
        try:
            return path.read_bytes(), time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return None

    def write(self, uri: str, content: bytes, content_type: str) -> None:
        """Write a file whole: a reader sees the old one or the new one."""
        path = self._path(uri)
        self._write_fresh(path, content).replace(path)

    def create(self, uri: str, content: bytes) -> bool:
        """Write a file, whole, if there is none."""
        path = self._path(uri)
        fresh = self._write_fresh(path, content)
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            return False
        finally:
            fresh.unlink()
        return True

    def delete(self, uri: str) -> None:
        """Delete a file; none there is fine."""
        self._path(uri).unlink(missing_ok=True)

    @staticmethod
    def _write_fresh(path: Path, content: bytes) -> Path:
        """Write beside a file, under a name that nobody else has."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{uuid4().hex}{_UNFINISHED}")
        fresh.write_bytes(content)
        return fresh

    def _path(self, uri: str) -> Path:
        return self._folder.joinpath(*parse_s3_uri(uri))

    def _ref(self, bucket: str, key: str) -> ObjectRef:
        path = self._folder / bucket / key
        content = path.read_bytes()
        modified_at = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
        return ObjectRef(
            bucket=bucket,
            key=key,
            etag=hashlib.md5(content, usedforsecurity=False).hexdigest(),
            size_bytes=len(content),
            last_modified_at=modified_at,
        )
