"""Where the files of a run lie, and how a night's objects are cut into batches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

from image_analyzer.keys import run_folder_name
from image_analyzer.records import Manifest, ManifestEntry, Steps


class WorkArea:
    """Names every file below the work prefix. A retried step writes the same names.

    Args:
        root_uri: `s3://bucket/prefix`, without a trailing slash.
    """

    def __init__(self, root_uri: str) -> None:
        self.root_uri = root_uri

    def run_uri(self, run_id: str, name: str = "") -> str:
        """Return the address of a file of the run as a whole."""
        return f"{self.root_uri}/runs/{run_folder_name(run_id)}/{name}"

    def batch_uri(self, run_id: str, batch_id: str, name: str) -> str:
        """Return the address of a file of one batch."""
        return self.run_uri(run_id, f"{batch_id}/{name}")

    def ledger_uri(self, path: str) -> str:
        """Return the address of a receipt."""
        return f"{self.root_uri}/{path}"


def sibling_uri(manifest_uri: str, name: str) -> str:
    """Return the address of another file of the batch whose manifest lies at `manifest_uri`."""
    return f"{manifest_uri.rpartition('/')[0]}/{name}"


def run_file_uri(manifest_uri: str, name: str) -> str:
    """Return the address of a file of the run to which the batch of a manifest belongs."""
    return f"{manifest_uri.rsplit('/', 2)[0]}/{name}"


def cut_batches(entries: Iterable[ManifestEntry], size: int) -> list[tuple[ManifestEntry, ...]]:
    """Cut entries into batches of at most `size`, objects with equal ETag and size next to each other.

    Such objects are most likely the same bytes. In one batch they are captioned by one call even before
    any caption of the night is stored.
    """
    groups: dict[tuple[str, int], list[ManifestEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.object.etag, entry.object.size_bytes), []).append(entry)
    batches: list[list[ManifestEntry]] = []
    for group in groups.values():
        fits = batches and len(batches[-1]) + len(group) <= size
        if fits:
            batches[-1].extend(group)
        else:
            batches.extend(group[start : start + size] for start in range(0, len(group), size))
    return [tuple(batch) for batch in batches]


def plan_batches(
    entries: Sequence[ManifestEntry], wanted_size: int, most_batches: int
) -> tuple[int, list[tuple[ManifestEntry, ...]]]:
    """Cut entries into at most `most_batches` batches, larger than wanted if need be.

    Returns:
        The batch size that was used, and the batches.
    """
    size = max(wanted_size, math.ceil(len(entries) / most_batches))
    batches = cut_batches(entries, size)
    while len(batches) > most_batches:  # groups of equal objects are not torn apart and may waste room
        size += math.ceil(size / 4)
        batches = cut_batches(entries, size)
    return size, batches


def make_manifests(
    run_id: str,
    steps: Steps,
    batches: Sequence[tuple[ManifestEntry, ...]],
    *,
    canaries: bool = False,
    reprocess: bool = False,
) -> tuple[Manifest, ...]:
    """Return the night's manifests; the same batches give the same batch ids."""
    return tuple(
        Manifest(
            run_id=run_id,
            batch_id=f"batch-{index:04d}-{_digest(batch)}",
            steps=steps,
            entries=batch,
            canaries=canaries and index == 0,
            reprocess=reprocess,
        )
        for index, batch in enumerate(batches)
    )


def _digest(entries: Sequence[ManifestEntry]) -> str:
    """Return a word for these objects and languages: another plan of the same run never writes over their files."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.object.uri}\0{entry.object.etag}\0{','.join(entry.languages)}\n".encode())
    return digest.hexdigest()[:8]
