"""Which pictures of a data set are versions of one another: every pair is compared, of whatever class. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from image_analyzer.fingerprints import NEAR_BITS, Fingerprint, is_near_duplicate

_ROWS_AT_ONCE = 256


def near_pairs(looks: Sequence[Fingerprint], others: Sequence[Fingerprint]) -> Iterator[tuple[int, int]]:
    """Yield the indices of near duplicates, of the first sequence and the second."""
    mine, theirs = _bits(looks), _bits(others)
    for start in range(0, len(mine), _ROWS_AT_ONCE):
        differing = np.bitwise_count(mine[start : start + _ROWS_AT_ONCE, None] ^ theirs[None, :])
        for one, other in np.argwhere(differing <= NEAR_BITS):
            if is_near_duplicate(looks[start + one], others[other]):
                yield start + int(one), int(other)


def group_look_alikes(looks: Sequence[Fingerprint]) -> list[list[int]]:
    """Return groups of indices: near duplicates together, also those that are so by way of a third."""
    parent = list(range(len(looks)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for one, other in near_pairs(looks, looks):
        if root(one) != root(other):
            parent[root(other)] = root(one)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(looks)):
        groups[root(index)].append(index)
    return list(groups.values())


def _bits(looks: Sequence[Fingerprint]) -> NDArray[np.uint64]:
    return np.array([int(one.phash, 16) for one in looks], np.uint64)
