"""A labelled data set: which pictures, of which class, on which side of the split. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from image_analyzer.errors import ConfigurationError
from image_analyzer.fingerprints import Fingerprint
from image_analyzer.jsonl import dump_lines
from image_analyzer.records import Record
from image_analyzer.training.lookalikes import group_look_alikes

# Fewer cannot be trained on, stopped by and judged by.
LEAST_PICTURES = 5


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
    the same split. Near duplicates go to one side together; to be learnt from, where they are labelled in two ways or are too
    many for another side. What the data set holds out is for testing; then no more is.

    Raises:
        ConfigurationError: A side of a class is empty, since most of its pictures are versions of one another.
    """
    groups = [[examples[index] for index in group] for group in group_look_alikes([e.looks for e in examples])]
    chosen = {e.sha256: Side.TEST for group in groups if _is_held_out(group) for e in group}
    free = [group for group in groups if not _is_held_out(group)]
    chosen |= {e.sha256: Side.TRAIN for group in free if len({e.label for e in group}) > 1 for e in group}
    for label, total in sorted(Counter(example.label for example in examples).items()):
        has_test = any(_is_held_out(group) and any(e.label == label for e in group) for group in groups)
        mine = [group for group in free if {e.label for e in group} == {label}]
        chosen |= _split_class(mine, total, shares, seed, has_test=has_test)
        if missing := set(Side) - {chosen[e.sha256] for e in examples if e.label == label}:
            raise ConfigurationError(
                f"{label} has {total} pictures in {len(mine)} groups of look-alikes: none is left for "
                f"{' and '.join(sorted(missing))}"
            )
    return chosen


def _is_held_out(group: Sequence[Example]) -> bool:
    return any(example.held_out for example in group)


def _split_class(
    groups: Sequence[Sequence[Example]], total: int, shares: Shares, seed: int, *, has_test: bool
) -> dict[str, Side]:
    shares_of = {Side.TEST: 0.0 if has_test else shares.test, Side.VALIDATION: shares.validation}
    wanted = {side: max(1, round(share * total)) if share else 0 for side, share in shares_of.items()}
    left = dict(wanted)
    chosen: dict[str, Side] = {}
    for group in sorted(groups, key=lambda group: _draw(group, seed)):
        # A little more than is left is let pass; a burst of one scene must not fill a side.
        fits = (side for side, count in left.items() if count > 0 and len(group) <= count + max(1, wanted[side] // 4))
        side = next(fits, Side.TRAIN)
        if side is not Side.TRAIN:
            left[side] -= len(group)
        chosen.update({example.sha256: side for example in group})
    return chosen


def _draw(group: Sequence[Example], seed: int) -> str:
    return hashlib.sha256(f"{seed}:{min(example.sha256 for example in group)}".encode()).hexdigest()


def class_weights(examples: Sequence[Example], sides: Mapping[str, Side], classes: Sequence[str]) -> dict[int, float]:
    """Return by class index what makes each class count alike in training, 1 on average over pictures."""
    counts = Counter(example.label for example in examples if sides[example.sha256] is Side.TRAIN)
    total = sum(counts.values())
    return {index: total / (len(classes) * counts[label]) for index, label in enumerate(classes)}


class ManifestLine(Record):
    """One content of the manifest; `looks` tells its versions, too."""

    sha256: str
    label: str
    side: Side
    names: tuple[str, ...]
    looks: Fingerprint


def make_manifest(examples: Sequence[Example], sides: Mapping[str, Side]) -> bytes:
    """Return what was trained on, one content a line; equal data sets and splits give equal bytes."""
    return dump_lines(
        ManifestLine(sha256=e.sha256, label=e.label, side=sides[e.sha256], names=tuple(sorted(e.names)), looks=e.looks)
        for e in examples
    )
