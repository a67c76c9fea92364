"""How good a classifier is, from true and predicted classes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from image_analyzer.records import Record


class ClassScore(Record):
    """One class: how many pictures, the share of what it was called for that was right, and the share of it that was found."""

    label: str
    pictures: int
    precision: float
    recall: float


class Scores(Record):
    """The figures of one model on one set of pictures.

    Attributes:
        balanced_accuracy: Mean recall of the classes: a frequent class counts no more than a rare one.
        hinted: Share of pictures whose first score is high enough to be told to the captioner.
        hinted_right: Share of those that are right; 1 if there are none.
        confusion: `confusion[true][predicted]`, by class index; the last column is "something else".
    """

    pictures: int
    accuracy: float
    balanced_accuracy: float
    hinted: float
    hinted_right: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the figures by flat names, as an experiment tracker takes them."""
        named = {name: getattr(self, name) for name in ("accuracy", "balanced_accuracy", "hinted", "hinted_right")}
        return {f"{prefix}_{name}": float(value) for name, value in named.items()}


def score(
    labels: Sequence[str], truth: Sequence[str], called: Sequence[str], confidence: Sequence[float], min_score: float
) -> Scores:
    """Compare what pictures are called with what they are.

    Args:
        labels: The classes of the data set.
        truth, called: By picture. What is called by a name outside `labels` is wrong, whatever it is.
        confidence: Score of the first label, 0 to 1, by picture.
    """
    index = {label: number for number, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels) + 1), np.int64)
    for true, said in zip(truth, called, strict=True):
        confusion[index[true], index.get(said, len(labels))] += 1
    right = np.array([true == said for true, said in zip(truth, called, strict=True)], bool)
    sure = np.array([value >= min_score for value in confidence], bool)
    found = np.diag(confusion)
    actual, claimed = confusion.sum(axis=1), confusion.sum(axis=0)[:-1]
    recall = found / np.maximum(actual, 1)
    precision = found / np.maximum(claimed, 1)
    return Scores(
        pictures=len(right),
        accuracy=_mean(right),
        balanced_accuracy=_mean(recall[actual > 0]),
        hinted=_mean(sure),
        hinted_right=_mean(right[sure]) if sure.any() else 1.0,
        classes=tuple(
            ClassScore(label=label, pictures=int(actual[n]), precision=float(precision[n]), recall=float(recall[n]))
            for n, label in enumerate(labels)
        ),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _mean(values: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def match_name(label: str, classes: Sequence[str]) -> str:
    """Return the class that a foreign model means by `label`: the same name, else whatever its case or number; else the label."""
    if label in classes:
        return label
    return next((name for name in classes if _plain(name) == _plain(label)), label)


def _plain(label: str) -> str:
    return re.sub(r"(?<=\w{2})s$", "", re.sub(r"[_\s]+", " ", label).strip().casefold())
