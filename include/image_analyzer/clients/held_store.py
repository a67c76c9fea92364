"""ObjectStore for one picture that is held in memory, with the files of the steps in a folder that goes away."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image_analyzer.clients.folder_store import FolderStore
from image_analyzer.ports import OpenObject
from image_analyzer.records import ObjectRef


class HeldStore(FolderStore):
    """One original in memory, everything else in a folder.

    Args:
        content: The original's bytes.
    """

    def __init__(self, folder: Path, content: bytes) -> None:
        super().__init__(folder)
        self._content = content
        self._held: ObjectRef | None = None

    def hold(self, ref: ObjectRef) -> None:
        """Say what the original is called."""
        self._held = ref

    @contextmanager
    def open_object(self, bucket: str, key: str) -> Iterator[OpenObject]:
        """Open the original."""
        if self._held is None or (self._held.bucket, self._held.key) != (bucket, key):
            raise KeyError(f"{bucket}/{key} is not held")
        yield OpenObject(self._held, io.BytesIO(self._content))


@contextmanager
def hold_picture(content: bytes) -> Iterator[HeldStore]:
    """Hold a picture as long as it is worked on."""
    with tempfile.TemporaryDirectory(prefix="image-analyzer-") as folder:
        yield HeldStore(Path(folder), content)
