"""A labelled data set: which pictures, of which class, on which side of the split. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import combinations

from image_analyzer.errors import ConfigurationError
from image_analyzer.fingerprints import Fingerprint, is_near_duplicate
from image_analyzer.jsonl import dump_lines
from image_analyzer.records import Record

# Fewer cannot be trained on, stopped by and judged by.
LEAST_PICTURES = 5
# Equal digits in one of these windows are what near duplicates nearly always share: pairs need not all be compared.
_WINDOWS = tuple(range(0, 13, 2))
_WINDOW_DIGITS = 4


class Side(StrEnum):
    """What a picture is for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Example(Record):
    """One content of the data set.

    Attributes:
        names: Every file that holds these bytes.
        held_out: The data set itself keeps it apart for testing.
    """

    sha256: str
    label: str
    names: tuple[str, ...]
    looks: Fingerprint
    held_out: bool = False


class Fault(Record):
    """A file that is not trained on, and why."""

    name: str
    label: str
    code: str
    message: str


class Shares(Record):
    """How much of each class is kept for stopping in time, and for judging at the end."""

    validation: float = 0.15
    test: float = 0.15


def join_contents(examples: Iterable[Example]) -> tuple[list[Example], list[Fault]]:
    """Make one example of equal contents, in order of their hash; leave out what is labelled in two ways."""
    by_content: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_content[example.sha256].append(example)
    joined, faults = [], []
    for sha256, same in sorted(by_content.items()):
        names = tuple(name for example in same for name in example.names)
        labels = sorted({example.label for example in same})
        if len(labels) > 1:
            message = f"the same picture is in {' and '.join(labels)}"
            faults += [Fault(name=e.names[0], label=e.label, code="two_labels", message=message) for e in same]
            continue
        held_out = any(example.held_out for example in same)
        joined.append(Example(sha256=sha256, label=labels[0], names=names, looks=same[0].looks, held_out=held_out))
    return joined, faults


def check_classes(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the classes in the order of the model's outputs.

    Raises:
        ConfigurationError: There are fewer than two, or one has too few pictures.
    """
    counts = Counter(example.label for example in examples)
    if len(counts) < 2:
        raise ConfigurationError(
            f"a classifier needs two classes at least; found {', '.join(counts) or 'none'}: give a folder with a "
            "sub-folder of pictures for each class"
        )
    few = {label: count for label, count in counts.items() if count < LEAST_PICTURES}
    if few:
        listed = ", ".join(f"{label} ({count})" for label, count in sorted(few.items()))
        raise ConfigurationError(
            f"each class needs {LEAST_PICTURES} different sound pictures at least; too few: {listed}"
        )
    return tuple(sorted(counts))


def split(examples: Sequence[Example], shares: Shares, seed: int) -> dict[str, Side]:
    """Return the side of each content.

    Each class is split by itself, in an order that follows from seed and hash alone: whoever has the same pictures has
    the same split. Near duplicates go to one side together. What the data set holds out is for testing; then no more is.

    Raises:
        ConfigurationError: A side of a class is empty, since most of its pictures are versions of one another.
    """
    chosen: dict[str, Side] = {}
    for label in sorted({example.label for example in examples}):
        groups = _group_look_alikes([example for example in examples if example.label == label])
        held_out = [group for group in groups if any(example.held_out for example in group)]
        free = sorted((group for group in groups if group not in held_out), key=lambda group: _draw(group, seed))
        total = sum(len(group) for group in groups)
        wanted = {
            Side.TEST: 0 if held_out else max(1, round(shares.test * total)),
            Side.VALIDATION: max(1, round(shares.validation * total)),
        }
        for group in held_out:
            chosen.update({example.sha256: Side.TEST for example in group})
        for group in free:
            side = next((side for side, count in wanted.items() if count > 0), Side.TRAIN)
            if side is not Side.TRAIN:
                wanted[side] -= len(group)
            chosen.update({example.sha256: side for example in group})
        if missing := set(Side) - {chosen[example.sha256] for group in groups for example in group}:
            raise ConfigurationError(
                f"{label} has {total} pictures in {len(groups)} groups of look-alikes: none is left for "
                f"{' and '.join(sorted(missing))}"
            )
    return chosen


def _draw(group: Sequence[Example], seed: int) -> str:
    return hashlib.sha256(f"{seed}:{min(example.sha256 for example in group)}".encode()).hexdigest()


def _group_look_alikes(examples: Sequence[Example]) -> list[list[Example]]:
    """Put near duplicates together, also those that are so by way of a third."""
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    buckets: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        for start in _WINDOWS:
            buckets[start, example.looks.phash[start : start + _WINDOW_DIGITS]].append(index)
    for bucket in buckets.values():
        for one, other in combinations(bucket, 2):
            if root(one) != root(other) and is_near_duplicate(examples[one].looks, examples[other].looks):
                parent[root(other)] = root(one)
    groups: dict[int, list[Example]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[root(index)].append(example)
    return list(groups.values())


def class_weights(examples: Sequence[Example], sides: Mapping[str, Side], classes: Sequence[str]) -> dict[int, float]:
    """Return by class index what makes each class count alike in training, 1 on average over pictures."""
    counts = Counter(example.label for example in examples if sides[example.sha256] is Side.TRAIN)
    total = sum(counts.values())
    return {index: total / (len(classes) * counts[label]) for index, label in enumerate(classes)}


class ManifestLine(Record):
    """One content of the manifest."""

    sha256: str
    label: str
    side: Side
    names: tuple[str, ...]


def make_manifest(examples: Sequence[Example], sides: Mapping[str, Side]) -> bytes:
    """Return what was trained on, one content a line; equal data sets and splits give equal bytes."""
    return dump_lines(
        ManifestLine(sha256=e.sha256, label=e.label, side=sides[e.sha256], names=tuple(sorted(e.names)))
        for e in examples
    )
