"""Whether memory and disk will do, said before anything is read."""

from __future__ import annotations

import fcntl
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image_analyzer.errors import ConfigurationError

# Measured as `models/train.py` prints it, at batches of 32 and 8 (models/README.md): TensorFlow and MLflow in one process,
# then the layers' values of each picture of a batch.
_PROCESS_BYTES = 1_600_000_000
_BYTES_PER_PICTURE_OF_BATCH = 30_000_000
# Best weights, optimizer's state, SavedModel, converted model, and what MLflow keeps of them.
_MODELS_BYTES = 300_000_000
_CGROUP = Path("/sys/fs/cgroup")


def check_room(folder: Path, pictures: int, input_px: int, batch: int) -> None:
    """Say early what would end in the middle of a training.

    Args:
        folder: Where pixels and models will lie.

    Raises:
        ConfigurationError: Memory or disk is too small; it says how much is missing and what to do.
    """
    needed = _PROCESS_BYTES + batch * _BYTES_PER_PICTURE_OF_BATCH
    if (free := _free_memory()) < needed:
        raise ConfigurationError(
            f"training needs some {_giga(needed)} of memory, {_giga(free)} are free: close something, or lower --batch "
            f"({batch}), each picture of which takes {_BYTES_PER_PICTURE_OF_BATCH // 1_000_000} MB"
        )
    needed = pictures * input_px * input_px * 3 + _MODELS_BYTES
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ConfigurationError(
            f"{pictures} pictures need some {_giga(needed)} below {folder}, {_giga(free)} are free: make room there"
        )


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the only training of a folder; a process that dies lets it go.

    Raises:
        ConfigurationError: Another one runs: together they would not have the memory.
    """
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another training runs ({folder}): wait for its end") from None
        yield


def _free_memory() -> int:
    """Return what this process may still take: the machine's, or its container's if that is less."""
    import psutil

    free = [int(psutil.virtual_memory().available)]
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        free += [int(limit) - int(used)] if limit != "max" else []
    except OSError:
        pass  # no container, or one without this file
    return min(free)


def peak_memory() -> int:
    """Return the most memory that this process has taken, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes


def _giga(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
